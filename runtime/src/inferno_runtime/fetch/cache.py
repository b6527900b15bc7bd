"""A folder of files by their digest, which pods may share.

::

    blobs/DIGEST          a complete file, read-only; DIGEST.json beside it says how it looked when it was verified
    snapshots/KEY/        a model as it was published: its files by name, linked to the blobs
    snapshots/KEY.json    the blobs of that snapshot by name
    partial/KEY           a file as far as it has come; KEY.json says of what (see partial.py)
    index/KEY.json        what a URL led to, and the validators by which it is known that it still does
    rejected/KEY.json     what a URL led to in place of the digest that was asked for
    uses/NAME.json        the snapshot that a resource used last
    locks/KEY             taken while KEY is written

Every file appears under its name by a rename, when it is whole, so a reader needs no lock. A writer holds a `flock`,
which the kernel lets go when its holder dies, whatever it was doing.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from inferno_runtime.fetch.errors import CacheUnusable
from inferno_runtime.models.digest import file_digest

_log = logging.getLogger(__name__)

_FOLDERS: Final = ("blobs", "snapshots", "partial", "index", "rejected", "uses", "locks")
_LOCK_POLL_SECONDS: Final = 0.5
REJECTION_SECONDS: Final = 3600.0
_DIGEST: Final = re.compile("^[0-9a-f]{64}$")


def key_of(*parts: str | None) -> str:
    """A name for a lock or a record that follows from ``parts``."""
    return hashlib.sha256("\0".join(part or "" for part in parts).encode()).hexdigest()


class Cache:
    """The folder. Raises `CacheUnusable` where it cannot be written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: dict[str, int] = {}
        try:
            for folder in _FOLDERS:
                (root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheUnusable(f"the cache {root} cannot be written: {error.strerror}") from None

    @contextlib.contextmanager
    def lock(self, key: str, waiting: Callable[[float], None] = lambda _: None) -> Iterator[None]:
        """Holds the lock of ``key``; while another has it, ``waiting`` is called now and then with the seconds so far."""
        descriptor = os.open(self.root / "locks" / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            began = time.monotonic()
            while not _lock(descriptor):
                waiting(time.monotonic() - began)
                time.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def is_locked(self, key: str) -> bool:
        """Whether somebody holds the lock of ``key``."""
        try:
            descriptor = os.open(self.root / "locks" / key, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _lock(descriptor)
        finally:
            os.close(descriptor)

    def blob(self, digest: str) -> Path:
        """Where the file of that digest is, or would be."""
        return self.root / "blobs" / digest

    def has(self, digest: str) -> bool:
        """Whether the file of that digest is there; it is not evicted then while this process lives.

        A file that has been changed since it was verified is verified again, and thrown away if it is not what its
        name says.
        """
        path = self.blob(digest)
        if not self.hold(digest):
            return False
        stat = path.stat()
        record = self.read("blobs", digest)
        if (record.get("size"), record.get("mtime")) == (stat.st_size, stat.st_mtime_ns):
            return True
        _log.info("verifying %s, which has changed since it was", path.name)
        if file_digest(path) == digest:
            self._record_blob(digest)
            return True
        _log.warning("%s does not have the digest that it is named for, and is thrown away", path)
        self.release(digest)
        path.unlink(missing_ok=True)
        return False

    def adopt(self, partial: Path, digest: str) -> None:
        """Makes a complete and verified file the blob of its digest, unless there is one that others may be using."""
        if self.has(digest):
            partial.unlink()
            return
        path = self.blob(digest)
        partial.chmod(0o444)
        partial.rename(path)
        _sync_folder(path.parent)
        self._record_blob(digest)
        self.hold(digest)

    def size_of(self, digest: str) -> int:
        """Bytes of a blob."""
        return self.blob(digest).stat().st_size

    def hold(self, digest: str) -> bool:
        """Keeps a blob from being evicted while this process lives; False if there is none."""
        if digest in self._held:
            return self.blob(digest).exists()
        try:
            descriptor = os.open(self.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        if not _lock(descriptor, fcntl.LOCK_SH) or not os.fstat(descriptor).st_nlink:
            os.close(descriptor)  # somebody is just evicting it, or has
            return False
        self._held[digest] = descriptor
        return True

    def release(self, digest: str) -> None:
        """Ends `hold`."""
        if (descriptor := self._held.pop(digest, None)) is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Ends every `hold`."""
        for digest in list(self._held):
            self.release(digest)

    def publish(self, digests: Mapping[str, str]) -> Path:
        """A folder with these blobs under their names; made once for the same ones."""
        name = key_of(*(f"{digest}  {file}" for file, digest in sorted(digests.items())))
        folder = self.root / "snapshots" / name
        with self.lock(f"snapshot-{name}"):
            if not self._is_published(folder, digests):
                scratch = folder.with_name(f"{name}.new")
                shutil.rmtree(scratch, ignore_errors=True)
                for file, digest in digests.items():
                    target = scratch / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(self.blob(digest), target)
                shutil.rmtree(folder, ignore_errors=True)
                scratch.rename(folder)
                self.write("snapshots", name, {"files": dict(digests)})
        return folder

    def use(self, user: str, snapshot: Path) -> None:
        """Remembers that the resource ``user`` uses a snapshot from now on."""
        self.write("uses", key_of(user), {"user": user, "snapshot": snapshot.name, "at": time.time()})

    def read(self, folder: str, key: str) -> dict[str, Any]:
        """A record; empty where there is none that can be read."""
        try:
            content = json.loads((self.root / folder / f"{key}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, folder: str, key: str, record: Mapping[str, Any]) -> None:
        """Writes a record, all of it or none."""
        path = self.root / folder / f"{key}.json"
        scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
        scratch.write_text(json.dumps(record, separators=(",", ":")))
        scratch.rename(path)

    def records(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """All records of a folder by key."""
        for path in (self.root / folder).glob("*.json"):
            yield path.stem, self.read(folder, path.stem)

    def blobs(self) -> Iterator[Path]:
        """All complete files."""
        return (path for path in (self.root / "blobs").iterdir() if _DIGEST.match(path.name))

    def _is_published(self, folder: Path, digests: Mapping[str, str]) -> bool:
        try:
            return all((folder / file).samefile(self.blob(digest)) for file, digest in digests.items())
        except OSError:
            return False

    def _record_blob(self, digest: str) -> None:
        stat = self.blob(digest).stat()
        self.write("blobs", digest, {"size": stat.st_size, "mtime": stat.st_mtime_ns})


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise CacheUnusable(f"the cache's file system has no locks: {error.strerror}") from None
    return True


def _link(blob: Path, target: Path) -> None:
    """A hard link, since some loaders refuse a file whose real path lies elsewhere; a symbolic one where there are none."""
    try:
        os.link(blob, target)
    except FileNotFoundError:
        raise
    except OSError:
        target.symlink_to(os.path.relpath(blob, target.parent))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
