"""`/v1/responses` and `/v1/messages` go the way of every request: keys, limits, priorities, troubles and ends are the same."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferno_runtime.engine.request import Priority
from inferno_runtime.worker.errors import EngineLost, Overloaded
from tests.unit.server.conftest import Running, Start

pytestmark = pytest.mark.asyncio

BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "fake", "input": "Hi"},
    "/v1/messages": {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 99},
}
both = pytest.mark.parametrize("path", BODIES)


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def code_of(response: httpx.Response) -> str:
    body = response.json()
    assert (body.get("type") == "error") == (response.request.url.path == "/v1/messages")
    return str(body["error"]["code"])


@both
async def test_keys_and_what_they_allow(start: Start, tmp_path: Path, path: str) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {name: one, key: sk-one, priority: low}\n- {name: two, key: sk-two, models: [other]}\n")
    server = await start(keys_file=str(keys))

    async def ask(headers: dict[str, str], **fields: Any) -> httpx.Response:
        return await server.client.post(path, json={**BODIES[path], **fields}, headers=headers)

    assert code_of(await ask({})) == "missing_api_key"
    assert code_of(await ask({"x-api-key": "sk-none"})) == "invalid_api_key"
    assert code_of(await ask({"x-api-key": "sk-two"})) == "model_not_allowed"
    assert code_of(await ask({"x-api-key": "sk-one"}, priority="vip")) == "priority_not_allowed"
    assert (await ask({"x-api-key": "sk-one", "anthropic-version": "2023-06-01"})).status_code == 200
    assert (await ask({"Authorization": "Bearer sk-one"})).status_code == 200
    assert server.engine.submitted[-1]["priority"] is Priority.LOW


@both
async def test_limits(start: Start, path: str) -> None:
    server = await start(tokens_per_minute=200)
    first = await server.client.post(path, json=BODIES[path])
    assert first.status_code == 200
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 200
    long = {**BODIES[path], **({"input": "x" * 300} if path == "/v1/responses" else {"system": "x" * 300})}
    refused = await server.client.post(path, json=long)
    assert (refused.status_code, code_of(refused)) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) > 0


@both
@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue_is_told_before_anything_is_sent(server: Running, path: str, stream: bool) -> None:
    server.engine.refuses = Overloaded("The queue is full.")
    response = await server.client.post(path, json={**BODIES[path], "stream": stream})
    assert (response.status_code, code_of(response)) == (503, "overloaded")


@both
async def test_an_engine_that_dies_in_a_stream(server: Running, path: str) -> None:
    server.engine.fails = EngineLost("The engine died.")
    response = await server.client.post(path, json={**BODIES[path], "stream": True})
    assert response.status_code == 200
    events = events_of(response.text)
    if path == "/v1/messages":
        assert events[-1]["type"] == "error"
        assert events[-1]["error"]["type"] == "api_error"
        assert events[-1]["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
        return
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2]["code"] == "engine_restarted"
    assert events[-1]["response"]["status"] == "failed"
    gone = await server.client.get(f"{path}/{events[-1]['response']['id']}")
    assert gone.status_code == 404


@both
async def test_a_client_that_goes_ends_its_sequence(server: Running, path: str) -> None:
    server.engine.says = "x" * 400
    body = {**BODIES[path], "stream": True}
    async with server.client.stream("POST", path, json=body) as response:
        await anext(response.aiter_lines())
        server.engine.resume.clear()
    async with asyncio.timeout(30):
        while not server.engine.cancelled:
            await asyncio.sleep(0.01)
    assert server.engine.cancelled == [1]
    assert len(server.context.responses) == 0


@both
async def test_silence(start: Start, path: str) -> None:
    server = await start(keep_alive_seconds=1)
    server.engine.resume.clear()
    async with server.client.stream("POST", path, json={**BODIES[path], "stream": True}) as response:
        first = await anext(response.aiter_lines())
        server.engine.resume.set()
    assert first == ("event: ping" if path == "/v1/messages" else ": waiting")


@pytest.mark.parametrize(
    ("settings", "fields", "kept"),
    [({}, {}, True), ({}, {"store": False}, False), ({"stored_responses": 0}, {}, False)],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_kept(
    start: Start, settings: dict[str, int], fields: dict[str, Any], kept: bool, stream: bool
) -> None:
    server = await start(**settings)
    body = {**BODIES["/v1/responses"], **fields, "stream": stream}
    answer = await server.client.post("/v1/responses", json=body)
    response = events_of(answer.text)[-1]["response"] if stream else answer.json()
    assert response["store"] is kept
    again = await server.client.get(f"/v1/responses/{response['id']}")
    assert (again.json() == response) if kept else (again.status_code == 404)


NESTED: Any = {}
for _ in range(400):
    NESTED = {"a": NESTED}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/responses", {"tools": [{"type": "function", "name": "a", "parameters": NESTED}]}),
        ("/v1/responses", {"tool_choice": NESTED}),
        ("/v1/messages", {"tools": [{"name": "a", "input_schema": NESTED}]}),
        (
            "/v1/messages",
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "a", "input": NESTED}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]},
                ]
            },
        ),
    ],
)
async def test_what_nests_deep_is_refused_or_read(server: Running, path: str, fields: dict[str, Any]) -> None:
    response = await server.client.post(path, json={**BODIES[path], **fields})
    assert response.status_code in (200, 400), response.text


async def test_tokens_are_counted_and_nothing_is_generated(server: Running) -> None:
    counted = await server.client.post("/v1/responses/input_tokens", json=BODIES["/v1/responses"])
    message = {name: BODIES["/v1/messages"][name] for name in ("model", "messages")}
    same = await server.client.post("/v1/messages/count_tokens", json=message)
    assert not server.engine.submitted
    answer = await server.client.post("/v1/responses", json=BODIES["/v1/responses"])
    tokens = answer.json()["usage"]["input_tokens"]
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": tokens}
    assert same.json() == {"input_tokens": tokens}
