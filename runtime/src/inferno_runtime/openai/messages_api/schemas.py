"""The shapes of messages, for the API's description. How they are written stands in `answer`."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class MessageUsage(msgspec.Struct, frozen=True):
    """Tokens of a message. Those of the prompt that were evaluated, and those that were found again, stand apart."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class ContentBlock(msgspec.Struct, frozen=True):
    """A part of a message. Which fields it has depends on its type."""

    type: Literal["text", "thinking", "tool_use"]
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    input: dict[str, Any] | UnsetType = UNSET


class MessageObject(msgspec.Struct, frozen=True):
    """The answer of `/v1/messages`."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageDelta(msgspec.Struct, frozen=True):
    """More of a block, or why a message ended. Which fields it has depends on its type; the latter has none."""

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    partial_json: str | UnsetType = UNSET
    stop_reason: StopReason | UnsetType = UNSET
    stop_sequence: str | UnsetType | None = UNSET


class MessageEvent(msgspec.Struct, frozen=True):
    """The data of an event of `/v1/messages`; `event` is its type. Which fields it has depends on that."""

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    ]
    message: MessageObject | UnsetType = UNSET
    index: int | UnsetType = UNSET
    content_block: ContentBlock | UnsetType = UNSET
    delta: MessageDelta | UnsetType = UNSET
    usage: MessageUsage | UnsetType = UNSET


class MessageErrorObject(msgspec.Struct, frozen=True):
    """What went wrong. `param` and `code` are those of the other endpoints' errors."""

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "overloaded_error",
        "timeout_error",
        "api_error",
    ]
    message: str
    param: str | None
    code: str | None


class MessageError(msgspec.Struct, frozen=True):
    """The body of every answer of `/v1/messages` that is an error, and of the event that ends a stream which failed."""

    type: Literal["error"]
    error: MessageErrorObject
    request_id: str


class TokenCount(msgspec.Struct, frozen=True):
    """How many tokens a request would have."""

    input_tokens: int
