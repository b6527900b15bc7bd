"""The processes of a pod, as the node sees them."""

import contextlib
import os
import signal as signals
from pathlib import Path
from typing import Any, Literal

from tests.cluster.sandbox import Sandbox, SandboxError

Role = Literal["engine", "main", "shim"]
_ENGINE = b"inferno_runtime.worker"


def signal(sandbox: Sandbox, name: str, pod: dict[str, Any], role: Role) -> None:
    """Sends a signal to the first process of a pod's container, to its engine, or to the shim that holds it."""
    assert sandbox.running
    os.kill(_find(pod["metadata"]["uid"], role), getattr(signals, f"SIG{name}"))


def runs(pod: dict[str, Any]) -> bool:
    """Whether the pod's server is there still; the API may have forgotten the pod before the node has ended it."""
    try:
        _find(pod["metadata"]["uid"], "main")
    except SandboxError:
        return False
    return True


def _find(uid: str, role: Role) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"pod{uid}" not in (process / "cgroup").read_text():
                continue
            command = (process / "cmdline").read_bytes()
            if _ENGINE in command and role == "engine":
                return int(process.name)
            # Process 1 of the container's namespace, and not that of the pod's.
            first = _status(process, "NSpid").split()[-1] == "1" and b"/pause" not in command
            if first and role == "main":
                return int(process.name)
            if first and role == "shim":
                return int(_status(process, "PPid"))
    raise SandboxError(f"no {role} of the pod {uid} runs on the node")


def _status(process: Path, field: str) -> str:
    lines = (process / "status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))
