"""A file as far as it has come, such that another process can go on where this one died."""

import hashlib
import os
from types import TracebackType
from typing import Final

from inferno_runtime.fetch.cache import Cache

CHECKPOINT: Final = 16 * 1024 * 1024
"""Bytes after which what has come is certain to survive; what came since the last such moment is fetched again."""
_READ: Final = 1024 * 1024


class Partial:
    """The beginning of a file, its running digest, and the validators of what it is the beginning of.

    Whoever has one open holds the lock of its key.
    """

    def __init__(self, cache: Cache, key: str) -> None:
        self._cache = cache
        self._key = key
        self.path = cache.root / "partial" / key
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115  # closed by __exit__
        self._record = cache.read("partial", key)
        self._digest = hashlib.sha256()
        self.size = 0
        self.resumed = False
        """Whether it came in more than one piece."""
        self._recover()

    @property
    def etag(self) -> str | None:
        """The ETag of what this is the beginning of."""
        return self._text("etag")

    @property
    def modified(self) -> str | None:
        """Its Last-Modified."""
        return self._text("modified")

    @property
    def total(self) -> int | None:
        """Its size in bytes."""
        value = self._record.get("total")
        return value if isinstance(value, int) else None

    @property
    def digest(self) -> str:
        """The SHA-256 digest of what is there."""
        return self._digest.hexdigest()

    def restart(self, etag: str | None = None, modified: str | None = None, total: int | None = None) -> None:
        """Throws away what is there; what comes now is the beginning of something with these validators."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0
        self.resumed = False
        self._record = {"etag": etag, "modified": modified, "total": total, "durable": 0}
        self._cache.write("partial", self._key, self._record)

    def append(self, data: bytes) -> None:
        """Adds what comes next. Raises `OSError`, with nothing of it counted."""
        view, before = memoryview(data), self.size
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError:
            self._file.truncate(before)
            raise
        self._digest.update(data)
        self.size += len(data)
        if self.size - int(self._record.get("durable", 0)) >= CHECKPOINT:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Makes what is there survive a crash of the machine, and leaves its pages to those who need memory more."""
        os.fdatasync(self._file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, self.size, os.POSIX_FADV_DONTNEED)
        self._record["durable"] = self.size
        self._cache.write("partial", self._key, self._record)

    def discard(self) -> None:
        """Removes it."""
        self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Removes what is known of it, after the file itself has become something else."""
        self.path.with_name(f"{self.path.name}.json").unlink(missing_ok=True)

    def __enter__(self) -> "Partial":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _recover(self) -> None:
        """Takes up what certainly survived; its digest must be computed anew."""
        durable = self._record.get("durable", 0)
        durable = durable if isinstance(durable, int) and durable > 0 else 0
        length = os.fstat(self._file.fileno()).st_size
        if length < durable:  # whoever shortened it may have done more
            durable = 0
        self._file.truncate(durable)
        self._file.seek(0)
        while self.size < durable:
            data = self._file.read(min(_READ, durable - self.size))
            if not data:
                break
            self._digest.update(data)
            self.size += len(data)
        self.resumed = self.size > 0

    def _text(self, name: str) -> str | None:
        value = self._record.get(name)
        return value if isinstance(value, str) else None
