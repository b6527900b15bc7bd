"""Room in a cache: what nobody uses goes, the longest unused first, and only as much as is needed."""

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.errors import CacheFull, DiskFull
from inferno_runtime.units import shown

_log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 3600.0
"""What a resource has fetched so recently is in use, though its pod may not have opened it yet."""
_RESERVE: Final = 16 * 1024 * 1024  # bytes that stay free for records and for others


@dataclass(frozen=True, slots=True)
class Candidate:
    """A blob that may go. ``used_at``: when a resource last took it up; ``wanted``: one still names it."""

    digest: str
    wanted: bool
    used_at: float


def make_room(cache: Cache, needed: int, limit: int | None) -> None:
    """Evicts until ``needed`` bytes fit, below ``limit`` bytes in all and on the disk.

    Raises `CacheFull` or `DiskFull`, which name the numbers, if everything that may go has gone.
    """
    if _missing(cache, needed, limit) <= 0:
        return
    with cache.lock("eviction"):
        for remove in _removals(cache):
            if _missing(cache, needed, limit) <= 0:
                return
            remove()
    if limit is not None and used(cache) + needed > limit:
        raise CacheFull(
            f"{shown(needed)} do not fit: the cache's limit is {shown(limit)}, and {shown(used(cache))} of it are in use"
        )
    if (free := _free(cache)) < needed:
        raise DiskFull(
            f"{shown(needed)} do not fit: the volume has {shown(free)} free, and nothing unused is left to remove"
        )


def used(cache: Cache) -> int:
    """Bytes of all files, complete and partial."""
    return sum(_size(path) for path in (*cache.blobs(), *_partials(cache)))


def candidates(cache: Cache, now: float) -> list[Candidate]:
    """What may go, in the order in which it should: first what no resource names, then what none has used for long.

    A blob that a process holds may go neither way; that is found out when it is its turn.
    """
    wanted: dict[str, float] = {}
    for _, use in cache.records("uses"):
        at = _number(use.get("at"))
        for digest in cache.read("snapshots", str(use.get("snapshot"))).get("files", {}).values():
            wanted[digest] = max(at, wanted.get(digest, 0.0))
    found = []
    for path in cache.blobs():
        if path.name not in wanted:
            found.append(Candidate(path.name, False, _verified_at(cache, path)))
        elif now - wanted[path.name] > GRACE_SECONDS:
            found.append(Candidate(path.name, True, wanted[path.name]))
    return sorted(found, key=lambda each: (each.wanted, each.used_at))


def _removals(cache: Cache) -> Iterator[Callable[[], None]]:
    """What to do for more room, one thing after another."""
    for path in _partials(cache):
        if not cache.is_locked(path.name):
            yield partial(_remove_partial, path)
    for candidate in candidates(cache, time.time()):
        yield partial(_remove_blob, cache, candidate.digest)


def _remove_partial(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)
        _log.info("removed the beginning of a file that nobody fetches")


def _remove_blob(cache: Cache, digest: str) -> None:
    """Removes a blob and the snapshots that it belongs to, unless a process holds it."""
    path = cache.blob(digest)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(descriptor).st_size
        for name, snapshot in list(cache.records("snapshots")):
            if digest in snapshot.get("files", {}).values():
                (cache.root / "snapshots" / f"{name}.json").unlink(missing_ok=True)
                shutil.rmtree(cache.root / "snapshots" / name, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.with_name(f"{digest}.json").unlink(missing_ok=True)
        _log.info("removed %s, %s, which is not in use", digest, shown(size))
    except OSError:
        return  # somebody holds it
    finally:
        os.close(descriptor)


def _missing(cache: Cache, needed: int, limit: int | None) -> int:
    """Bytes that must go so that ``needed`` fit."""
    over = used(cache) + needed - limit if limit is not None else 0
    return max(over, needed + min(_RESERVE, needed) - _free(cache))


def _free(cache: Cache) -> int:
    stat = os.statvfs(cache.root)
    return stat.f_bavail * stat.f_frsize


def _partials(cache: Cache) -> list[Path]:
    return [path for path in (cache.root / "partial").iterdir() if "." not in path.name]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _verified_at(cache: Cache, path: Path) -> float:
    try:
        return (cache.root / "blobs" / f"{path.name}.json").stat().st_mtime
    except OSError:
        return 0.0


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
