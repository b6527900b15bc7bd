"""The API's description: an OpenAPI 3.1 document, made from the wire types, their fields' meanings and the configuration."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from inferno_runtime.config import ServerConfig
from inferno_runtime.openai import schemas
from inferno_runtime.openai.components import JSON, Json, component_schemas, query_parameters, reference
from inferno_runtime.openai.embeddings import EmbeddingsRequest
from inferno_runtime.openai.messages_api.requests import CountTokensRequest, MessagesRequest
from inferno_runtime.openai.operations import (
    LAST_EVENT_ID,
    OPERATIONS,
    PRIORITY,
    REQUEST_ID,
    TRACEPARENT,
    Operation,
    Parameter,
)
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest
from inferno_runtime.openai.rerank import RerankRequest
from inferno_runtime.openai.responses_api.requests import ResponsesRequest
from inferno_runtime.openai.tokens import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest

_EVENTS = "text/event-stream"
_SHARED = (REQUEST_ID, PRIORITY, LAST_EVENT_ID, TRACEPARENT)  # parameters that stand in the document once
_ANYWHERE = (408, 431, 500)  # what any operation may answer
_OF_HEADS = (408, 431)
_TAGS = {
    "generation": "Text, whole or as OpenAI's events.",
    "embeddings": "Vectors.",
    "reranking": "Scores.",
    "streaming": "Text as named events and on WebSockets.",
    "tokens": "What a model's tokenizer and its chat template say.",
    "models": "What is served.",
    "health": "Whether it is served.",
    "monitoring": "What it takes.",
}


def document(version: str, models: Sequence[str], config: ServerConfig) -> Json:
    """The whole document. version: of the server; models: the names that it serves, for examples."""
    components = component_schemas(
        kind
        for operation in OPERATIONS
        for kind in (*operation.body, *operation.events, operation.answer, operation.error)
        if isinstance(kind, type)
    )
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, components, models, config)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inferno",
            "version": version,
            "description": "Language models behind OpenAI's API. Fields and parameters that are unknown are ignored, a field "
            "that is null is one that is not there, and every error has the same shape. Answers are compressed as "
            "`Accept-Encoding` asks. A HEAD is answered wherever a GET is.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": _errors(config),
            "parameters": {parameter.name: _parameter(parameter) for parameter in _SHARED},
            "headers": {name: _header(*header) for name, header in _HEADERS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "apiKeyInQuery": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "api_key",
                    "description": "For browsers' EventSource and WebSocket, which cannot send headers.",
                },
            },
        },
    }


def _operation(operation: Operation, components: Json, models: Sequence[str], config: ServerConfig) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": _parameters(operation, components),
        "responses": _responses(operation),
        "security": _security(operation, config),
    }
    if operation.description:
        described["description"] = operation.told(config)
    if operation.body:
        content: Json = {"schema": reference(*operation.body)}
        if models:
            content["example"] = _example(operation.body[0], models[0])
        described["requestBody"] = {"required": True, "content": {JSON: content}}
    if operation.socket:
        described["x-websocket"] = {
            side: {"$ref": f"#/components/schemas/{side.title()}Message"} for side in ("client", "server")
        }
    return described


def _parameters(operation: Operation, components: Json) -> list[Json]:
    described = [
        {"$ref": f"#/components/parameters/{parameter.name}"} if parameter in _SHARED else _parameter(parameter)
        for parameter in (REQUEST_ID, *operation.parameters)
    ]
    return described + (query_parameters(components) if operation.query else [])


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _security(operation: Operation, config: ServerConfig) -> list[Json]:
    """The ways to show a key, of which any will do; also none, where no keys are set."""
    if not operation.keyed:
        return []
    schemes = ["bearer", "apiKey", *(["apiKeyInQuery"] if operation.streams_one else [])]
    return [{scheme: []} for scheme in schemes] + ([] if config.keys_file else [{}])


def _example(body: type[msgspec.Struct], model: str) -> Json:
    question = "What is the capital of France?"
    examples: dict[type[msgspec.Struct], Json] = {
        ChatRequest: {"messages": [{"role": "user", "content": question}]},
        CompletionRequest: {"prompt": "The capital of France is"},
        EmbeddingsRequest: {"input": ["A man plays the guitar.", "Somebody makes music."]},
        RerankRequest: {"query": "Who makes music?", "documents": ["A man plays the guitar.", "It rains."]},
        ResponsesRequest: {"input": question},
        MessagesRequest: {"max_tokens": 100, "messages": [{"role": "user", "content": question}]},
        CountTokensRequest: {"messages": [{"role": "user", "content": question}]},
        TokenizeRequest: {"prompt": "The capital of France is"},
        DetokenizeRequest: {"tokens": [1, 2, 3]},
        ApplyTemplateRequest: {"messages": [{"role": "user", "content": question}]},
    }
    return {"model": model, **examples[body]}


# Responses


def _headers_of(operation: Operation) -> list[str]:
    """What every answer of an operation carries."""
    headers = ["X-Request-Id", "openai-version", "Vary"]
    if operation.metered:
        headers += _RATE_LIMITS
    if operation.streams_one and not operation.socket:
        headers.append("Access-Control-Allow-Origin")
    if _speaks_otherwise(operation):
        headers.append("Request-Id")
    return headers


def _speaks_otherwise(operation: Operation) -> bool:
    """Whether its errors have a shape of their own."""
    return operation.error is not schemas.ErrorAnswer


def _variant(operation: Operation) -> str:
    """A word for what is particular about its answers: the headers that they carry."""
    if _speaks_otherwise(operation):
        return "Message"
    if not operation.metered:
        return ""
    return "Event" if operation.streams_one and not operation.socket else "Limited"


def _errors(config: ServerConfig) -> Json:
    """Every answer that is an error, by name."""
    errors: Json = {}
    for operation in OPERATIONS:
        headers, variant = _headers_of(operation), _variant(operation)
        for status in (*operation.errors, *_ANYWHERE):
            own = [*headers, *_ERROR_HEADERS.get(status, ())]
            # What is wrong with a head is told before anybody knows whom it was meant for.
            shapes: tuple[type[msgspec.Struct], ...] = (operation.error,)
            if status in _OF_HEADS:
                shapes += (schemas.ErrorAnswer,)
            errors[f"{variant}{status}"] = _error(_meaning(status, config), own, *shapes)
        errors[f"{variant}Error"] = _error("Anything else that went wrong.", [*headers, "Allow"], operation.error)
    return errors


def _error(description: str, headers: list[str], *shapes: type[msgspec.Struct]) -> Json:
    return {
        "description": description,
        "headers": _headers([*headers, "Content-Encoding"]),
        "content": {JSON: {"schema": reference(*dict.fromkeys(shapes))}},
    }


def _responses(operation: Operation) -> Json:
    responses, variant = _successes(operation), _variant(operation)
    for status in sorted({*operation.errors, *_ANYWHERE}):
        responses[str(status)] = {"$ref": f"#/components/responses/{variant}{status}"}
    # Such as that to a method which the path has not.
    responses["default"] = {"$ref": f"#/components/responses/{variant}Error"}
    return responses


def _successes(operation: Operation) -> Json:
    headers = _headers_of(operation)
    if operation.socket:
        opened = _headers([*headers, "Upgrade", "Connection", "Sec-WebSocket-Accept"])
        return {"101": {"description": "The WebSocket is open.", "headers": opened}}
    own = ["Content-Encoding"]
    if operation.events:
        own += ["Cache-Control", "X-Accel-Buffering"]
    elif operation.tag == "monitoring":
        own.append("Cache-Control")
    answer = {"headers": _headers([*headers, *own]), "content": _content(operation)}
    responses: Json = {"200": {"description": "It went well.", **answer}}
    if LAST_EVENT_ID in operation.parameters:
        ended = "The stream that `Last-Event-ID` names had ended."
        responses["204"] = {"description": ended, "headers": _headers(headers)}
    if operation.unready:
        responses["503"] = {"description": "It does not; `reason` says why.", **answer}
    return responses


def _content(operation: Operation) -> Json:
    content: Json = {}
    if operation.answer == JSON:
        content[JSON] = {"schema": {"type": "object"}}
    elif isinstance(operation.answer, str):
        content[operation.answer] = {"schema": {"type": "string"}}
    elif operation.answer is not None:
        content[JSON] = {"schema": reference(operation.answer)}
    if operation.events:
        end = ", or the word [DONE] at the end; they are sent where `stream` is true." if operation.answer else "."
        content[_EVENTS] = {
            "schema": {
                "type": "string",
                "description": f"Server-sent events. The data of each is as below{end}",
                "contentMediaType": JSON,
                "contentSchema": reference(*operation.events, operation.error),
            }
        }
    return content


def _meaning(status: int, config: ServerConfig) -> str:
    """What an error's status means."""
    meanings = {
        400: "A field, a parameter or a header is missing, of the wrong type, out of range or not supported; `param` names it.",
        401: "A key is needed, and there was none, or none that is known.",
        403: "The caller may not use the model or the priority, or its page is of an origin that is not allowed.",
        404: "There is no such model, or no such response.",
        408: "The request did not come in time.",
        413: f"The body is larger than {config.max_body_bytes} bytes.",
        415: "The body is not JSON in UTF-8.",
        426: "This path is a WebSocket's.",
        429: "The caller has had what its limits allow for now.",
        431: "The first line and the headers are too large.",
        500: "A fault of the server's own, or of its engine.",
        503: "No engine takes requests now, or the queue is full.",
        504: f"The request took longer than {config.inference_timeout_seconds} seconds, or a token longer than "
        f"{config.token_timeout_seconds}.",
        507: "There is no memory for this request; those beside it go on.",
    }
    return meanings.get(status, HTTPStatus(status).phrase)


