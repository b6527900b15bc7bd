"""One file: from a URL into the cache, through cut connections, killed processes and servers that change their minds."""

import errno
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from inferno_runtime.fetch.cache import REJECTION_SECONDS, Cache, key_of
from inferno_runtime.fetch.errors import (
    BadSource,
    CacheUnusable,
    DigestMismatch,
    DiskFull,
    Rejected,
    SizeMismatch,
    Transient,
    Unreachable,
)
from inferno_runtime.fetch.eviction import make_room
from inferno_runtime.fetch.http import Answer, Auth, Client, no_credentials, public
from inferno_runtime.fetch.partial import Partial
from inferno_runtime.fetch.policy import Policy
from inferno_runtime.fetch.progress import Progress
from inferno_runtime.units import shown

_log = logging.getLogger(__name__)

_CONTENT_RANGE: Final = re.compile(r"^bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)$")
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WAIT_LOG_SECONDS: Final = 10.0
_DAMAGED: Final = "what came does not have the digest that was asked for, and is fetched once more from its beginning"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch, and what is known of it beforehand. ``name`` is its path in the model's folder."""

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    etag: str | None = None
    auth: Auth = field(default=no_credentials, repr=False, compare=False)
    precondition: str = "If-Range"
    """The header that makes a range depend on the file's being the same still."""

    @property
    def key(self) -> str:
        """What two fetches share if they may share their bytes."""
        return key_of(self.sha256) if self.sha256 else key_of(self.url, self.etag)


