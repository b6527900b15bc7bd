"""The shapes of responses, for the API's description. How they are written stands in `answer` and `output`."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class InputTokensDetails(msgspec.Struct, frozen=True):
    """What the input's tokens took; none of them cost anything to keep."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(msgspec.Struct, frozen=True):
    """What the output's tokens are."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(msgspec.Struct, frozen=True):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded"]
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response is not complete."""

    reason: Literal["max_output_tokens"]


class OutputPart(msgspec.Struct, frozen=True):
    """A part of an item: of what the model said, or of what was said to it."""

    type: Literal["output_text", "input_text", "input_image", "reasoning_text", "summary_text", "refusal"]
    text: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    annotations: list[Any] | UnsetType = UNSET
    logprobs: list[Any] | UnsetType = UNSET
    image_url: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class ConversationItem(msgspec.Struct, frozen=True):
    """An item of a conversation. Which fields it has depends on its type."""

    id: str
    type: Literal["message", "reasoning", "function_call", "function_call_output"]
    status: Literal["in_progress", "completed", "incomplete"] | UnsetType = UNSET
    role: Literal["user", "assistant", "system", "developer"] | UnsetType = UNSET
    content: list[OutputPart] | UnsetType = UNSET
    summary: list[OutputPart] | UnsetType = UNSET
    call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    output: str | list[OutputPart] | UnsetType = UNSET


class ResponseObject(msgspec.Struct, frozen=True):
    """The answer of `/v1/responses`. What stands behind `usage` is the request's own, with what is left out filled in."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    output: list[ConversationItem]
    usage: ResponseUsage | None
    model: str
    instructions: str | None
    previous_response_id: str | None
    metadata: dict[str, str]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    text: dict[str, Any]
    reasoning: dict[str, Any]
    max_output_tokens: int | None
    max_tool_calls: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    truncation: Literal["auto", "disabled"]
    background: bool
    store: bool
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    service_tier: str


class ResponseEvent(msgspec.Struct, frozen=True):
    """The data of an event of `/v1/responses`; `event` is its type. Which fields it has depends on that."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
    ]
    sequence_number: int
    response: ResponseObject | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    item: ConversationItem | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    part: OutputPart | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    logprobs: list[Any] | UnsetType = UNSET
    code: str | UnsetType | None = UNSET
    message: str | UnsetType = UNSET
    param: str | UnsetType | None = UNSET


class InputItems(msgspec.Struct, frozen=True):
    """A page of the conversation that a response answered."""

    object: Literal["list"]
    data: list[ConversationItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedResponse(msgspec.Struct, frozen=True):
    """A response that is no longer kept."""

    id: str
    object: Literal["response"]
    deleted: bool


class InputTokens(msgspec.Struct, frozen=True):
    """How many tokens a request would have."""

    object: Literal["response.input_tokens"]
    input_tokens: int
