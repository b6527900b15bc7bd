"""`/v1/stream/sse` on a real socket, over a fake engine."""

import asyncio
import json
from typing import Any

import pytest

from inferno_runtime.worker.errors import EngineLost, Overloaded
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import FakeEngine
from tests.unit.server.test_generation import eventually

pytestmark = pytest.mark.asyncio

ASK = {"model": "fake", "prompt": "Hi"}
TOKENS = 30_000  # whose events no socket takes at once


def events_of(text: str) -> list[tuple[str, Any]]:
    """The name and the data of every event."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def said(events: list[tuple[str, Any]]) -> str:
    return "".join(data["token"] for name, data in events if name == "token")


@pytest.mark.parametrize("path", ["/v1/stream/sse", "/stream/sse"])
async def test_a_prompt_in_the_query(server: Running, path: str) -> None:
    response = await server.client.get(path, params=ASK | {"temperature": "0", "max_tokens": "5"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    events = events_of(response.text)
    assert said(events) == "Hello"
    assert [data["index"] for name, data in events if name == "token"] == [0, 1, 4]
    assert events[-1] == (
        "complete",
        {
            "total_tokens": 5,
            "finish_reason": "length",
            "usage": {
                "prompt_tokens": 2,
                "completion_tokens": 5,
                "total_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
        },
    )
    assert server.engine.submitted[0]["prompt"] == list(b"Hi")
    assert server.engine.submitted[0]["sampling"].temperature == 0  # type: ignore[attr-defined]


async def test_messages_in_the_query_are_chat(server: Running) -> None:
    messages = json.dumps([{"role": "user", "content": "Hi"}])
    chat = await server.client.get("/v1/stream/sse", params={"model": "fake", "messages": messages})
    assert said(events_of(chat.text)) == "Hello, world"
    await server.chat("Hi")
    assert server.engine.submitted[0]["prompt"] == server.engine.submitted[1]["prompt"]


@pytest.mark.parametrize("body", [ASK, {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}])
async def test_a_body(server: Running, body: dict[str, Any]) -> None:
    response = await server.client.post("/v1/stream/sse", json=body | {"stream": False})
    assert said(events_of(response.text)) == "Hello, world"


async def test_the_index_counts_tokens_and_not_characters(start: Start) -> None:
    server = await start(FakeEngine(says="a👩é"), token_batch_size=1)
    events = events_of((await server.client.get("/stream/sse", params=ASK)).text)
    assert [(data["token"], data["index"]) for name, data in events if name == "token"] == [
        ("a", 0),
        ("👩", 1),
        ("é", 5),
    ]


@pytest.mark.parametrize(
    ("params", "status", "param"),
    [
        ({}, 400, "prompt"),
        ({"model": "fake"}, 400, "prompt"),
        ({"prompt": "x"}, 400, "model"),
        (ASK | {"temperature": "9"}, 400, "temperature"),
        (ASK | {"messages": "[]"}, 400, "prompt"),
        (ASK | {"model": "other"}, 404, "model"),
        (ASK | {"prompt": "x" * 600}, 400, "prompt"),
    ],
)
async def test_a_wrong_query(server: Running, params: dict[str, str], status: int, param: str) -> None:
    response = await server.client.get("/v1/stream/sse", params=params)
    assert (response.status_code, error_of(response)["param"]) == (status, param)


async def test_a_body_of_another_type(server: Running) -> None:
    response = await server.client.post("/v1/stream/sse", content=b"a=b", headers={"Content-Type": "text/plain"})
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


async def test_head_generates_nothing(server: Running) -> None:
    response = await server.client.head("/v1/stream/sse", params=ASK)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert not server.engine.submitted


async def test_other_methods(server: Running) -> None:
    response = await server.client.put("/v1/stream/sse")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_an_error_before_the_first_event_has_its_status(server: Running) -> None:
    server.engine.refuses = Overloaded("Full.")
    response = await server.client.get("/v1/stream/sse", params=ASK)
    assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")


async def test_an_error_after_it_is_an_event(server: Running) -> None:
    server.engine.fails = EngineLost("Lost.")
    events = events_of((await server.client.get("/v1/stream/sse", params=ASK)).text)
    assert said(events) == "Hello, world"
    assert events[-1] == (
        "error",
        {"error": {"message": "Lost.", "type": "server_error", "param": None, "code": "engine_restarted"}},
    )


async def test_silence_is_filled_with_comments(start: Start) -> None:
    server = await start(keep_alive_seconds=1)
    server.engine.resume.clear()
    text = ""
    async with server.client.stream("GET", "/v1/stream/sse", params=ASK) as response:
        async for piece in response.aiter_text():
            text += piece
            server.engine.resume.set()
    assert text.startswith(": waiting\n\n")
    assert said(events_of(text)) == "Hello, world"


async def test_an_event_source_that_connects_again(server: Running) -> None:
    """As a browser does it: the id of the last event is sent back."""
    text = (await server.client.get("/v1/stream/sse", params=ASK)).text
    ids = [line.removeprefix("id: ") for line in text.splitlines() if line.startswith("id: ")]
    cut, ended = ids
    response = await server.client.get("/v1/stream/sse", params=ASK, headers={"Last-Event-ID": ended})
    assert (response.status_code, response.content) == (204, b"")
    response = await server.client.get("/v1/stream/sse", params=ASK, headers={"Last-Event-ID": cut})
    assert (response.status_code, error_of(response)["code"]) == (400, "stream_not_resumable")
    assert error_of(response)["param"] == "Last-Event-ID"
    assert len(server.engine.submitted) == 1


async def test_pages_of_other_origins(start: Start) -> None:
    server = await start(allowed_origins=("https://friend.example",))
    friend = await server.client.get("/v1/stream/sse", params=ASK, headers={"Origin": "https://friend.example"})
    assert friend.status_code == 200
    assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    assert "Origin" in friend.headers["vary"]
    other = await server.client.get("/v1/stream/sse", params=ASK, headers={"Origin": "https://other.example"})
    assert (other.status_code, error_of(other)["type"]) == (403, "permission_error")
    image = await server.client.get("/v1/stream/sse", params=ASK, headers={"Sec-Fetch-Site": "cross-site"})
    assert image.status_code == 403
    assert len(server.engine.submitted) == 1


async def test_a_client_that_goes_away(server: Running) -> None:
    server.engine.resume.clear()
    request = asyncio.create_task(server.client.get("/v1/stream/sse", params=ASK))
    await eventually(lambda: server.engine.submitted)
    request.cancel()
    await eventually(lambda: server.engine.cancelled == [1])
    await eventually(lambda: not server.context.in_flight)


async def raw_stream(server: Running, **fields: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream whose client reads when it is told to, and whose socket takes little by itself."""
    body = json.dumps({"model": "fake", "prompt": "x", "stream": True, **fields}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readline()
    return reader, writer


async def test_a_slow_reader_pauses_its_sequence(start: Start) -> None:
    server = await start(FakeEngine(says="x" * TOKENS), token_batch_size=1)
    server.engine.context = 2 * TOKENS
    reader, writer = await raw_stream(server, max_tokens=TOKENS)
    await eventually(lambda: server.engine.pauses == [(1, True)])
    text = bytearray()
    while b"[DONE]" not in text[-100:]:
        text += await reader.read(1 << 16)
    assert text.count(b'"text":"') > 100
    said_ = [piece.split(b'"', 1)[0] for piece in bytes(text).split(b'"text":"')[1:]]
    assert b"".join(said_) == b"x" * TOKENS
    assert server.engine.pauses[-1] == (1, False)
    writer.close()


async def test_a_reader_that_stops_is_given_up(start: Start) -> None:
    server = await start(FakeEngine(says="x" * TOKENS), token_batch_size=1, ack_timeout_seconds=1)
    server.engine.context = 2 * TOKENS
    _, writer = await raw_stream(server, max_tokens=TOKENS)
    await eventually(lambda: server.engine.cancelled == [1])
    await eventually(lambda: not server.context.in_flight)
    writer.close()


async def test_a_token_that_does_not_come(start: Start) -> None:
    server = await start(FakeEngine(says="x" * 400), token_timeout_seconds=1, token_batch_size=1)
    async with server.client.stream("GET", "/v1/stream/sse", params=ASK) as response:
        text = ""
        async for piece in response.aiter_text():
            server.engine.resume.clear()
            text += piece
    assert events_of(text)[-1][0] == "error"
    assert events_of(text)[-1][1]["error"]["code"] == "token_timeout"
    assert server.engine.cancelled == [1]


async def test_a_server_that_drains(server: Running) -> None:
    server.context.registry.draining = True
    response = await server.client.get("/v1/stream/sse", params=ASK)
    assert response.status_code == 503
