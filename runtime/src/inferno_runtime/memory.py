"""How much memory this process may use, and how much of that is left.

A container is killed at its cgroup's limit, however much the machine has; so both count, and so does every cgroup that
the process's own lies in, since a limit binds everything below it.
"""

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from inferno_runtime.cpu import cgroup_folders, read_text

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def memory_limit(root: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Bytes that the process may use: the smallest of the machine's memory and its cgroups' limits (v1 and v2)."""
    total = _meminfo(proc, "MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *(limit for limit, _ in _limits(root, proc))])


def memory_available(root: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Bytes that the process can still take before something has to give way.

    Cached file pages that nobody has touched of late count as free, since the kernel drops them first. Those in active
    use do not: the weights of a mapped model are among them, and dropping these would have them read again at each step.
    """
    left = [max(0, limit - used) for limit, used in _limits(root, proc)]
    free = _meminfo(proc, "MemAvailable")
    return min([memory_limit(root, proc) if free is None else free, *left])


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library can: for the end of a start, which takes much."""
    gc.collect()
    gc.freeze()  # what is there now stays; there is no need to look through it again and again
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _limits(root: Path, proc: Path) -> Iterator[tuple[int, int]]:
    """The limit and the use in bytes of each cgroup that has a limit. v1 says "none" by a number beyond any memory."""
    for folder in cgroup_folders("memory", root, proc):
        for limit_file, used_file, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            # v1 counts in usage what lies below, but in the plain names of memory.stat it does not
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = read_text(folder / limit_file)
            if limit.isdecimal():
                used = read_text(folder / used_file)
                reclaimable = _field(read_text(folder / "memory.stat"), cache) or 0
                yield int(limit), max(0, int(used) - reclaimable) if used.isdecimal() else 0


def _meminfo(proc: Path, name: str) -> int | None:
    kibibytes = _field(read_text(proc / "meminfo"), f"{name}:")
    return None if kibibytes is None else kibibytes * 1024


def _field(text: str, name: str) -> int | None:
    """The number that follows `name` at the beginning of a line."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None