class Downloader:
    """Fetches files into a cache; one at a time, for one process."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        progress: Progress,
        *,
        limit: int | None = None,
        policy: Policy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self.cache = cache
        self.progress = progress
        self._limit = limit
        self.policy = policy or Policy()
        self.sleep = sleep

    def fetch(self, remote: RemoteFile) -> str:
        """The digest of the file, which is in the cache then. Raises `FetchError`."""
        asked = time.time()
        try:
            if remote.sha256 and self._found(remote.sha256):
                return remote.sha256
            with self.cache.lock(remote.key, self._wait(remote)):
                # Whoever had the lock may have fetched it.
                if remote.sha256 and self._found(remote.sha256):
                    return remote.sha256
                with Partial(self.cache, remote.key) as partial:
                    return _Transfer(self, remote, partial, asked).run()
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise DiskFull(f"{remote.name}: the cache's volume is full") from None
            raise CacheUnusable(f"{remote.name}: the cache cannot be used: {error.strerror or error}") from None

    def _found(self, digest: str) -> bool:
        if not self.cache.has(digest):
            return False
        self.progress.done += self.cache.size_of(digest)
        return True

    def _wait(self, remote: RemoteFile) -> Callable[[float], None]:
        """Says now and then how far whoever holds the lock has come."""
        logged = -_WAIT_LOG_SECONDS

        def waiting(seconds: float) -> None:
            nonlocal logged
            if seconds - logged >= _WAIT_LOG_SECONDS:
                logged = seconds
                path = self.cache.root / "partial" / remote.key
                size = path.stat().st_size if path.exists() else 0
                of = f" of {shown(remote.size)}" if remote.size else ""
                told = {"bytes": self.progress.done + size, "bytesPerSecond": 0}
                _log.info("%s: another pod fetches it: %s%s", remote.name, shown(size), of, extra={"fetch": told})

        return waiting

    def make_room(self, size: int) -> None:
        """Has what nobody uses evicted, until there is room for so many bytes. Raises `CacheFull` or `DiskFull`."""
        make_room(self.cache, size, self._limit)


class _Transfer:
    """The attempts at one file, while its lock is held."""

    def __init__(self, downloader: Downloader, remote: RemoteFile, partial: Partial, asked: float) -> None:
        self._downloader = downloader
        self._client = downloader.client
        self._cache = downloader.cache
        self._progress = downloader.progress
        self._remote = remote
        self._partial = partial
        self._index = key_of(remote.url)
        self._rejection = key_of(remote.url, remote.sha256)
        self._total = remote.size if remote.size is not None else partial.total
        self._ranges = True  # until the server shows that it cannot
        self._asked = asked
        self._known = self._known_blob()
        self._counted = 0  # bytes of this file that the progress has
        self._doubted = False  # whether it has been thrown away once for a wrong digest

    def run(self) -> str:
        """Attempts until it is done, or no attempt is worth it any more. The digest of the file."""
        if self._known and float(self._cache.read("index", self._index).get("at") or 0) >= self._asked:
            return self._take_known()  # somebody else has fetched it while this process waited
        failures = 0
        while True:
            before = self._partial.size
            try:
                return self._attempt() or self._finish()
            except Transient as error:
                failures = failures + 1 if self._partial.size <= before else 1
                seconds = self._downloader.policy.wait(error, failures, random.random)
                if seconds is None:
                    return self._give_up(error)
                _log.warning("%s: %s; again in %.1f s", self._remote.name, error, seconds)
                self._downloader.sleep(seconds)

    def _attempt(self) -> str | None:
        """Asks for what is missing and takes what comes; the digest if the cache turns out to have it all."""
        self._account()
        if self._total is not None and self._partial.size == self._total and self._partial.resumed:
            return None  # it was all there, and whoever fetched it died before it said so
        headers = self._headers()
        with self._client.get(self._remote.url, self._remote.auth, headers, allowed=(304, 412, 416)) as answer:
            if answer.status == 304 and self._known:
                return self._take_known()
            self._begin(answer)
            self._take(answer)
        return None

    def _headers(self) -> dict[str, str]:
        partial, remote = self._partial, self._remote
        if partial.size == 0:
            record = self._cache.read("index", self._index) if self._known else {}
            conditions = {"If-None-Match": record.get("etag"), "If-Modified-Since": record.get("modified")}
            return {name: str(value) for name, value in conditions.items() if value}
        validator = partial.etag if partial.etag and not partial.etag.startswith("W/") else partial.modified
        if not self._ranges or (validator is None and remote.sha256 is None):
            # Without a validator or a digest nobody would notice that two files were put together.
            self._restart()
            return {}
        condition = {remote.precondition: validator} if validator else {}
        return {"Range": f"bytes={partial.size}-", **condition}

    def _begin(self, answer: Answer) -> None:
        """Makes sense of the answer's head, so that what follows it belongs behind what is there. Raises `FetchError`."""
        partial, remote = self._partial, self._remote
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Rejected(f"{public(remote.url)}: the server compresses the file, although it was asked not to")
        if answer.status in (304, 412, 416):
            self._restart()
            raise Unreachable(f"{public(remote.url)}: {answer.status}, the file has changed since it was begun")
        etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
        if answer.status == 206:
            total = self._check_range(answer, etag)
        else:
            total = answer.length
            self._check_total(total)
            if total is None and not answer.delimited and remote.sha256 is None:
                raise BadSource(
                    f"{public(remote.url)}: the server does not say how long the file is; give spec.model.sha256"
                )
            self._check_rejected(etag, total)
            self._restart(etag, modified, total)
        self._total = total if total is not None else self._total
        if self._total is not None:
            self._downloader.make_room(self._total - partial.size)

    def _check_range(self, answer: Answer, etag: str | None) -> int | None:
        """That a 206 carries on exactly where we are, and of the same file; the file's size."""
        partial = self._partial
        match = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != partial.size or partial.size == 0:
            self._ranges = False
            raise Unreachable(f"{public(self._remote.url)}: the server sent another range than it was asked for")
        total = None if match[3] == "*" else int(match[3])
        same = etag is None or partial.etag is None or etag == partial.etag
        if not same or (total is not None and partial.total is not None and total != partial.total):
            self._restart()
            raise Unreachable(f"{public(self._remote.url)}: the file has changed since it was begun")
        self._check_total(total)
        partial.resumed = True
        return total if total is not None else partial.total

    def _check_total(self, total: int | None) -> None:
        if total is not None and self._remote.size is not None and total != self._remote.size:
            raise SizeMismatch(
                f"{self._remote.name}: the server sends {total} bytes, and the file is to have {self._remote.size}"
            )

    def _check_rejected(self, etag: str | None, total: int | None) -> None:
        """Nobody fetches gigabytes once more only to find the same wrong digest."""
        record = self._cache.read("rejected", self._rejection)
        same = (record.get("etag"), record.get("total")) == (etag, total)
        # A record from the future was written before the clock was set back, and says nothing of how old it is.
        if record and same and 0 <= time.time() - float(record.get("at", 0)) < REJECTION_SECONDS:
            raise self._mismatch(str(record.get("sha256")))

    def _take(self, answer: Answer) -> None:
        partial = self._partial
        self._progress.begin()
        for data in answer.chunks():
            if self._total is not None and partial.size + len(data) > self._total:
                self._restart()
                raise Unreachable(f"{public(self._remote.url)}: more came than the server had announced")
            try:
                partial.append(data)
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise
                # Another pod may have taken the room. What was just read is lost; the next attempt reads it again.
                missing = (self._total or partial.size + len(data)) - partial.size
                self._downloader.make_room(missing)
                raise Unreachable(f"{self._remote.name}: the volume was full for a moment") from None
            self._counted += len(data)
            self._progress.advance(len(data), self._remote.name)
        if self._total is not None and partial.size < self._total:
            raise Unreachable(
                f"{public(self._remote.url)}: the connection ended {self._total - partial.size} bytes early"
            )

    def _finish(self) -> str:
        """Verifies what is there and makes it a blob. The digest."""
        partial, remote, digest = self._partial, self._remote, self._partial.digest
        if remote.sha256 and digest != remote.sha256:
            if partial.resumed and not self._doubted:
                self._doubted = True
                # Its beginning may be that of another file: only what came in one piece is held against the server.
                self._restart()
                raise Unreachable(f"{remote.name}: {_DAMAGED}")
            rejection = {"sha256": digest, "etag": partial.etag, "total": partial.size, "at": time.time()}
            self._cache.write("rejected", self._rejection, rejection)
            partial.discard()
            raise self._mismatch(digest)
        partial.checkpoint()
        record = {"sha256": digest, "etag": partial.etag, "modified": partial.modified, "at": time.time()}
        self._cache.adopt(partial.path, digest)
        partial.forget()
        self._cache.write("index", self._index, record)
        self._progress.log(remote.name)
        return digest

    def _give_up(self, error: Transient) -> str:
        """After all attempts: a file that was fetched before is better than none, if nothing pins another."""
        if self._known is None:
            raise error
        _log.warning("%s: %s; the file that was fetched before is used", self._remote.name, error)
        return self._take_known()

    def _take_known(self) -> str:
        assert self._known is not None
        self._progress.done += self._cache.size_of(self._known)
        return self._known

    def _known_blob(self) -> str | None:
        """The blob that this URL led to before, if nothing says that it must be another."""
        if self._remote.sha256:
            return None
        record = self._cache.read("index", self._index)
        digest, etag = record.get("sha256"), record.get("etag")
        if not isinstance(digest, str) or (self._remote.etag and self._remote.etag != etag):
            return None
        return digest if self._cache.has(digest) else None

    def _restart(self, etag: str | None = None, modified: str | None = None, total: int | None = None) -> None:
        self._partial.restart(etag, modified, total)
        self._account()

    def _account(self) -> None:
        """Has the progress count of this file exactly what is there."""
        self._progress.done += self._partial.size - self._counted
        self._counted = self._partial.size

    def _mismatch(self, digest: str) -> DigestMismatch:
        return DigestMismatch(f"{self._remote.name}: its SHA-256 digest is {digest}, not {self._remote.sha256}")
