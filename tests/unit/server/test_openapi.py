"""The API's description by itself: a valid document, of every path and field, that agrees with the configuration."""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
from tornado.routing import PathMatches

from inferno_runtime.openai import fields, sole, stream_schemas, websocket
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.operations import OPERATIONS, Operation
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest
from inferno_runtime.server.app import application
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.described import describe, find

pytestmark = pytest.mark.asyncio

# OpenAPI's own; what the schemas in a document are is left to JSON Schema's.
SCHEMA = json.loads((Path(__file__).parents[2] / "data" / "openapi" / "schema-3.1.json").read_text())
(SSE,) = [operation for operation in OPERATIONS if operation.name == "streamEvents"]
CHAT = {"messages": '[{"role": "user", "content": "Hi"}]'}


async def test_the_document_is_valid(server: Running) -> None:
    document = (await describe(server)).document
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


async def test_references_lead_somewhere_and_nothing_is_left_over(server: Running) -> None:
    document = (await describe(server)).document
    references = set(re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(document)))
    for reference in references:
        assert find(document, reference)
    for kind in ("schemas", "responses", "parameters", "headers"):
        assert set(document["components"][kind]) == {
            reference.rpartition("/")[2] for reference in references if f"/{kind}/" in reference
        }
    used = chain.from_iterable(
        each for path in document["paths"].values() for o in path.values() for each in o["security"]
    )
    assert set(document["components"]["securitySchemes"]) == set(used)


async def test_every_path_is_described(server: Running) -> None:
    rules = application(server.context).wildcard_router.rules
    patterns = [rule.matcher.regex.pattern for rule in rules if isinstance(rule.matcher, PathMatches)]
    served = {
        pattern.removesuffix("$").replace("\\.", ".").replace("(.+)", "{id}").replace("([^/]+)", "{id}")
        for pattern in patterns
    }
    both = "(?:/v1)?"
    expanded = {
        prefix + path.removeprefix(both) for path in served for prefix in (["", "/v1"] if both in path else [""])
    }
    assert expanded == {operation.path for operation in OPERATIONS}


@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS}))
async def test_the_methods_of_a_path_are_those_described(server: Running, path: str) -> None:
    methods = {operation.method.upper() for operation in OPERATIONS if operation.path == path}
    response = await server.client.put(path.replace("{id}", "fake"))
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == methods | ({"HEAD"} if "GET" in methods else set())


# In a query


def wrong_values() -> list[Any]:
    """A value that each field cannot have, and the name that it is refused by."""
    texts = {"model": "none", "stop": "", "suffix": "x", "tool_choice": "required", "priority": "x"}
    texts["reasoning_effort"] = "x" * 33
    # A text says nothing wrong by itself: these may be any.
    texts_without_effect = {
        info.name
        for info in msgspec.structs.fields(ChatRequest)
        if fields.described(ChatRequest)[info.name].ignored and info.type == (str | None)
    }
    harmless = {"prompt", "function_call", *texts_without_effect}
    names = {info.encode_name for kind in (ChatRequest, CompletionRequest) for info in msgspec.structs.fields(kind)}
    return [
        pytest.param(name, texts.get(name, "?"), id=name)
        for name in sorted(names - harmless - {"stream", "stream_options"})
    ]


@pytest.mark.parametrize(("name", "value"), wrong_values())
async def test_every_field_is_described_as_a_parameter_and_taken(server: Running, name: str, value: str) -> None:
    operation = (await describe(server)).document["paths"][SSE.path][SSE.method]
    assert name in [parameter.get("name") for parameter in operation["parameters"]]
    of_chat = name not in CompletionRequest.__struct_fields__
    ask = {"model": "fake", **(CHAT if of_chat and name != "messages" else {}), name: value}
    if not of_chat:
        ask.setdefault("prompt", "Hi")
    response = await server.client.get(SSE.path, params=ask)
    assert response.status_code == (404 if name == "model" else 400)
    assert error_of(response)["param"] == name


async def test_parameters_are_written_as_described(server: Running) -> None:
    """A value of each, in the form that its schema says, is read as it was meant."""
    document = (await describe(server)).document
    operation = document["paths"][SSE.path][SSE.method]
    by_name = {parameter["name"]: parameter for parameter in operation["parameters"] if "name" in parameter}
    json_ones = {name for name, parameter in by_name.items() if "content" in parameter}
    of_openai_alone = {"audio", "web_search_options", "moderation", "metadata", "prediction", "prompt_cache_options"}
    own = {"logit_bias", "response_format", "structured_outputs", "tools", "functions", "modalities"}
    assert json_ones - of_openai_alone == {"messages", "chat_template_kwargs"} | own
    values = {"temperature": 0.5, "top_k": 7, "seed": 3, "ignore_eos": True, "stop": ["a", "b"], "modalities": ["text"]}
    for name, value in values.items():
        parameter = by_name[name]
        schema = parameter["content"]["application/json"]["schema"] if name in json_ones else parameter["schema"]
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)
    # Form style, exploded: a list of texts is its name several times.
    query = {name: [json.dumps(value).encode()] for name, value in values.items()} | {"stop": [b"a", b"b"]}
    ask = {name: [value.encode()] for name, value in (CHAT | {"model": "fake"}).items()}
    request = sole.from_query(query | ask)
    assert {name: getattr(request, name) for name in values} == values


