"""The shapes of answers, for the API's description. How they are written fast stands in `responses`."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from inferno_runtime.config import Task
from inferno_runtime.models.facts import Capability

Finish = Literal["stop", "length", "tool_calls"]
ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "server_error",
    "timeout_error",
]


class ErrorObject(msgspec.Struct, frozen=True):
    """What went wrong. `param` names the field or the header that is to blame, where one is."""

    message: str
    type: ErrorType
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The body of every answer that is an error, and of the event that ends a stream which failed."""

    error: ErrorObject


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """What the prompt's tokens took."""

    cached_tokens: int


class UsageObject(msgspec.Struct, frozen=True):
    """Tokens of all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CalledFunction(msgspec.Struct, frozen=True):
    """What is called, and with what: JSON text, of which the end is missing where the answer's limit has cut it off."""

    name: str
    arguments: str


class CalledTool(msgspec.Struct, frozen=True):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(msgspec.Struct, frozen=True):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CalledTool] | UnsetType = UNSET


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that might have stood there. `bytes` is null of a control token, which has no text."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token, and the likeliest ones at its place."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """How likely the tokens of a message, or of a piece of it, were."""

    content: list[TokenLogprob]
    refusal: None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """How likely the tokens of a text, or of a piece of it, were; null of a prompt's first. Offsets are in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class ChatChoice(msgspec.Struct, frozen=True):
    """One answer of a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(msgspec.Struct, frozen=True):
    """The answer of `/v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageObject


class FunctionDelta(msgspec.Struct, frozen=True):
    """The name of what is called, or a further piece of its arguments."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A call, or a further piece of the one of that index."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(msgspec.Struct, frozen=True):
    """A further piece of a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, frozen=True):
    """A piece of one answer of a chat."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatCompletionChunk(msgspec.Struct, frozen=True):
    """The data of an event of `/v1/chat/completions`; `usage` is there where it was asked for, and null but in the last."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: UsageObject | UnsetType | None = UNSET


class CompletionChoice(msgspec.Struct, frozen=True):
    """One continuation of a prompt, or a piece of it."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None


class Completion(msgspec.Struct, frozen=True):
    """The answer of `/v1/completions`, and the data of its events."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageObject | UnsetType | None = UNSET


class EmbeddingObject(msgspec.Struct, frozen=True):
    """The vector of one input; text where base64 was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(msgspec.Struct, frozen=True):
    """Tokens of all inputs together; the two are equal."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(msgspec.Struct, frozen=True):
    """The answer of `/v1/embeddings`, in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingsUsage


class RerankedDocument(msgspec.Struct, frozen=True):
    """A document, where the request asked to have them back."""

    text: str


class RerankResult(msgspec.Struct, frozen=True):
    """A document by its place in the request, and how well it answers the query: from 0 to 1, unless raw scores were asked for."""

    index: int
    relevance_score: float
    document: RerankedDocument | UnsetType = UNSET


class Reranking(msgspec.Struct, frozen=True):
    """The answer of `/v1/rerank`, the best document first."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RerankResult]
    usage: EmbeddingsUsage


class Model(msgspec.Struct, frozen=True):
    """One model, under one of its names; `root` is the name that is its own, and `parent` the model that it adapts."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    permission: list[Any]
    root: str
    parent: str | None
    max_model_len: int | UnsetType = UNSET
    capabilities: list[Capability] | UnsetType = UNSET


class ModelList(msgspec.Struct, frozen=True):
    """Every model, under each of its names."""

    object: Literal["list"]
    data: list[Model]


class EngineHealth(msgspec.Struct, frozen=True):
    """The state of an engine; `active` and `queued` are sequences, `kv_usage` a share."""

    state: Literal["starting", "ready", "restarting", "stopped"]
    active: int
    queued: int
    kv_usage: float
    tuning: dict[str, Any]
    draft: str | None


class ModelHealth(msgspec.Struct, frozen=True):
    """The state of one of several models."""

    model: str
    format: str | None
    task: Task | None
    vision: bool | None
    engine: EngineHealth


class Health(msgspec.Struct, frozen=True):
    """The answer of `/health`; one model stands in the object itself, several in `models`."""

    status: Literal["healthy", "loading", "unhealthy", "leaving", "draining"]
    version: str
    uptime_seconds: float
    reason: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    format: str | UnsetType | None = UNSET
    task: Task | UnsetType | None = UNSET
    vision: bool | UnsetType | None = UNSET
    engine: EngineHealth | UnsetType = UNSET
    models: list[ModelHealth] | UnsetType = UNSET


class Probe(msgspec.Struct, frozen=True):
    """The answer of `/health/live` and `/health/ready`."""

    status: Literal["healthy", "loading", "unhealthy", "leaving", "draining", "live", "dead"]
    reason: str | UnsetType = UNSET
