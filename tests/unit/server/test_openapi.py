"""The API's description, held against the application and its answers."""

import json
import re
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from tornado.routing import PathMatches

from inferno_runtime.openai.openapi import OPERATIONS
from inferno_runtime.server.app import application
from inferno_runtime.worker.errors import EngineLost, Overloaded
from tests.unit.server.conftest import Running, Start
from tests.unit.server.fakes import FakeEngine

pytestmark = pytest.mark.asyncio


async def described(server: Running) -> dict[str, Any]:
    response = await server.client.get("/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def check_response(document: dict[str, Any], path: str, response: httpx.Response) -> None:
    """A response is as the document says that its status, its headers and its body may be."""
    operation = document["paths"][path][response.request.method.lower()]
    answer = operation["responses"][str(response.status_code)]
    for name in answer["headers"]:
        assert name in response.headers
    kind = response.headers["content-type"].partition(";")[0]
    schema = answer["content"][kind]["schema"]
    if kind == "text/event-stream":
        for event in response.text.split("\n\n"):
            data = event.removeprefix("data: ")
            if data and data != "[DONE]":
                check(document, schema["contentSchema"], json.loads(data))
    elif kind == "application/json":
        check(document, schema, response.json())


async def test_every_schema_is_one(server: Running) -> None:
    document = await described(server)
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    references = re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        found: Any = document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


async def test_every_path_is_described(server: Running) -> None:
    rules = application(server.context).wildcard_router.rules
    patterns = [rule.matcher.regex.pattern for rule in rules if isinstance(rule.matcher, PathMatches)]
    served = {pattern.removesuffix("$").replace("\\.", ".").replace("(.+)", "{id}") for pattern in patterns}
    assert served == {operation.path for operation in OPERATIONS}


async def test_every_described_operation_is_there(server: Running) -> None:
    for operation in OPERATIONS:
        path = operation.path.replace("{id}", "fake")
        response = await server.client.request(operation.method.upper(), path)
        assert response.status_code not in (404, 405), operation


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"max_tokens": 0},
        {"temperature": "hot"},
        {"model": "none"},
        {"model": None},
    ],
)
async def test_answers_to_generations(server: Running, fields: dict[str, Any]) -> None:
    document = await described(server)
    for path, body in (
        ("/v1/chat/completions", {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"model": "fake", "prompt": "Hi"}),
    ):
        check_response(document, path, await server.client.post(path, json=body | fields))


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_of_engines_in_trouble(server: Running, stream: bool) -> None:
    document = await described(server)
    server.engine.fails = EngineLost("Lost.")
    check_response(document, "/v1/completions", await server.complete(stream=stream))
    server.engine.refuses = Overloaded("Full.")
    check_response(document, "/v1/completions", await server.complete(stream=stream))


@pytest.mark.parametrize("names", [("fake",), ("one", "two")])
@pytest.mark.parametrize("load", [False, True])
async def test_answers_to_questions(start: Start, names: tuple[str, ...], load: bool) -> None:
    server = await start(*(FakeEngine(name) for name in names), load=load)
    if load:
        await server.client.post("/v1/completions", json={"model": names[0], "prompt": "Hi"})
    document = await described(server)
    for operation in OPERATIONS:
        if operation.method == "get":
            path = operation.path.replace("{id}", names[0])
            check_response(document, operation.path, await server.client.get(path))


async def test_errors_of_questions(server: Running) -> None:
    document = await described(server)
    check_response(document, "/v1/models/{id}", await server.client.get("/v1/models/none"))
    check_response(document, "/metrics/profiles/stats", await server.client.get("/metrics/profiles/stats?window=x"))
    server.engine.alive = False
    check_response(document, "/health/live", await server.client.get("/health/live"))


async def test_requests_that_the_server_takes_are_described(server: Running) -> None:
    document = await described(server)
    for path, body in (
        ("/v1/chat/completions", {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "top_k": 5}),
        ("/v1/completions", {"model": "fake", "prompt": [1, 2], "stop": ["a"], "unknown": 1}),
    ):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        check(document, content["schema"], body)
        check(document, content["schema"], content["example"])
        with pytest.raises(jsonschema.ValidationError):
            check(document, content["schema"], body | {"temperature": 3})


async def test_the_limits_are_those_of_the_configuration(start: Start) -> None:
    server = await start(max_body_bytes=54321)
    document = await described(server)
    assert "54321" in document["paths"]["/v1/completions"]["post"]["responses"]["413"]["description"]
