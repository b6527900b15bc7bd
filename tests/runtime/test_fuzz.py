"""Whatever is sent to it, the server answers as it is documented to, and serves on.

The same examples are made at every run, and not by time.
"""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferno_runtime.openai.embeddings import EmbeddingsRequest
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest
from tests.runtime.counters import nothing_lost
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.raw import (
    CLOSE,
    GOOD,
    PING,
    PONG,
    TEXT,
    Answer,
    WebSocket,
    answers,
    ask,
    checked,
    connect,
    frame,
    get,
    head,
    read,
    request,
    unharmed,
)
from tests.runtime.strategies import ANYTHING, FRAMES, HEADERS, bodies, damaged, queries, struct

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": MODEL, "messages": MESSAGES, "max_tokens": 2}
COMPLETION = {"model": MODEL, "prompt": "x", "max_tokens": 2}
# What a client can bring about, and nothing of the server's own fault.
STATUSES = {200, 204, 400, 401, 403, 404, 405, 413, 415, 426, 431}


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        # The server is the same for all examples, which is the point.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    # Small answers, however many are asked for.
    with ServerProcess("--context-length", "64", "--max-sequences", "4") as process:
        # The process that compiles grammars stays from its first one on.
        process.chat(response_format={"type": "json_object"}, max_tokens=1)
        yield process


@pytest.fixture(autouse=True)
def _unharmed(server: ServerProcess) -> Iterator[None]:
    with unharmed(server), nothing_lost(server):
        yield


def assert_documented(answer: Answer) -> None:
    assert answer.status in STATUSES, answer
    if "content-encoding" in answer.headers:
        return  # a client that says so may have it in any
    kind = answer.headers.get("content-type", "")
    if answer.status >= 400:
        assert kind == "application/json"
        assert answer.error
    elif kind.startswith("text/event-stream"):
        assert all(re.match(rb"data: |event: |id: |: |$", line) for line in answer.body.split(b"\n"))
        assert re.search(rb"(data: \[DONE\]|event: complete\ndata: .+)\n\n$", answer.body)
    elif kind == "application/json":
        json.loads(answer.body)


@examples(300)
@given(data=bodies(ChatRequest, CHAT))
def test_chats(server: ServerProcess, data: bytes) -> None:
    assert_documented(ask(server, request(data, path="/v1/chat/completions")))


@examples(300)
@given(data=bodies(CompletionRequest, COMPLETION))
def test_completions(server: ServerProcess, data: bytes) -> None:
    assert_documented(ask(server, request(data)))


@examples(300)
@given(data=bodies(CompletionRequest, COMPLETION) | bodies(ChatRequest, CHAT))
def test_streams(server: ServerProcess, data: bytes) -> None:
    assert_documented(ask(server, request(data, path="/stream/sse")))


@examples(100)
@given(data=bodies(EmbeddingsRequest, {"model": MODEL, "input": "x"}))
def test_embeddings(server: ServerProcess, data: bytes) -> None:
    assert_documented(ask(server, request(data, path="/v1/embeddings")))


PATHS = st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/stream/sse"])


@examples(200)
@given(path=PATHS, data=ANYTHING.map(json.dumps).map(str.encode) | st.binary(max_size=40))
def test_bodies_of_anything(server: ServerProcess, path: str, data: bytes) -> None:
    assert_documented(ask(server, request(data, path=path)))


NAMES = sorted({field.name for kind in (ChatRequest, CompletionRequest) for field in msgspec.structs.fields(kind)})


@examples(300)
@given(query=queries(NAMES), base=st.sampled_from(["", f"model={MODEL}&prompt=x&max_tokens=2&"]))
def test_queries_of_streams(server: ServerProcess, query: str, base: str) -> None:
    assert_documented(ask(server, get(f"/v1/stream/sse?{base}{query}")))


MONITORING = st.sampled_from(
    ["/metrics/profiles/recent", "/metrics/profiles/stats", "/metrics/queue/status", "/health"]
)


@examples(100)
@given(path=MONITORING, query=queries(["model", "window", "limit"]))
def test_queries_of_questions(server: ServerProcess, path: str, query: str) -> None:
    assert_documented(ask(server, get(f"{path}?{query}")))


def exchange_and_stop(server: ServerProcess, data: bytes) -> bytes:
    """Send bytes, and that no more will come: the server must not wait for a body that was promised."""
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return read(connection)
    return b""


@examples(500)
@given(lines=HEADERS, path=st.sampled_from(["/v1/models", "/v1/completions", "/stream/sse?prompt=x", "/openapi.json"]))
def test_headers(server: ServerProcess, lines: list[str], path: str) -> None:
    method = "GET" if path != "/v1/completions" else "POST"
    for answer in answers(exchange_and_stop(server, head(*lines, method=method, path=path))):
        assert_documented(answer)


@examples(300)
@given(data=damaged(request(GOOD, "Accept-Encoding: gzip", "X-Request-Id: a")) | damaged(get("/v1/models?a=b")))
def test_requests_that_were_damaged_on_their_way(server: ServerProcess, data: bytes) -> None:
    for answer in answers(exchange_and_stop(server, data)):
        assert_documented(answer)


@examples(100)
@given(data=st.binary(max_size=100))
def test_bytes(server: ServerProcess, data: bytes) -> None:
    for answer in answers(exchange_and_stop(server, data + b"\r\n\r\n")):
        assert_documented(answer)


MESSAGE: st.SearchStrategy[Any] = st.builds(
    lambda base, more: base | more,
    st.sampled_from(
        [
            {},
            {"type": "ping"},
            {"type": "cancel", "request_id": "a"},
            {"type": "ack", "request_id": "a", "received": 1},
            {"type": "inference", "id": "a", "model": MODEL, "prompt": "x", "params": {"max_tokens": 2}},
            {"type": "inference", "id": "b", "model": MODEL, "messages": MESSAGES, "params": {"max_tokens": 2}},
        ]
    ),
    st.dictionaries(
        st.sampled_from(
            ["type", "id", "request_id", "received", "model", "prompt", "messages", "priority", "flow_control"]
        ),
        ANYTHING,
        max_size=1,
    )
    | st.fixed_dictionaries({"params": struct(CompletionRequest)}),
)


@examples(150)
@given(messages=st.lists(MESSAGE | ANYTHING, max_size=5))
def test_messages(server: ServerProcess, messages: list[Any]) -> None:
    client = WebSocket(server)
    with contextlib.closing(client):
        for fields in messages:
            client.send(frame(TEXT, json.dumps(fields).encode()))
        client.send(frame(PING, b"last"))
        while (received := client.receive()) != (PONG, b"last"):
            opcode, payload = received
            assert opcode == TEXT, received
            message = json.loads(payload)
            assert message["type"] in ("start", "token", "complete", "backpressure", "error", "pong")
            if message["type"] == "error":
                assert checked(message["error"])["type"] != "server_error", message


@examples(300)
@given(frames=FRAMES)
def test_frames(server: ServerProcess, frames: list[bytes]) -> None:
    client = WebSocket(server)
    with contextlib.closing(client):
        with contextlib.suppress(ConnectionError):  # it may have closed before the last
            for data in frames:
                client.send(data)
            client.send(frame(PING, b"last"))
        while (received := client.receive()) != (PONG, b"last"):
            opcode, payload = received
            assert opcode in (TEXT, PONG, CLOSE), received
            if opcode == CLOSE:
                assert payload in (b"", *(code.to_bytes(2, "big") for code in (1000, 1002, 1007)))
                break
