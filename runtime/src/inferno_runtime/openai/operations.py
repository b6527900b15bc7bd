"""What the API has: every method of every path, for its description and its reference page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from inferno_runtime.config import ServerConfig
from inferno_runtime.openai import monitoring, schemas, stream_schemas, tokens
from inferno_runtime.openai.components import JSON
from inferno_runtime.openai.embeddings import EmbeddingsRequest
from inferno_runtime.openai.messages_api import schemas as message_schemas
from inferno_runtime.openai.messages_api.requests import CountTokensRequest, MessagesRequest
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest
from inferno_runtime.openai.rerank import RerankRequest
from inferno_runtime.openai.responses_api import schemas as response_schemas
from inferno_runtime.openai.responses_api.requests import ResponsesRequest

_KEY = (401, 429)
_WORK = (400, *_KEY, 403, 404, 503, 504, 507)  # which an engine does
_BODY = (413, 415)
_COUNT = (400, *_KEY, 403, 404, 503)  # which a model's tokenizer does
_MONITORING = (400, 401, 403, 404)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a path, a query or a head."""

    name: str
    place: str
    description: str
    schema: dict[str, Any]
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path. A HEAD is answered wherever a GET is, and not listed."""

    path: str
    method: str
    name: str  # unique, for generated clients
    tag: str
    summary: str
    description: str = ""  # `{field}` stands for a field of the server's configuration
    answer: type[msgspec.Struct] | str | None = None  # what a 200 has: JSON of this type, or another media type
    events: tuple[type[msgspec.Struct], ...] = ()  # the data of its events is of these types, where it can be a stream
    body: tuple[type[msgspec.Struct], ...] = ()  # JSON of any of these types
    query: bool = False  # whether a request for text can stand in the query
    socket: bool = False  # whether it opens a WebSocket
    unready: bool = False  # whether the same answer comes with a 503, too
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    error: type[msgspec.Struct] = schemas.ErrorAnswer  # the shape of its errors
    keyed: bool = True  # whether it needs a key, where keys are set

    @property
    def metered(self) -> bool:
        """Whether it counts against the limits of whoever asks."""
        return 429 in self.errors

    @property
    def streams_one(self) -> bool:
        """Whether it is meant for browsers' EventSource or WebSocket, too, which cannot send headers."""
        return self.path.endswith(("/stream/sse", "/ws/stream"))

    def told(self, config: ServerConfig) -> str:
        """Its description, with the settings of this server."""
        return self.description.format(**config.model_dump())


REQUEST_ID = Parameter(
    "X-Request-Id",
    "header",
    "A name for the request, of at most 128 printable ASCII characters; it is told again in the answer and the log.",
    {"type": "string", "maxLength": 128},
)
PRIORITY = Parameter(
    "X-Inferno-Priority",
    "header",
    "The priority of a request that does not name its own.",
    {"$ref": "#/components/schemas/Priority"},
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    "What an EventSource sends when it connects again. No stream goes on where it was cut off: the answer is 204 for one that "
    "had ended, and 400 for any other.",
    {"type": "string"},
)
TRACEPARENT = Parameter(
    "traceparent",
    "header",
    "The trace that the request belongs to (W3C Trace Context), where traces are kept.",
    {"type": "string"},
)

