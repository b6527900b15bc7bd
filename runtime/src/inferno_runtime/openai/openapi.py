"""The API's description: an OpenAPI 3.1 document, made from the wire types and the configuration.

`OPERATIONS` is the one list of what there is; schemas come from the types that requests are decoded into, and from those
in `schemas` and `monitoring`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, get_args

import msgspec

from inferno_runtime.config import ServerConfig
from inferno_runtime.openai import monitoring, requests, schemas

Json = dict[str, Any]

_SCHEMA = "#/components/schemas/{name}"
# Any of them: whether a key is needed is a setting.
_SECURITY: list[Json] = [{"bearer": []}, {"apiKey": []}, {}]
_TEXT = "text/plain"
_EVENTS = "text/event-stream"
_JSON = "application/json"
_ALWAYS = (405, 500)  # that any path may answer
_GENERATING = (400, 404, 413, 415, 503, 504, 507)
_KEYED = (401, 403, 429)  # where keys and limits are set


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a path or a query."""

    name: str
    place: str
    description: str
    schema: Json
    required: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path."""

    path: str
    method: str
    name: str
    tag: str
    summary: str
    answer: type[msgspec.Struct] | None  # of a 200; None for text
    body: type[msgspec.Struct] | None = None
    event: type[msgspec.Struct] | None = None  # the data of a stream's events, where the answer can be one
    unready: bool = False  # whether the same answer comes with a 503, too
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    keyed: bool = True


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

OPERATIONS = (
    Operation(
        "/v1/chat/completions",
        "post",
        "createChatCompletion",
        "generation",
        "Answer a conversation.",
        schemas.ChatCompletion,
        requests.ChatRequest,
        schemas.ChatCompletionChunk,
        errors=(*_GENERATING, *_KEYED),
    ),
    Operation(
        "/v1/completions",
        "post",
        "createCompletion",
        "generation",
        "Continue a prompt.",
        schemas.Completion,
        requests.CompletionRequest,
        schemas.Completion,
        errors=(*_GENERATING, *_KEYED),
    ),
    Operation("/v1/models", "get", "listModels", "models", "Every model.", schemas.ModelList, errors=_KEYED),
    Operation(
        "/v1/models/{id}",
        "get",
        "retrieveModel",
        "models",
        "One model.",
        schemas.Model,
        parameters=(_ID,),
        errors=(404, *_KEYED),
    ),
    Operation("/health", "get", "health", "health", "The server's state.", schemas.Health, unready=True, keyed=False),
    Operation("/health/live", "get", "live", "health", "Whether it lives.", schemas.Probe, unready=True, keyed=False),
    Operation(
        "/health/ready", "get", "ready", "health", "Whether it serves.", schemas.Probe, unready=True, keyed=False
    ),
    Operation("/metrics", "get", "metrics", "monitoring", "Prometheus' metrics.", None, keyed=False),
    Operation(
        "/metrics/profiles/recent",
        "get",
        "recentProfiles",
        "monitoring",
        "What the last requests took.",
        monitoring.RecentProfiles,
        parameters=(_LIMIT, _MODEL),
        errors=(400, 404, 401),
    ),
    Operation(
        "/metrics/profiles/stats",
        "get",
        "profileStats",
        "monitoring",
        "What requests took over a window.",
        monitoring.ProfileStats,
        parameters=(_WINDOW, _MODEL),
        errors=(400, 404, 401),
    ),
    Operation(
        "/metrics/queue/status",
        "get",
        "queueStatus",
        "monitoring",
        "The state of the queue.",
        monitoring.QueueStatus,
        parameters=(_WINDOW, _MODEL),
        errors=(400, 404, 401),
    ),
    Operation("/openapi.json", "get", "openapi", "monitoring", "This document.", None, keyed=False),
)


def document(version: str, models: Sequence[str], config: ServerConfig) -> Json:
    """The whole document. version: of the server; models: the names that it serves, for examples."""
    references, components = _schemas()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inferno",
            "version": version,
            "description": "Language models behind OpenAI's API. Unknown fields and parameters are ignored.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _paths(references, models, config),
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


_HEADERS: Json = {
    "X-Request-Id": {
        "description": "The request's id: the client's own, if it sent one of 128 printable characters at most.",
        "schema": {"type": "string"},
    },
    "openai-version": {"description": "The version of the API.", "schema": {"type": "string"}},
}


def _types() -> Iterator[type[msgspec.Struct]]:
    """Every type that an operation takes or gives, once."""
    found: dict[type[msgspec.Struct], None] = {schemas.ErrorAnswer: None}
    for operation in OPERATIONS:
        for kind in (operation.body, operation.answer, operation.event):
            if kind is not None:
                found[kind] = None
    return iter(found)


def _schemas() -> tuple[dict[type[msgspec.Struct], Json], Json]:
    """A reference to the schema of each type, and the schemas of these and of what they refer to, by name."""
    types = list(_types())
    references, components = msgspec.json.schema_components(types, ref_template=_SCHEMA)
    return dict(zip(types, references, strict=True)), components


def _paths(references: dict[type[msgspec.Struct], Json], models: Sequence[str], config: ServerConfig) -> Json:
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, references, models, config)
    return paths


def _operation(
    operation: Operation, references: dict[type[msgspec.Struct], Json], models: Sequence[str], config: ServerConfig
) -> Json:
    described: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation, references, config),
        "security": _SECURITY if operation.keyed else [],
    }
    if operation.parameters:
        described["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "description": parameter.description,
                "required": parameter.required,
                "schema": parameter.schema,
            }
            for parameter in operation.parameters
        ]
    if operation.body is not None:
        content: Json = {"schema": references[operation.body]}
        if models:
            content["example"] = _example(operation.body, models[0])
        described["requestBody"] = {"required": True, "content": {_JSON: content}}
    return described


def _example(body: type[msgspec.Struct], model: str) -> Json:
    if body is requests.ChatRequest:
        return {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    return {"model": model, "prompt": "The capital of France is"}


def _responses(operation: Operation, references: dict[type[msgspec.Struct], Json], config: ServerConfig) -> Json:
    content: Json
    if operation.answer is not None:
        content = {_JSON: {"schema": references[operation.answer]}}
    elif operation.path.endswith(".json"):
        content = {_JSON: {"schema": {"type": "object"}}}
    else:
        content = {_TEXT: {"schema": {"type": "string"}}}
    if operation.event is not None:
        content[_EVENTS] = {
            "schema": {
                "type": "string",
                "description": "Server-sent events, where `stream` is true. The data of each is as below, or an error that "
                "ends the stream, or the word [DONE] at its end.",
                "contentMediaType": _JSON,
                "contentSchema": {"anyOf": [references[operation.event], references[schemas.ErrorAnswer]]},
            }
        }
    responses = {"200": {"description": "It went well.", "headers": _header_references(), "content": content}}
    if operation.unready:
        responses["503"] = {"description": "It does not.", "headers": _header_references(), "content": content}
    error = {_JSON: {"schema": references[schemas.ErrorAnswer]}}
    for status in sorted({*operation.errors, *_ALWAYS}):
        responses[str(status)] = {
            "description": _meaning(status, config),
            "headers": _header_references(),
            "content": error,
        }
    return responses


def _header_references() -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}


def _meaning(status: int, config: ServerConfig) -> str:
    """What an error's status means."""
    limits = {
        413: f" The limit is {config.max_body_bytes} bytes.",
        504: f" The limit is {config.inference_timeout_seconds} seconds.",
    }
    meanings = {
        400: "A field or a parameter is missing, of the wrong type, out of range or not supported; `param` names it.",
        401: "A key is needed, and there was none, or none that is known.",
        403: "The key may not do this.",
        404: "There is no such model.",
        405: "The path is there, but not for this method; `Allow` names those that are.",
        413: "The body is too large.",
        415: "The body is not JSON in UTF-8.",
        429: "More than the limits allow; `Retry-After` says when to come again.",
        500: "A fault of the server's own, or of its engine.",
        503: "No engine takes requests now, or its queue is full; `Retry-After` says when to come again.",
        504: "It took too long.",
        507: "There is no memory for this request.",
    }
    return meanings.get(status, HTTPStatus(status).phrase) + limits.get(status, "")
