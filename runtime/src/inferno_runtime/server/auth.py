"""Who asks: API keys from a file, of which only digests are kept.

The file is a YAML list. Only a name and a key (or its SHA-256 digest) are required::

    - name: research                 # stands in the log, and in the limits' store
      sha256: 9f86d081884c7d659a2f…  # or `key`: the key itself
      models: [llama]                # the models that it may use; default: all
      priority: high                 # the highest that it may ask for, and its own where it asks for none
      requestsPerMinute: 600         # its own limits in place of the server's; 0 is no limit
      tokensPerMinute: 0
      maxConnections: 10

What is wrong with a file is told without a word of it, since that may be a key.
"""

import asyncio
import hashlib
import hmac
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from inferno_runtime.config import Config
from inferno_runtime.engine.request import Priority

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # between two looks at the file
_MOST_BYTES = 1 << 20
_MOST_KEYS = 4096

_GUARDED = (
    "/v1",
    "/v2",
    "/rerank",
    "/ws",
    "/stream",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/metrics/profiles",
    "/metrics/queue",
)
# Browsers' EventSource and WebSocket cannot send headers.
_KEY_IN_QUERY = frozenset({"/stream/sse", "/v1/stream/sse", "/ws/stream", "/v1/ws/stream"})


class AccessError(Exception):
    """Keys or limits cannot be used as they are configured; the message is one line, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and what it may do. A limit that is None is the server's."""

    name: str
    digest: bytes = field(repr=False)  # SHA-256
    models: frozenset[str] | None = None
    priority: Priority | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_connections: int | None = None


_Limit = Annotated[int, Field(ge=0, le=1_000_000_000)]


class _Entry(Config):
    name: str = Field(pattern=r"^[\x20-\x7e]{1,64}$")
    key: str | None = Field(default=None, pattern=r"^[\x21-\x7e]{1,512}$")
    sha256: str | None = Field(default=None, pattern="^[a-f0-9]{64}$")
    models: tuple[str, ...] | None = None
    priority: Priority | None = None
    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    max_connections: _Limit | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("it needs either key or sha256")
        return self

    def read(self) -> Key:
        digest = _digest(self.key.encode()) if self.key is not None else bytes.fromhex(self.sha256 or "")
        return Key(
            self.name,
            digest,
            None if self.models is None else frozenset(self.models),
            self.priority,
            self.requests_per_minute,
            self.tokens_per_minute,
            self.max_connections,
        )


_entries = TypeAdapter(list[_Entry])
_KNOWN = frozenset(_Entry.model_fields) | {str(info.alias) for info in _Entry.model_fields.values()}
_WORDS = {"extra_forbidden": "it has an unknown field", "model_type": "it must have a name and a key"}


def parse(text: str) -> tuple[Key, ...]:
    """The keys in a file's text. Raises `AccessError`."""
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise AccessError(f"not YAML{line}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise AccessError("not YAML") from None
    if not isinstance(document, list) or not document:
        raise AccessError("it must hold a list of keys")
    if len(document) > _MOST_KEYS:
        raise AccessError(f"it holds {len(document)} keys, and {_MOST_KEYS} are the most")
    try:
        keys = tuple(entry.read() for entry in _entries.validate_python(document))
    except ValidationError as error:
        raise AccessError(_explain(error)) from None
    _refuse_equal("name", [key.name for key in keys])
    _refuse_equal("key", [key.digest for key in keys])
    return keys


def _explain(error: ValidationError) -> str:
    """What is wrong with the first entry that is wrong; nothing that stands in it, be it where a field should."""
    first = error.errors(include_url=False, include_input=False)[0]
    number, *path = first["loc"]
    known = "".join(f"{part}: " for part in path if part in _KNOWN)
    message = _WORDS.get(first["type"], first["msg"])
    return f"entry {int(number) + 1}: {known}{message.removeprefix('Value error, ')}"


def _refuse_equal(what: str, values: Sequence[str | bytes]) -> None:
    seen: dict[str | bytes, int] = {}
    for number, value in enumerate(values, 1):
        if (first := seen.setdefault(value, number)) != number:
            raise AccessError(f"entries {first} and {number} have the same {what}")


class KeyRing:
    """The keys of a file, as it stands."""

    def __init__(self, path: Path) -> None:
        """Raises `AccessError` where the file cannot be used."""
        self._path = path
        self._seen = _signature(path)
        self._keys = _read(path)
        _log.info("%s: %d keys", path, len(self._keys))

    def find(self, secret: bytes) -> Key | None:
        """The key of these bytes, in a time that does not depend on how nearly they are one."""
        digest = _digest(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    async def watch(self) -> None:
        """Look after the file, for ever; in a thread, since its file system may be slow."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Read the file if it is another than before. One that cannot be used changes nothing, and is logged."""
        signature = _signature(self._path)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._keys = _read(self._path)
        except AccessError as error:
            _log.error("%s; the keys stay as they were", error)
        else:
            _log.info("%s: %d keys", self._path, len(self._keys))


def _signature(path: Path) -> tuple[int, ...]:
    """What differs between two versions of a file; a mounted Secret's is a link to another file for each."""
    try:
        stat = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(path: Path) -> tuple[Key, ...]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise AccessError(f"{path}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise AccessError(f"{path}: it is larger than {_MOST_BYTES} bytes")
    try:
        return parse(data.decode())
    except UnicodeDecodeError:
        raise AccessError(f"{path}: not UTF-8") from None
    except AccessError as error:
        raise AccessError(f"{path}: {error}") from None


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def guarded(path: str) -> bool:
    """Whether a path needs a key, where keys are set."""
    return _under(path, _GUARDED)


def presented(headers: Mapping[str, str], query: Mapping[str, Sequence[bytes]], path: str) -> bytes | None:
    """The key that a request shows; None if it shows none.

    headers: names in any case, as tornado's are; query: the values of each argument.
    """
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    shown = token.strip() if scheme.lower() == "bearer" else ""
    if shown := shown or headers.get("X-API-Key", "").strip():
        return shown.encode("latin-1", "replace")  # as header lines are decoded
    if path in _KEY_IN_QUERY and (values := query.get("api_key")):
        return values[-1]
    return None


def _under(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)
