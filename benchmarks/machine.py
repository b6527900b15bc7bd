"""What the figures were taken on: the hardware and the versions, and nothing that names the machine or its owner."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from benchmarks.build import Built


def describe(built: Built) -> dict[str, str]:
    """Facts by title."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "CPU": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "CPU kernels": f"{built.kernels} (the library that ggml has for this CPU)",
        "operating system": f"Linux {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "llama-cpp-python": built.version,
        "Inferno": metadata.version("inferno-runtime"),
        "model": "135M parameters (30 layers of 576, 9 heads over 3), Q8_0, random weights, 49,152 tokens",
    }


def load_average() -> float:
    """Processes that want a core, on average over the last minute: other work spoils a measurement."""
    return os.getloadavg()[0]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
