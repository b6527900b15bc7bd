"""Which CPU this is and how much of it the process may use: of a container's quota `os.cpu_count()` knows nothing."""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_X86 = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
_ARM = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features")


def cpu_quota(root: Path = _CGROUPS, allowed: int | None = None, proc: Path = _PROC) -> int:
    """Whole CPUs that the process may use, at least 1.

    A fraction is dropped, for threads that evaluate a model meet at a barrier thousands of times a second: under 1.5
    CPUs two of them would use up every period's quota early, one of them by spinning at a barrier while the other is
    held back, and then stand still together until the next period. What is left over is the server's.
    """
    return max(1, int(cpu_limit(root, allowed, proc)))


def cpu_limit(root: Path = _CGROUPS, allowed: int | None = None, proc: Path = _PROC) -> float:
    """CPUs that the process may use, a fraction included: the smallest of its affinity and its cgroups' quotas.

    A quota binds everything below it, so the process's own cgroup and all that it lies in are asked (v1 and v2).
    root: where the cgroups are mounted; allowed: CPUs in the affinity mask, the process's own if not given.
    """
    limit = float(allowed or len(os.sched_getaffinity(0)))
    for folder in cgroup_folders("cpu", root, proc):
        for quota, period in (_quota_v2(folder), _quota_v1(folder)):
            if quota > 0 and period > 0:
                limit = min(limit, quota / period)
    return limit


class IdleCores:
    """How many of the machine's cores nobody used: each call answers for the time since the one before."""

    def __init__(self, proc: Path = _PROC, clock: Callable[[], float] = time.monotonic) -> None:
        self._stat = proc / "stat"
        self._clock = clock
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._before: tuple[float, float] | None = None

    def __call__(self) -> float:
        """Cores, on average; infinity where that is not known."""
        idle, now = self._idle(), self._clock()
        if idle is None:
            return math.inf
        before, self._before = self._before, (idle, now)
        if before is None or now <= before[1]:
            return math.inf
        return (idle - before[0]) / (now - before[1])

    def _idle(self) -> float | None:
        """Seconds that all cores together had nothing to do, or waited for a disk."""
        words = read_text(self._stat).partition("\n")[0].split()
        if len(words) < 6 or words[0] != "cpu" or not all(word.isdecimal() for word in words[4:6]):
            return None
        return (int(words[4]) + int(words[5])) / self._ticks


class AvailableCores:
    """How many cores this process used or nobody: each call answers for the time since the one before."""

    def __init__(
        self,
        idle: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        """idle: cores since it was last asked; used: seconds of processor time, of all threads together."""
        self._idle = idle or IdleCores()
        self._clock = clock
        self._used = used
        self._before: tuple[float, float] | None = None

    def __call__(self) -> float:
        """Cores, on average; infinity where that is not known."""
        idle, used, now = self._idle(), self._used(), self._clock()
        before, self._before = self._before, (used, now)
        if before is None or now <= before[1]:
            return math.inf
        return idle + (used - before[0]) / (now - before[1])


def cpu_facts(proc: Path = _PROC) -> dict[str, str]:
    """The kind of CPU as /proc/cpuinfo has it, without what changes from core to core and from boot to boot."""
    lines = (line.partition(":") for line in read_text(proc / "cpuinfo").partition("\n\n")[0].splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    return {name: facts[name] for name in (*_X86, *_ARM) if name in facts}


def cgroup_folders(controller: str, root: Path = _CGROUPS, proc: Path = _PROC) -> Iterator[Path]:
    """The folders of the cgroups that bind this process in one respect, each from its own up to the mounted root.

    A folder may be missing: in a container the kernel may name the path on the host, where the container's own cgroup is
    what is mounted as the root. Files of v1 and v2 have different names, so the caller tries both in every folder.
    """
    for line in read_text(proc / "self" / "cgroup").splitlines() or ["0::/"]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mounts = [root, root / "unified"]  # v2 alone, and beside v1
        elif controller in controllers.split(","):
            mounts = [root / controller, root / controllers]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # above the root of this cgroup namespace, out of sight
            parts = []
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                yield mount.joinpath(*parts[:depth])


def read_text(path: Path) -> str:
    """A small file's text without the white space around it; empty when it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _quota_v2(folder: Path) -> tuple[int, int]:
    words = read_text(folder / "cpu.max").split()
    return (_number(words[0]), _number(words[1])) if len(words) == 2 else (0, 0)


def _quota_v1(folder: Path) -> tuple[int, int]:
    return _number(read_text(folder / "cpu.cfs_quota_us")), _number(read_text(folder / "cpu.cfs_period_us"))


def _number(text: str) -> int:
    """A count of microseconds; 0 for "max", for v1's -1 and for anything else."""
    return int(text) if text.isdecimal() else 0
