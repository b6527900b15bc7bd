"""The bodies of requests to `/v1/responses`, as they stand on the wire.

As everywhere here, an optional field may be null, which is the same as leaving it out, and unknown fields are ignored.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferno_runtime.engine.request import Priority
from inferno_runtime.openai.requests import Fraction, Seed, StreamOptions, TokenLimit

LOGPROBS = "message.output_text.logprobs"
Include = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]
CallId = Annotated[str, Meta(min_length=1, max_length=512)]
ItemId = Annotated[str, Meta(min_length=1, max_length=512)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


class TextFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What form the text must have."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the text is to be like."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much the model is to think, and what is told of it."""

    effort: Annotated[str, Meta(max_length=32)] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True, tag="function"):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/v1/responses`."""

    model: str
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: TokenLimit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    seed: Seed | None = None
    priority: Priority | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    include: list[Include] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    context_management: list[dict[str, Any]] | None = None
    image: dict[str, Any] | None = None
    access_programs: dict[str, Any] | None = None
    service_tier: str | None = None

    background: bool | None = None
    background_options: dict[str, Any] | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    moderation: dict[str, Any] | None = None


# Items of a conversation


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, tag="message"):
    """What somebody says; the type need not be named."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    id: ItemId | None = None


class FunctionCallItem(msgspec.Struct, frozen=True, kw_only=True, tag="function_call"):
    """A call that the assistant made."""

    call_id: CallId
    name: str
    arguments: str
    id: ItemId | None = None


class FunctionCallOutputItem(msgspec.Struct, frozen=True, kw_only=True, tag="function_call_output"):
    """What came of a call."""

    call_id: CallId
    output: str | list[dict[str, Any]]
    id: ItemId | None = None


class ReasoningItem(msgspec.Struct, frozen=True, kw_only=True, tag="reasoning"):
    """What the assistant said to itself."""

    id: ItemId | None = None
    summary: list[dict[str, Any]] | None = None
    content: list[dict[str, Any]] | None = None


class ReferenceItem(msgspec.Struct, frozen=True, kw_only=True, tag="item_reference"):
    """An item of a stored response, in its place."""

    id: ItemId


Item = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem | ReferenceItem
