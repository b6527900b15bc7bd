"""What passes between the server's process and the engine's: one compact frame a step.

A frame is its length in four bytes, little-endian, and a msgpack array whose first element is the type's tag.
"""

import struct
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from inferno_runtime.backends.base import Layout, ModelInfo
from inferno_runtime.config import Task
from inferno_runtime.engine.request import Embedded, EmbeddingRequest, Finished, Request, Scores, Started
from inferno_runtime.models.adapters import AdapterFile

MAX_FRAME = 256 * 1024 * 1024  # bytes; a longer one means that the stream is garbled
_HEADER = struct.Struct("<I")

T = TypeVar("T")


class Load(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First frame to the engine: what to load. `engine` is an EngineConfig in its wire form."""

    path: str
    engine: dict[str, Any]
    end_tokens: list[int]
    task: Task = "generate"
    tokens: list[bytes] = []  # as grammars see them, for a model that generates
    adapters: tuple[AdapterFile, ...] = ()
    projector: str | None = None  # a path
    tuning: dict[str, Any] = {}  # what the engine before this one was evaluated with; empty for a first one


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Generate a sequence."""

    request: Request


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """End a sequence or a request for vectors, if it is still there."""

    id: int


class Pause(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Evaluate nothing more for a sequence, if it is still there, until it is resumed."""

    id: int


class Resume(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Go on with a sequence that was paused."""

    id: int


class Embed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Turn texts into vectors."""

    request: EmbeddingRequest


class Measure(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Say what stands for an image of this size in a prompt."""

    id: int
    width: int
    height: int


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First frame from the engine: the model is loaded and has answered a token."""

    info: ModelInfo
    context: int
    slots: int
    description: str  # of the library and the device, for the log
    tuning: dict[str, Any]  # what it is evaluated with and what the hardware was found to prefer, for people


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """First and last frame from the engine: the model cannot be served, in one line."""

    message: str


class Log(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A line for the server's log."""

    level: int
    message: str


class Counters(msgspec.Struct, frozen=True, array_like=True):
    """What the engine has counted since its process began, and what it holds for later."""

    preemptions: int = 0
    drafted: int = 0  # tokens
    accepted: int = 0  # of these
    store_bytes: int = 0  # of prefixes, in host memory


class Step(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What one step brought forth; `ids` and `tokens` run in parallel."""

    ids: list[int]
    tokens: list[int]
    started: list[Started]
    finished: list[Finished]
    active: int
    queued: int
    cells_used: int
    queued_by_priority: tuple[int, ...] = ()  # in the order of `Priority`
    counters: Counters | None = None  # where they are not what the last step said
    scores: list[Scores] = msgspec.field(default_factory=list)


class Encoded(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """What one batch of a model that embeds brought forth: the requests that it was the last for, if there are any."""

    answers: list[Embedded]
    active: int
    queued: int


class Measured(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """What stands for an image of the size that was asked about; None and a reason where nothing can."""

    id: int
    layout: Layout | None
    error: str = ""


ToEngine = Load | Submit | Cancel | Pause | Resume | Embed | Measure
FromEngine = Ready | Failed | Log | Step | Encoded | Measured

_encoder = msgspec.msgpack.Encoder()


def encode(frame: ToEngine | FromEngine) -> bytes:
    """The frame as it goes over the socket."""
    payload = _encoder.encode(frame)
    return _HEADER.pack(len(payload)) + payload


class Reader(Generic[T]):
    """Cuts a byte stream into frames."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """The frames that `data` completes. Raises `ValueError` when the stream is garbled."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer, start)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            yield self._decoder.decode(bytes(self._buffer[start + _HEADER.size : end]))
            start = end
        del self._buffer[:start]


to_engine = msgspec.msgpack.Decoder(ToEngine)
from_engine = msgspec.msgpack.Decoder(FromEngine)
