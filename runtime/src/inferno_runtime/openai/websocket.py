"""The messages of a WebSocket, as they stand on the wire."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferno_runtime.openai import errors, requests, sole
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.requests import GenerationRequest

MAX_ID = 128  # characters
DEFAULT_WINDOW = 64  # token messages

# From the client.


@dataclass(frozen=True, slots=True)
class Inference:
    """A request. Its fields are not looked at before `request`, which may take long on a long prompt."""

    id: str | None  # the client's name for it
    window: int | None  # `token` messages that may be unacknowledged; None if none is acknowledged
    accumulated: bool  # whether each `token` message repeats the text before it
    fields: dict[str, Any]
    size: int  # of the message, in bytes

    def request(self) -> GenerationRequest:
        """The request itself. Raises `ApiError` (400)."""
        return sole.from_fields(self.fields)


@dataclass(frozen=True, slots=True)
class Cancel:
    """The end of a request, at the client's wish."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Ack:
    """How many `token` messages of a request the client has received."""

    request_id: str
    received: int


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life that wants one."""


ClientMessage = Inference | Cancel | Ack | Ping


class BadMessage(Exception):
    """A message that cannot be acted on. request_id: what it is about, where that can be read."""

    def __init__(self, error: ApiError, request_id: str | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.request_id = request_id


class _FlowControl(msgspec.Struct):
    ack: bool | None = None
    window: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class _Params(msgspec.Struct):
    accumulated: bool | None = None


class _Inference(msgspec.Struct):
    id: str | None = None
    params: dict[str, Any] | None = None
    flow_control: _FlowControl | None = None


class _Cancel(msgspec.Struct):
    request_id: str


class _Ack(msgspec.Struct):
    request_id: str
    received: Annotated[int, Meta(ge=0)]


def parse(data: str | bytes) -> ClientMessage:
    """What a client says. Raises `BadMessage`."""
    message: dict[str, Any] = {}
    try:
        message = _object(data)
        return _understand(message, len(data))
    except ApiError as error:
        raise BadMessage(error, _id_of(message)) from error


def _object(data: str | bytes) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(data if isinstance(data, str) else str(data, "utf-8"))
    except RecursionError as error:
        raise errors.invalid_json("The message nests too deep.") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise errors.invalid_json(f"The message is not valid JSON: {error}.") from error
    if not isinstance(message, dict):
        raise errors.invalid_json("The message must be a JSON object.")
    return message


def _understand(message: dict[str, Any], size: int) -> ClientMessage:
    match message.get("type"):
        case "inference":
            return _inference(message, size)
        case "cancel":
            return Cancel(requests.from_fields(message, _Cancel).request_id)
        case "ack":
            ack = requests.from_fields(message, _Ack)
            return Ack(ack.request_id, ack.received)
        case "ping":
            return Ping()
        case None:
            raise errors.missing("type")
        case _:
            raise errors.bad_request("'type' must be 'inference', 'cancel', 'ack' or 'ping'.", "type", "unknown_type")


def _inference(message: dict[str, Any], size: int) -> Inference:
    envelope = requests.from_fields(message, _Inference)
    if envelope.id is not None and not _sane(envelope.id):
        raise errors.bad_request(f"'id' must have 1 to {MAX_ID} printable characters.", "id")
    fields = dict(envelope.params or {})
    accumulated = requests.from_fields(fields, _Params).accumulated
    for name in ("model", "prompt", "messages", "priority"):
        fields.pop(name, None)  # which do not belong there
        if message.get(name) is not None:
            fields[name] = message[name]
    flow = envelope.flow_control or _FlowControl()
    window = (flow.window or DEFAULT_WINDOW) if flow.ack else None
    return Inference(envelope.id, window, accumulated is not False, fields, size)


def _id_of(message: dict[str, Any]) -> str | None:
    """The request that a message is about, as far as that can be said of a message that is wrong."""
    name = "id" if message.get("type") == "inference" else "request_id"
    value = message.get(name)
    return value if isinstance(value, str) and _sane(value) else None


def _sane(request_id: str) -> bool:
    return 1 <= len(request_id) <= MAX_ID and request_id.isprintable()


# To the client.


class Start(msgspec.Struct, tag="start"):
    """The request was taken."""

    request_id: str
    model: str


class Token(msgspec.Struct, tag="token"):
    """The next piece of the text."""

    request_id: str
    token: str
    accumulated: str | msgspec.UnsetType = msgspec.UNSET
    logprobs: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET  # of the tokens that made it, if asked for


class Reasoning(msgspec.Struct, tag="reasoning"):
    """The next piece of what the model says to itself."""

    request_id: str
    token: str


class ToolCall(msgspec.Struct, tag="tool_call"):
    """A call of that number, or the next piece of its arguments."""

    request_id: str
    call: int
    arguments: str
    id: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class Complete(msgspec.Struct, tag="complete"):
    """The end of the text."""

    request_id: str
    total_tokens: int
    finish_reason: str
    usage: dict[str, Any]


class Backpressure(msgspec.Struct, tag="backpressure"):
    """The client's reading has become faster or slower than the text comes."""

    request_id: str
    level: str
    buffer_usage: float  # share of the buffer that is full


class Error(msgspec.Struct, tag="error"):
    """What went wrong; the end of a request, if it had begun."""

    request_id: str | None
    error: dict[str, str | None]


class Pong(msgspec.Struct, tag="pong"):
    """The answer to a `ping`."""

    request_id: None = None


ServerMessage = Start | Token | Reasoning | ToolCall | Complete | Backpressure | Error | Pong

_encoder = msgspec.json.Encoder()


def encode(message: ServerMessage) -> bytes:
    """The message as it stands on the wire."""
    return _encoder.encode(message)