_MODEL = Parameter("model", "query", "Only this model, by its name or an alias.", {"type": "string"})
_WINDOW = Parameter(
    "window",
    "query",
    "How far back to look.",
    {"enum": list(get_args(monitoring.WindowName)), "default": monitoring.DEFAULT_WINDOW},
)
_LIMIT = Parameter(
    "limit",
    "query",
    "How many, at most.",
    {"type": "integer", "minimum": 1, "maximum": monitoring.MOST_RECENT, "default": monitoring.DEFAULT_LIMIT},
)
_ID = Parameter("id", "path", "A model's name or alias; it may hold slashes.", {"type": "string"}, required=True)
_PAGE = (
    Parameter("limit", "query", "How many, at most.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
    Parameter("order", "query", "The last first, or the first.", {"enum": ["desc", "asc"], "default": "desc"}),
    Parameter("after", "query", "The id of the item before.", {"type": "string"}),
)
_RESPONSE_ID = Parameter("id", "path", "A stored response's id.", {"type": "string"}, required=True)
_ASKING = (PRIORITY, TRACEPARENT)


# What OpenAI's API has beside, by the first part of the path below /v1; everything that its client asks for.
_OPENAIS = frozenset(
    [
        "agents",
        "assistants",
        "audio",
        "batches",
        "chat/completions",
        "chatkit",
        "containers",
        "content_provenance_checks",
        "conversations",
        "decisions",
        "edits",
        "evals",
        "files",
        "fine_tuning",
        "images",
        "live",
        "moderations",
        "organization",
        "projects",
        "realtime",
        "responses",
        "safety",
        "skills",
        "threads",
        "uploads",
        "vaults",
        "vector_stores",
        "videos",
        "webhook_endpoints",
        "webhook_event_types",
    ]
)


def is_openais(path: str) -> bool:
    """Whether a path that is not served here is one of OpenAI's, or below one."""
    return any(path == f"/v1/{part}" or path.startswith(f"/v1/{part}/") for part in _OPENAIS)


def served_paths() -> list[str]:
    """The paths below /v1."""
    return list(
        dict.fromkeys(each.path for each in OPERATIONS if each.path.startswith("/v1/") and "{" not in each.path)
    )


def _tokens() -> Iterator[Operation]:
    """What a model's tokenizer and its template say, under both of their paths each."""
    for root, suffix in (("/v1", ""), ("", "Unversioned")):
        for path, name, summary, body, answer in (
            (
                "tokenize",
                "tokenize",
                "Turn a prompt or a conversation into tokens.",
                tokens.TokenizeRequest,
                tokens.Tokens,
            ),
            ("detokenize", "detokenize", "Turn tokens into text.", tokens.DetokenizeRequest, tokens.Prompt),
            (
                "apply-template",
                "applyTemplate",
                "Render a conversation as the model is given it.",
                tokens.ApplyTemplateRequest,
                tokens.Prompt,
            ),
        ):
            yield Operation(
                path=f"{root}/{path}",
                method="post",
                name=name + suffix,
                tag="tokens",
                summary=summary,
                answer=answer,
                body=(body,),
                errors=(400, *_KEY, 403, 404, 503, *_BODY),
            )


def _streams() -> Iterator[Operation]:
    """The streams of one sequence, under both of their paths each."""
    for root, suffix in (("/v1", ""), ("", "Unversioned")):
        for method, name, place in (
            ("get", "streamEvents", ""),
            ("post", "streamEventsOfBody", ", asked for in a body"),
        ):
            yield Operation(
                path=f"{root}/stream/sse",
                method=method,
                name=name + suffix,
                tag="streaming",
                summary=f"Stream one text as named events{place}.",
                description="With `messages` it is a chat, with `prompt` a completion. `event: token` comes with each piece "
                "of the text, `event: reasoning` and `event: tool_call` with each of what else a chat says, and `event: complete` or `event: error` at the end. A comment line comes after "
                "{keep_alive_seconds} seconds of silence.",
                events=(
                    stream_schemas.TokenEvent,
                    stream_schemas.ReasoningEvent,
                    stream_schemas.ToolCallEvent,
                    stream_schemas.CompleteEvent,
                ),
                body=(ChatRequest, CompletionRequest) if method == "post" else (),
                query=method == "get",
                parameters=(*_ASKING, LAST_EVENT_ID),
                errors=(*_WORK, *(_BODY if method == "post" else ())),
            )
        yield Operation(
            path=f"{root}/ws/stream",
            method="get",
            name=f"openSocket{suffix}",
            tag="streaming",
            summary="Open a WebSocket, on which several texts can be streamed at once.",
            description="Messages are JSON in text frames: the client's are those of the schema `ClientMessage`, and the "
            "server's those of `ServerMessage`. At most {websocket_requests} requests run on a connection, and a message "
            "has at most {websocket_message_bytes} bytes. When {stream_buffer_kb} KiB wait for the client, its sequences "
            "are paused in the engine; one that takes nothing, or leaves its full window unacknowledged, for "
            "{ack_timeout_seconds} seconds gets an error. The handshake counts as one request, and each `inference` as "
            "another.",
            socket=True,
            parameters=_ASKING,
            errors=(400, *_KEY, 403, 426, 503),
        )


def _reranking() -> Iterator[Operation]:
    """The same under Jina's path, under that of most servers, and under Cohere's newer one."""
    for root, suffix in (("/v1", ""), ("", "Unversioned"), ("/v2", "V2")):
        yield Operation(
            path=f"{root}/rerank",
            method="post",
            name=f"rerank{suffix}",
            tag="reranking",
            summary="Say how well documents answer a query.",
            answer=schemas.Reranking,
            body=(RerankRequest,),
            parameters=_ASKING,
            errors=(*_WORK, *_BODY),
        )


def _responses() -> Iterator[Operation]:
    """OpenAI's Responses API."""
    yield Operation(
        path="/v1/responses",
        method="post",
        name="createResponse",
        tag="generation",
        summary="Answer a conversation that consists of items, and keep the answer.",
        description="Up to {stored_responses} responses are kept for {stored_response_seconds} seconds, each for whom it was "
        "made, and `previous_response_id` goes on from one.",
        answer=response_schemas.ResponseObject,
        events=(response_schemas.ResponseEvent,),
        body=(ResponsesRequest,),
        parameters=_ASKING,
        errors=(*_WORK, *_BODY),
    )
    yield Operation(
        path="/v1/responses/input_tokens",
        method="post",
        name="countInputTokens",
        tag="generation",
        summary="Count the tokens that a request for a response has.",
        answer=response_schemas.InputTokens,
        body=(ResponsesRequest,),
        parameters=_ASKING,
        errors=(*_COUNT, *_BODY),
    )
    yield Operation(
        path="/v1/responses/{id}",
        method="get",
        name="retrieveResponse",
        tag="generation",
        summary="Read a stored response, or delete it.",
        answer=response_schemas.ResponseObject,
        parameters=(_RESPONSE_ID,),
        errors=(400, *_KEY, 404),
    )
    yield Operation(
        path="/v1/responses/{id}",
        method="delete",
        name="deleteResponse",
        tag="generation",
        summary="Delete a stored response.",
        answer=response_schemas.DeletedResponse,
        parameters=(_RESPONSE_ID,),
        errors=(*_KEY, 404),
    )
    yield Operation(
        path="/v1/responses/{id}/input_items",
        method="get",
        name="listInputItems",
        tag="generation",
        summary="List the conversation that a stored response answered.",
        answer=response_schemas.InputItems,
        parameters=(_RESPONSE_ID, *_PAGE),
        errors=(400, *_KEY, 404),
    )


def _messages() -> Iterator[Operation]:
    """Anthropic's Messages API."""
    yield Operation(
        path="/v1/messages",
        method="post",
        name="createMessage",
        tag="generation",
        summary="Answer a conversation in Anthropic's words.",
        description="The header `anthropic-version` is taken and ignored. A stream sends a `ping` after "
        "{keep_alive_seconds} seconds of silence.",
        answer=message_schemas.MessageObject,
        events=(message_schemas.MessageEvent,),
        body=(MessagesRequest,),
        parameters=_ASKING,
        errors=(*_WORK, *_BODY),
        error=message_schemas.MessageError,
    )
    yield Operation(
        path="/v1/messages/count_tokens",
        method="post",
        name="countMessageTokens",
        tag="generation",
        summary="Count the tokens that a conversation has.",
        answer=message_schemas.TokenCount,
        body=(CountTokensRequest,),
        parameters=_ASKING,
        errors=(*_COUNT, *_BODY),
        error=message_schemas.MessageError,
    )


OPERATIONS = (
    Operation(
        path="/v1/chat/completions",
        method="post",
        name="createChatCompletion",
        tag="generation",
        summary="Answer a conversation.",
        answer=schemas.ChatCompletion,
        events=(schemas.ChatCompletionChunk,),
        body=(ChatRequest,),
        parameters=_ASKING,
        errors=(*_WORK, *_BODY),
    ),
    Operation(
        path="/v1/completions",
        method="post",
        name="createCompletion",
        tag="generation",
        summary="Continue a prompt, or several.",
        answer=schemas.Completion,
        events=(schemas.Completion,),
        body=(CompletionRequest,),
        parameters=_ASKING,
        errors=(*_WORK, *_BODY),
    ),
    *_responses(),
    *_messages(),
    Operation(
        path="/v1/embeddings",
        method="post",
        name="createEmbeddings",
        tag="embeddings",
        summary="Turn texts into vectors.",
        answer=schemas.Embeddings,
        body=(EmbeddingsRequest,),
        parameters=_ASKING,
        errors=(*_WORK, *_BODY),
    ),
    *_reranking(),
    *_streams(),
    *_tokens(),
    Operation(
        path="/v1/models",
        method="get",
        name="listModels",
        tag="models",
        summary="List the models that the caller may use, under each of their names.",
        answer=schemas.ModelList,
        errors=_KEY,
    ),
    Operation(
        path="/v1/models/{id}",
        method="get",
        name="retrieveModel",
        tag="models",
        summary="Describe one model.",
        answer=schemas.Model,
        parameters=(_ID,),
        errors=(*_KEY, 403, 404),
    ),
    Operation(
        path="/health",
        method="get",
        name="health",
        tag="health",
        summary="Tell the state of the server, its models and their engines.",
        answer=schemas.Health,
        unready=True,
        keyed=False,
    ),
    Operation(
        path="/health/live",
        method="get",
        name="live",
        tag="health",
        summary="Tell whether the server lives: the liveness probe. Where it does not, a new start of the process may help.",
        answer=schemas.Probe,
        unready=True,
        keyed=False,
    ),
    Operation(
        path="/health/ready",
        method="get",
        name="ready",
        tag="health",
        summary="Tell whether requests should be sent here: the readiness probe.",
        answer=schemas.Probe,
        unready=True,
        keyed=False,
    ),
    Operation(
        path="/metrics",
        method="get",
        name="metrics",
        tag="monitoring",
        summary="Expose metrics in Prometheus' text format.",
        answer="text/plain",
        keyed=False,
    ),
    Operation(
        path="/metrics/profiles/recent",
        method="get",
        name="recentProfiles",
        tag="monitoring",
        summary="Tell what the last requests took, phase by phase.",
        answer=monitoring.RecentProfiles,
        parameters=(_LIMIT, _MODEL),
        errors=_MONITORING,
    ),
    Operation(
        path="/metrics/profiles/stats",
        method="get",
        name="profileStats",
        tag="monitoring",
        summary="Tell how the phases are spread over a window of time.",
        answer=monitoring.ProfileStats,
        parameters=(_WINDOW, _MODEL),
        errors=_MONITORING,
    ),
    Operation(
        path="/metrics/queue/status",
        method="get",
        name="queueStatus",
        tag="monitoring",
        summary="Tell the state of the queue, also by priority.",
        answer=monitoring.QueueStatus,
        parameters=(_WINDOW, _MODEL),
        errors=_MONITORING,
    ),
    Operation(
        path="/openapi.json",
        method="get",
        name="openapi",
        tag="monitoring",
        summary="Describe the API: this document.",
        answer=JSON,
        keyed=False,
    ),
)
