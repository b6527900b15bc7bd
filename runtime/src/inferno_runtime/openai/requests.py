"""The bodies of requests, as they stand on the wire.

Every optional field may be null, which is the same as leaving it out. Unknown fields are ignored.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from inferno_runtime.engine.request import Priority
from inferno_runtime.openai import errors

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
LookBack = Annotated[int, Meta(ge=-1, le=2_000_000)]
TokenLimit = Annotated[int, Meta(ge=1, le=2_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MetadataValue = Annotated[str, Meta(max_length=512)]


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream carries besides the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Schema = dict[str, Any] | bool


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True):
    """The schema that an answer is to follow, in OpenAI's envelope."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
    description: str | None = None
    schema: Schema | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What form an answer must have."""

    type: Literal["text", "json_object", "json_schema", "grammar", "regex"]
    json_schema: JsonSchema | None = None
    grammar: str | None = None
    regex: str | None = None


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """The same, as vLLM has it: one of these."""

    json: Schema | str | None = None
    json_object: bool | None = None
    grammar: str | None = None
    regex: str | None = None
    choice: list[str] | None = None


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that both kinds of generation share."""

    model: str
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=100)] | None = None
    min_p: Fraction | None = None
    max_tokens: TokenLimit | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    user: str | None = None
    priority: Priority | None = None

    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    logit_bias: dict[str, Bias] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    typical_p: Fraction | None = None
    top_n_sigma: Annotated[float, Meta(ge=0, le=100)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None  # less makes logits infinite
    repeat_last_n: LookBack | None = None
    xtc_probability: Fraction | None = None
    xtc_threshold: Fraction | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Meta(ge=1, le=100)] | None = None
    dry_allowed_length: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    dry_penalty_last_n: LookBack | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """What was called, and with what."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the assistant made."""

    id: Annotated[str, Meta(min_length=1, max_length=512)]
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation; what its content may be depends on the role."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class Function(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may call: a function."""

    type: Literal["function"]
    function: Function


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of `/v1/chat/completions`."""

    messages: list[Message]
    max_completion_tokens: TokenLimit | None = None

    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None

    reasoning_effort: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    store: bool | None = None
    metadata: dict[str, MetadataValue] | None = None
    service_tier: str | None = None
    prediction: dict[str, Any] | None = None
    verbosity: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of `/v1/completions`: a prompt, several, or the same as token ids."""

    prompt: str | list[str | int | list[int]]

    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)

_PATH = re.compile(r" - at `\$\.([^.\[`]+)")
_MISSING = re.compile(r"^Object missing required field `([^`]+)`")


def decode(body: bytes, kind: type[AnyStruct]) -> AnyStruct:
    """The request in a body. Raises `ApiError` (400), naming the field that is to blame."""
    try:
        # The decoder skips strings of unknown fields unread.
        str(body, "utf-8")
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from error
    except UnicodeDecodeError as error:
        raise errors.invalid_json("The body is not valid UTF-8.") from error
    except RecursionError as error:
        raise errors.invalid_json("The body nests too deep.") from error
    except msgspec.DecodeError as error:
        raise errors.invalid_json(f"The body is not valid JSON: {error}.") from error


def from_fields(fields: Mapping[str, Any], kind: type[AnyStruct]) -> AnyStruct:
    """The same, of what was decoded already. Raises `ApiError` (400)."""
    try:
        return msgspec.convert(fields, type=kind)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from error


def _wrong_field(message: str) -> errors.ApiError:
    path = _PATH.search(message)
    absent = _MISSING.match(message)
    if absent and not path:
        return errors.missing(absent[1])
    if path:
        return errors.bad_request(f"Invalid '{path[1]}': {message.replace(' - at `$.', ' at `')}.", path[1])
    return errors.bad_request(f"Invalid body: {message}.", code="invalid_json")
