"""The shapes of what the streams of one sequence carry, for the API's description: events, and a WebSocket's messages.

How they are read and written stands in `events` and `websocket`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inferno_runtime.engine.request import Priority
from inferno_runtime.openai.requests import Message
from inferno_runtime.openai.schemas import ErrorObject, UsageObject
from inferno_runtime.openai.websocket import DEFAULT_WINDOW, MAX_ID

# Server-sent events


class TokenEvent(msgspec.Struct, frozen=True):
    """The data of `event: token`: a piece of the text, and the position of its first token.

    `logprobs`, where they are asked for, are as in a chat or in a completion.
    """

    token: str
    index: int
    logprobs: dict[str, Any] | UnsetType = UNSET


class ReasoningEvent(msgspec.Struct, frozen=True):
    """The data of `event: reasoning`: the same of what the model says to itself."""

    token: str
    index: int


class ToolCallEvent(msgspec.Struct, frozen=True):
    """The data of `event: tool_call`: a call, or a further piece of its arguments. `call` is its number in the answer."""

    call: int
    arguments: str
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class CompleteEvent(msgspec.Struct, frozen=True):
    """The data of `event: complete`, the last one. `total_tokens` are those that were generated."""

    total_tokens: int
    finish_reason: Literal["stop", "length", "tool_calls"]
    usage: UsageObject


# What a client says on a WebSocket

RequestId = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]


class FlowControl(msgspec.Struct, frozen=True):
    """With `ack`, at most `window` token messages are sent that the client has not acknowledged."""

    ack: bool | None = False
    window: Annotated[int, Meta(ge=1, le=1_000_000)] | None = DEFAULT_WINDOW


class InferenceMessage(msgspec.Struct, frozen=True, kw_only=True, tag="inference"):
    """A request: a chat with `messages`, a completion with `prompt`. Without an `id` it is given one."""

    model: str
    prompt: str | list[int] | None = None
    messages: list[Message] | None = None
    params: dict[str, Any] | None = None  # see InferenceParams, which the description makes of the types of requests
    priority: Priority | None = None
    id: RequestId | None = None
    flow_control: FlowControl | None = None


class CancelMessage(msgspec.Struct, frozen=True, tag="cancel"):
    """Ends a request, which is answered with `complete`."""

    request_id: str


class AckMessage(msgspec.Struct, frozen=True, tag="ack"):
    """How many token messages of a request have been received so far."""

    request_id: str
    received: Annotated[int, Meta(ge=0)]


class PingMessage(msgspec.Struct, frozen=True, tag="ping"):
    """Wants a `pong`."""


ClientMessage = InferenceMessage | CancelMessage | AckMessage | PingMessage

# And what the server says


class StartMessage(msgspec.Struct, frozen=True, tag="start"):
    """The request was taken."""

    request_id: str
    model: str


class TokenMessage(msgspec.Struct, frozen=True, tag="token"):
    """A piece of the text and, unless `accumulated` was turned off, all of it up to here; `logprobs` where asked for."""

    request_id: str
    token: str
    accumulated: str | UnsetType = UNSET
    logprobs: dict[str, Any] | UnsetType = UNSET


class ReasoningMessage(msgspec.Struct, frozen=True, tag="reasoning"):
    """A piece of what the model says to itself."""

    request_id: str
    token: str


class ToolCallMessage(msgspec.Struct, frozen=True, tag="tool_call"):
    """A call, or a further piece of its arguments. `call` is its number in the answer."""

    request_id: str
    call: int
    arguments: str
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


class CompleteMessage(msgspec.Struct, frozen=True, tag="complete"):
    """The end of a request that did not fail. `total_tokens` are those that were generated."""

    request_id: str
    total_tokens: int
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"]
    usage: UsageObject


class BackpressureMessage(msgspec.Struct, frozen=True, tag="backpressure"):
    """The connection's buffer has become fuller or emptier; `buffer_usage` is the share of it that is full."""

    request_id: str
    level: Literal["healthy", "moderate", "critical"]
    buffer_usage: float


class ErrorMessage(msgspec.Struct, frozen=True, tag="error"):
    """The end of a request that failed, or what is wrong with a message."""

    request_id: str | None
    error: ErrorObject


class PongMessage(msgspec.Struct, frozen=True, tag="pong"):
    """The answer to a `ping`."""

    request_id: None = None


ServerMessage = (
    StartMessage
    | TokenMessage
    | ReasoningMessage
    | ToolCallMessage
    | CompleteMessage
    | BackpressureMessage
    | ErrorMessage
    | PongMessage
)