# Headers

_ERROR_HEADERS = {
    401: ("WWW-Authenticate",),
    426: ("Upgrade", "Sec-WebSocket-Version"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
# What it says, its type, and whether it is there wherever it is named.
_HEADERS: dict[str, tuple[str, str, bool]] = {
    "Request-Id": ("The same as `X-Request-Id`, where Anthropic's clients look for it.", "string", False),
    "X-Request-Id": ("The request's id: the client's own, if it sent one.", "string", True),
    "openai-version": ("The version of the API.", "string", True),
    "Vary": ("The request's headers that the answer depends on.", "string", False),
    "Content-Encoding": ("How the body is compressed: zstd, gzip, br or deflate.", "string", False),
    "Cache-Control": ("That nobody should keep a stream, or what was measured.", "string", False),
    "X-Accel-Buffering": ("That proxies should pass a stream on as it comes.", "string", False),
    "Allow": ("The methods that the path has, where it has not this one.", "string", False),
    "Access-Control-Allow-Origin": ("The origin of a page from elsewhere that is allowed.", "string", False),
    "Retry-After": ("Seconds after which to try again.", "integer", True),
    "WWW-Authenticate": ("How to show a key.", "string", True),
    "Upgrade": ("What is spoken here: websocket.", "string", True),
    "Connection": ("That the connection is upgraded.", "string", True),
    "Sec-WebSocket-Accept": ("The answer to the key of the handshake.", "string", True),
    "Sec-WebSocket-Version": ("The version of the protocol, where the client's was another.", "string", False),
    **{
        f"X-RateLimit-{what}-{name}": (meaning.format(name.lower()), "integer", False)
        for name in ("Requests", "Tokens")
        for what, meaning in (
            ("Limit", "How many {} the caller may have in a minute; missing where that is not limited."),
            ("Remaining", "How many {} are left of them."),
            ("Reset", "The Unix time at which the minute of the {} ends."),
        )
    },
}
_RATE_LIMITS = [name for name in _HEADERS if name.startswith("X-RateLimit-")]


def _header(description: str, kind: str, required: bool) -> Json:
    return {"description": description, "required": required, "schema": {"type": kind}}


def _headers(names: list[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