# The messages of a WebSocket


async def test_messages_have_the_fields_that_are_written() -> None:
    written, described = (
        {kind.__struct_config__.tag: kind.__struct_fields__ for kind in get_args(union)}
        for union in (websocket.ServerMessage, stream_schemas.ServerMessage)
    )
    assert described == written


@pytest.mark.parametrize(
    ("message", "good"),
    [
        ({"type": "inference", "model": "m", "prompt": "Hi"}, True),
        ({"type": "inference", "model": "m", "prompt": [1, 2], "id": "x" * 128, "priority": "vip"}, True),
        ({"type": "inference", "model": "m", "messages": [{"role": "user", "content": "Hi"}]}, True),
        ({"type": "inference", "model": "m", "prompt": "Hi", "params": {"temperature": 0, "accumulated": False}}, True),
        ({"type": "inference", "model": "m", "prompt": "Hi", "flow_control": {"ack": True, "window": 1}}, True),
        ({"type": "inference", "model": "m", "prompt": "Hi", "params": {"temperature": 3}}, False),
        ({"type": "inference", "model": "m", "prompt": "Hi", "params": {"accumulated": 1}}, False),
        ({"type": "inference", "model": "m", "prompt": "Hi", "flow_control": {"window": 0}}, False),
        ({"type": "inference", "model": "m", "prompt": "Hi", "flow_control": {"window": 1_000_001}}, False),
        ({"type": "inference", "model": "m", "prompt": "Hi", "id": ""}, False),
        ({"type": "inference", "model": "m", "prompt": "Hi", "id": "x" * 129}, False),
        ({"type": "inference", "model": "m", "prompt": "Hi", "priority": "urgent"}, False),
        ({"type": "cancel", "request_id": "a"}, True),
        ({"type": "cancel"}, False),
        ({"type": "ack", "request_id": "a", "received": 0}, True),
        ({"type": "ack", "request_id": "a", "received": -1}, False),
        ({"type": "ping"}, True),
        ({"type": "pong"}, False),
    ],
)
async def test_a_message_is_read_where_it_is_as_described(server: Running, message: Any, good: bool) -> None:
    description = await describe(server)
    if good:
        description.check_message("Client", message)
        parsed = websocket.parse(json.dumps(message))
        if isinstance(parsed, websocket.Inference):
            parsed.request()
        return
    with pytest.raises(jsonschema.ValidationError):
        description.check_message("Client", message)
    with pytest.raises((websocket.BadMessage, ApiError)):
        websocket.parse(json.dumps(message)).request()  # type: ignore[union-attr]


# Bodies, and the configuration


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.body], ids=lambda each: each.name)
async def test_examples_and_bodies_are_as_described(server: Running, operation: Operation) -> None:
    description = await describe(server)
    content = description.document["paths"][operation.path]["post"]["requestBody"]["content"]["application/json"]
    description.check(content["schema"], content["example"])
    for_an_engine = operation.tag != "tokens"
    description.check(content["schema"], content["example"] | ({"priority": None} if for_an_engine else {}))
    description.check(content["schema"], content["example"] | {"unknown": 1}, closed=False)
    for field, value in (("model", None), *([("priority", "urgent")] if for_an_engine else [])):
        with pytest.raises(jsonschema.ValidationError):
            description.check(content["schema"], content["example"] | {field: value})


async def test_the_document_is_that_of_this_server(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {name: one, key: sk-one}\n")
    server = await start(max_body_bytes=54321, websocket_requests=7, keys_file=str(keys))
    document = (await describe(server)).document
    assert "54321" in document["components"]["responses"]["Limited413"]["description"]
    assert "7 requests" in document["paths"]["/ws/stream"]["get"]["description"]
    assert {} not in document["paths"]["/v1/models"]["get"]["security"]
    open_ = (await describe(await start())).document
    assert {} in open_["paths"]["/v1/models"]["get"]["security"]
    for path, schemes in (("/v1/completions", 2), ("/stream/sse", 3), ("/v1/ws/stream", 3), ("/health", 0)):
        for operation in document["paths"][path].values():
            assert len(operation["security"]) == schemes
