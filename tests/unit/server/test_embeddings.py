"""Embeddings over HTTP: answers, refusals, and clients that go away."""

import asyncio
import base64
import struct

import pytest

from inferno_runtime.worker.errors import (
    EncodingFailed,
    EngineError,
    EngineLost,
    EngineUnavailable,
    OutOfMemory,
    Overloaded,
)
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import FakeEngine, vector
from tests.unit.server.test_generation import eventually

pytestmark = pytest.mark.asyncio

BODY = {"model": "fake", "input": ["Hi", "you"]}


async def embedding_server(start: Start, **fields: object) -> Running:
    return await start(FakeEngine(task="embed"), **fields)


async def test_vectors_in_the_order_of_the_inputs(start: Start) -> None:
    server = await embedding_server(start)
    response = await server.client.post("/v1/embeddings", json=BODY)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": vector(b"Hi")},
            {"object": "embedding", "index": 1, "embedding": vector(b"you")},
        ],
        "model": "fake",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


async def test_base64_and_fewer_dimensions(start: Start) -> None:
    server = await embedding_server(start)
    body = {**BODY, "encoding_format": "base64", "dimensions": 2}
    data = (await server.client.post("/v1/embeddings", json=body)).json()["data"]
    assert [struct.unpack("<2f", base64.b64decode(item["embedding"])) for item in data] == [
        tuple(vector(text)[:2]) for text in (b"Hi", b"you")
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_is_served_for_one_task(start: Start, stream: bool) -> None:
    server = await start(FakeEngine("writes"), FakeEngine("embeds", task="embed"))
    for path, body in (
        ("/v1/embeddings", {"model": "writes", "input": "Hi"}),
        ("/v1/completions", {"model": "embeds", "prompt": "Hi", "stream": stream}),
        (
            "/v1/chat/completions",
            {"model": "embeds", "messages": [{"role": "user", "content": "Hi"}], "stream": stream},
        ),
    ):
        response = await server.client.post(path, json=body)
        assert response.status_code == 400
        assert (error_of(response)["param"], error_of(response)["code"]) == ("model", "unsupported_task")
    assert (await server.client.post("/v1/embeddings", json={"model": "embeds", "input": "Hi"})).status_code == 200


@pytest.mark.parametrize(("truncate", "status"), [(None, 200), (True, 200), (False, 400)])
async def test_inputs_that_are_too_long_are_truncated_where_that_is_configured(
    start: Start, truncate: bool | None, status: int
) -> None:
    server = await embedding_server(start, overlongInputs="truncate")
    response = await server.client.post("/v1/embeddings", json={**BODY, "input": "x" * 600, "truncate": truncate})
    assert response.status_code == status
    if status == 200:
        assert response.json()["usage"]["prompt_tokens"] == server.engine.context == 512
    else:
        message = str(error_of(response)["message"])
        assert "512" in message
        assert "600" in message


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (Overloaded("Full."), 503, "server_error", "overloaded"),
        (OutOfMemory("Too long."), 507, "server_error", "out_of_memory"),
        (EngineUnavailable("Gone."), 503, "server_error", "engine_unavailable"),
        (EngineLost("Lost."), 500, "server_error", "engine_restarted"),
        (EncodingFailed("Failed."), 500, "server_error", "encoding_failed"),
    ],
)
@pytest.mark.parametrize("where", ["refuses", "fails"])
async def test_an_engine_that_cannot(
    start: Start, error: EngineError, status: int, kind: str, code: str, where: str
) -> None:
    server = await embedding_server(start)
    setattr(server.engine, where, error)
    response = await server.client.post("/v1/embeddings", json=BODY)
    assert response.status_code == status
    assert (error_of(response)["type"], error_of(response)["code"]) == (kind, code)
    assert ("retry-after" in response.headers) is (status == 503)


async def test_the_time_limit(start: Start) -> None:
    server = await embedding_server(start, inference_timeout_seconds=1)
    server.engine.resume.clear()
    response = await server.client.post("/v1/embeddings", json=BODY)
    assert (response.status_code, error_of(response)["type"]) == (504, "timeout_error")
    assert server.engine.cancelled == [1]


async def test_a_client_that_goes_away(start: Start) -> None:
    server = await embedding_server(start)
    server.engine.resume.clear()
    request = asyncio.create_task(server.client.post("/v1/embeddings", json=BODY))
    await eventually(lambda: server.engine.submitted)
    request.cancel()
    await eventually(lambda: server.engine.cancelled == [1])
    await eventually(lambda: not server.context.in_flight)
    assert b'endpoint="embeddings",model_name="fake",status="499"' in server.context.metrics.text()


async def test_a_server_that_drains_ends_what_it_has_begun(start: Start) -> None:
    server = await embedding_server(start)
    server.engine.resume.clear()
    running = asyncio.create_task(server.client.post("/v1/embeddings", json=BODY))
    await eventually(lambda: server.engine.submitted)
    server.context.registry.draining = True
    refused = await server.client.post("/v1/embeddings", json=BODY)
    assert (refused.status_code, error_of(refused)["code"]) == (503, "engine_unavailable")
    server.engine.resume.set()
    assert (await running).status_code == 200


async def test_a_large_body_is_worked_on_in_a_thread(start: Start) -> None:
    server = await embedding_server(start)
    response = await server.client.post("/v1/embeddings", json={**BODY, "input": ["x" * 8000] * 20})
    assert (response.status_code, error_of(response)["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("method", "body", "status", "code"),
    [
        ("GET", None, 405, "method_not_allowed"),
        ("POST", {"model": "nobody", "input": "a"}, 404, "model_not_found"),
        ("POST", {"model": "fake", "input": ""}, 400, "invalid_value"),
    ],
)
async def test_what_is_refused(start: Start, method: str, body: object, status: int, code: str) -> None:
    server = await embedding_server(start)
    response = await server.client.request(method, "/v1/embeddings", json=body)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


async def test_it_is_counted(start: Start) -> None:
    server = await embedding_server(start)
    await server.client.post("/v1/embeddings", json=BODY)
    lines = (await server.client.get("/metrics")).text.splitlines()
    for line in (
        'inferno_requests_total{endpoint="embeddings",model_name="fake",status="200"} 1.0',
        'inferno_request_success_total{finished_reason="stop",model_name="fake"} 2.0',
        'inferno_prompt_tokens_total{model_name="fake"} 5.0',
        'inferno_e2e_request_latency_seconds_count{model_name="fake"} 1.0',
        'inferno_request_queue_time_seconds_count{model_name="fake"} 1.0',
        'inferno_request_prompt_tokens_count{model_name="fake"} 2.0',
    ):
        assert line in lines
    assert (await server.client.get("/health")).json()["task"] == "embed"
