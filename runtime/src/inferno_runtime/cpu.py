"""How much CPU this process may use: containers are given a quota, and `os.cpu_count()` knows nothing of it."""

import os
from pathlib import Path


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), allowed: int | None = None) -> int:
    """Whole CPUs that the process may use, at least 1: the smaller of its affinity and its cgroup's quota (v1 or v2)."""
    count = allowed or len(os.sched_getaffinity(0))
    for quota, period in (_quota_v2(root / "cpu.max"), _quota_v1(root / "cpu")):
        if quota > 0 and period > 0:
            count = min(count, max(1, round(quota / period)))
    return count


def _quota_v2(path: Path) -> tuple[int, int]:
    words = _read(path).split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and words[0] != "max" else (0, 0)


def _quota_v1(folder: Path) -> tuple[int, int]:
    return int(_read(folder / "cpu.cfs_quota_us") or 0), int(_read(folder / "cpu.cfs_period_us") or 0)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
