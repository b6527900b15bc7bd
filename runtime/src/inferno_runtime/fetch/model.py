"""A model from its source: which files it consists of, and from there into the cache, or only their headers."""

import io
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from inferno_runtime.fetch import web
from inferno_runtime.fetch.bucket import Bucket
from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.download import Downloader, RemoteFile
from inferno_runtime.fetch.errors import DigestMismatch, NoModelFound, Transient
from inferno_runtime.fetch.http import Answer, Client
from inferno_runtime.fetch.hub import Hub
from inferno_runtime.fetch.policy import Policy
from inferno_runtime.fetch.progress import Progress
from inferno_runtime.models.digest import set_digest
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.facts import ModelFacts
from inferno_runtime.models.files import GENAI_CONFIG, MOST_SETTINGS, loaded_names, main_file
from inferno_runtime.models.inspect import header_facts, inspect
from inferno_runtime.models.layout import SETTINGS, Layout
from inferno_runtime.models.onnx_facts import onnx_facts
from inferno_runtime.sources import BucketSource, HubSource, RemoteSource, WebSource, split_parts

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched. ``names``: files of a source that is a folder; ``endpoint``: of the hub or the S3 server."""

    source: RemoteSource
    names: tuple[str, ...] = ()
    sha256: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class FetchedFiles:
    """Files in the cache."""

    folder: Path
    files: tuple[str, ...]
    sha256: str
    size: int
    fetched: int
    """Bytes that came over the network."""

    def wire(self) -> dict[str, Any]:
        """For programs, camelCase as in a status."""
        return {"sha256": self.sha256, "files": len(self.files), "bytes": self.size, "fetchedBytes": self.fetched}


@dataclass(frozen=True, slots=True)
class Fetched(FetchedFiles):
    """A model in the cache."""

    facts: ModelFacts

    def wire(self) -> dict[str, Any]:
        """For programs, camelCase as in a status."""
        return {**FetchedFiles.wire(self), "model": self.facts.wire()}


class Fetcher:
    """Fetches models with one client and one policy."""

    def __init__(
        self,
        client: Client | None = None,
        policy: Policy | None = None,
        environment: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client or Client()
        self._policy = policy or Policy()
        self._environment = os.environ if environment is None else environment
        self._sleep = sleep

    def resolve(self, wanted: Wanted) -> list[RemoteFile]:
        """The files that the source means. Raises `FetchError`."""
        files = self._patiently(lambda: self._resolve(wanted))
        if wanted.sha256 and len(files) == 1:
            [file] = files
            if file.sha256 and file.sha256 != wanted.sha256:
                raise DigestMismatch(f"{file.name}: its SHA-256 digest is {file.sha256}, not {wanted.sha256}")
            return [replace(file, sha256=wanted.sha256)]
        return files

    def fetch(self, wanted: Wanted, cache: Cache, *, limit: int | None = None, user: str | None = None) -> Fetched:
        """Has the model in the cache. ``limit``: bytes that the cache may hold; ``user``: who uses the model.

        Raises `FetchError`.
        """
        found = self.fetch_files(wanted, cache, limit=limit, user=user)
        try:
            facts = inspect(found.folder)
        except ModelError as error:
            raise NoModelFound(str(error)) from None
        return Fetched(found.folder, found.files, found.sha256, found.size, found.fetched, facts)

    def fetch_files(
        self, wanted: Wanted, cache: Cache, *, limit: int | None = None, user: str | None = None
    ) -> FetchedFiles:
        """`fetch`, whatever the files are."""
        if found := self._without_asking(wanted, cache, user):
            return found
        files = self.resolve(wanted)
        sizes = [file.size for file in files]
        known = [size for size in sizes if size is not None]
        progress = Progress(total=sum(known) if len(known) == len(sizes) else None)
        downloader = Downloader(self._client, cache, progress, limit=limit, policy=self._policy, sleep=self._sleep)
        if progress.total is not None and len(files) > 1:
            self._check_room(downloader, cache, files)
        digests = {file.name: downloader.fetch(file) for file in files}
        if wanted.sha256 and (digest := set_digest(digests)) != wanted.sha256:
            raise DigestMismatch(f"the files' SHA-256 digest is {digest}, not {wanted.sha256}")
        return _published(cache, digests, progress.fetched, user)

    def inspect(self, wanted: Wanted) -> ModelFacts:
        """What the model is, from the beginnings of its files and without fetching them. Raises `FetchError`."""
        files = {file.name: file for file in self.resolve(wanted)}
        with TemporaryDirectory() as name:
            scratch = Path(name)
            try:
                self._bring(files, [GENAI_CONFIG], scratch)
                first = main_file(scratch, files)
                if first.endswith(".onnx"):
                    facts, sizes = self._settings(files, first, scratch)
                else:
                    facts, sizes = self._gguf_headers(files, first)
            except ModelError as error:
                raise NoModelFound(str(error).removeprefix(f"{scratch}/")) from None
        return facts.model_copy(update={"size_bytes": sum(sizes) if None not in sizes else None})

    def _resolve(self, wanted: Wanted) -> list[RemoteFile]:
        source = wanted.source
        if isinstance(source, WebSource):
            return web.resolve(source, wanted.names, self._environment)
        if isinstance(source, HubSource):
            return Hub.of(self._client, wanted.endpoint, self._environment).resolve(source, wanted.names)
        assert isinstance(source, BucketSource)
        bucket = Bucket.of(self._client, source.bucket, wanted.endpoint, self._environment)
        return bucket.resolve(source, wanted.names)

    def size(self, wanted: Wanted) -> int:
        """Bytes of the files that the source means; a file whose size nobody tells counts as none. Raises `FetchError`."""
        return sum(self._patiently(lambda file=file: self._size(file)) or 0 for file in self.resolve(wanted))  # type: ignore[misc]

    def _size(self, file: RemoteFile) -> int | None:
        if file.size is not None:
            return file.size
        with self._client.get(file.url, file.auth) as answer:
            return answer.length

    def _without_asking(self, wanted: Wanted, cache: Cache, user: str | None) -> FetchedFiles | None:
        """The model, if its digest says all and it is there: a pinned model needs no network."""
        name = wanted.source.path.rpartition("/")[2]
        single = name and "*" not in name and len(split_parts(name) or [name]) == 1
        if not single or wanted.sha256 is None or not cache.has(wanted.sha256):
            return None
        _log.info("%s is in the cache", name)
        return _published(cache, {name: wanted.sha256}, 0, user)

    def _check_room(self, downloader: Downloader, cache: Cache, files: Sequence[RemoteFile]) -> None:
        """That all files fit, before the first of them is fetched."""
        missing = [file.size or 0 for file in files if not (file.sha256 and cache.has(file.sha256))]
        downloader.make_room(sum(missing) - sum(_begun(cache, file) for file in files))

    def _gguf_headers(self, files: Mapping[str, RemoteFile], first: str) -> tuple[ModelFacts, list[int | None]]:
        folder = first.rpartition("/")[0]
        parts = [f"{folder}/{part}" if folder else part for part in split_parts(first.rpartition("/")[2]) or []]
        facts: ModelFacts | None = None
        sizes = {name: file.size for name, file in files.items()}
        for name in parts or [first]:
            if name not in files:
                raise ModelError(f"{name}: no such file, though {first} is one of {len(parts)} parts")
            found, length = self._patiently(lambda file=files[name]: self._header(file, files))  # type: ignore[misc]
            sizes[name] = sizes[name] if sizes[name] is not None else length
            if facts is None:
                facts = found
            else:
                facts = facts.model_copy(update={"parameters": (facts.parameters or 0) + (found.parameters or 0)})
        assert facts is not None
        return facts, list(sizes.values())

    def _header(self, file: RemoteFile, names: Mapping[str, object]) -> tuple[ModelFacts, int | None]:
        with self._client.get(file.url, file.auth) as answer:
            stream = io.BufferedReader(_Body(answer))
            try:
                return header_facts(stream, names), answer.length
            except ModelError as error:
                raise ModelError(f"{file.name}: {error}") from None

    def _settings(
        self, files: Mapping[str, RemoteFile], first: str, scratch: Path
    ) -> tuple[ModelFacts, list[int | None]]:
        """What an ONNX model's settings say, which are its header, so to speak; the graph stays where it is."""
        above = first.rpartition("/")[0]
        self._bring(files, dict.fromkeys((*SETTINGS, *(f"{above}/{name}" for name in SETTINGS if above))), scratch)
        return onnx_facts(Layout.of(scratch, first), None), [files[name].size for name in loaded_names(first, files)]

    def _bring(self, files: Mapping[str, RemoteFile], names: Iterable[str], folder: Path) -> None:
        """Fetch those of the named files that there are; none is larger than settings are."""
        for name in names:
            path = folder / name
            if name in files and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._patiently(lambda file=files[name]: self._small(file)))  # type: ignore[misc]

    def _small(self, file: RemoteFile) -> bytes:
        with self._client.get(file.url, file.auth) as answer:
            body = b""
            for data in answer.chunks():
                body += data
                if len(body) > MOST_SETTINGS:
                    raise ModelError(f"{file.name}: larger than any file of settings")
            return body

    def _patiently(self, ask: Callable[[], T]) -> T:
        """The answer to something small, tried again as the policy says."""
        failures = 0
        while True:
            try:
                return ask()
            except Transient as error:
                failures += 1
                seconds = self._policy.wait(error, failures, random.random)
                if seconds is None:
                    raise
                _log.warning("%s; again in %.1f s", error, seconds)
                self._sleep(seconds)


class _Body(io.RawIOBase):
    """The body of an answer, as a file that is read from front to back."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._answer.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _published(cache: Cache, digests: Mapping[str, str], fetched: int, user: str | None) -> FetchedFiles:
    folder = cache.publish(digests)
    if user is not None:
        cache.use(user, folder)
    size = sum(cache.size_of(digest) for digest in digests.values())
    return FetchedFiles(folder, tuple(sorted(digests)), set_digest(digests), size, fetched)


def _begun(cache: Cache, file: RemoteFile) -> int:
    path = cache.root / "partial" / file.key
    return path.stat().st_size if path.exists() else 0
