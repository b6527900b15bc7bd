"""The bodies of requests to `/v1/messages`, as they stand on the wire.

As everywhere here, an optional field may be null, which is the same as leaving it out, and unknown fields are ignored:
among them marks of what to cache, since all that can be is.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferno_runtime.engine.request import Priority
from inferno_runtime.openai.requests import Fraction, Seed, TokenLimit

Content = str | list[dict[str, Any]]


class InputMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the user or the assistant said: a text, or blocks."""

    role: Literal["user", "assistant", "system"]
    content: Content


class InputTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may use."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the model uses tools, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the answer tells what the model says to itself."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The schema that the text must follow."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer is to be like."""

    format: OutputFormat | None = None
    effort: Annotated[str, Meta(max_length=32)] | None = None


class CountTokensRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/v1/messages/count_tokens`: what makes up the prompt."""

    model: str
    messages: list[InputMessage]
    system: Content | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    mcp_servers: list[dict[str, Any]] | None = None
    priority: Priority | None = None


class MessagesRequest(CountTokensRequest, frozen=True, kw_only=True):
    """The body of `/v1/messages`."""

    max_tokens: TokenLimit
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    seed: Seed | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None


# Blocks


class TextBlock(msgspec.Struct, frozen=True, tag="text"):
    """Words."""

    text: str


class ImageData(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image is: in the request itself, or at an address."""

    type: Literal["base64", "url"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ImageBlock(msgspec.Struct, frozen=True, tag="image"):
    """An image."""

    source: ImageData


class ThinkingBlock(msgspec.Struct, frozen=True, tag="thinking"):
    """What the assistant said to itself."""

    thinking: str


class RedactedThinkingBlock(msgspec.Struct, frozen=True, tag="redacted_thinking"):
    """The same, of which nothing is to be seen; it is left out."""


class ToolUseBlock(msgspec.Struct, frozen=True, tag="tool_use"):
    """A use of a tool."""

    id: Annotated[str, Meta(min_length=1, max_length=512)]
    name: str
    input: dict[str, Any]


class ToolResultBlock(msgspec.Struct, frozen=True, tag="tool_result"):
    """What came of it."""

    tool_use_id: Annotated[str, Meta(min_length=1, max_length=512)]
    content: Content | None = None
    is_error: bool | None = None


Block = TextBlock | ImageBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock
