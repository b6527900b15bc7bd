"""Server-sent events from a real model."""

import json
import os
import signal
import socket
from typing import Any

import httpx
import pytest

from tests.runtime.process import MODEL, ServerProcess, eventually, is_alive

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


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
def test_a_chat_says_what_the_chat_endpoint_says(server: ServerProcess, path: str) -> None:
    fields = {"temperature": "0", "max_tokens": "20"}
    response = server.client.get(path, params={"model": MODEL, "messages": json.dumps(QUESTION), **fields})
    events = events_of(response.text)
    whole = server.chat(temperature=0, max_tokens=20).json()
    assert said(events) == whole["choices"][0]["message"]["content"]
    name, complete = events[-1]
    assert name == "complete"
    assert complete["total_tokens"] == whole["usage"]["completion_tokens"]
    assert complete["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert complete["finish_reason"] == whole["choices"][0]["finish_reason"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_raw_prompt_with_every_knob(server: ServerProcess, method: str) -> None:
    fields: dict[str, Any] = {
        "model": MODEL,
        "prompt": "Once upon a time",
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": 20,
        "min_p": 0.01,
        "max_tokens": 40,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "seed": 7,
        "ignore_eos": True,
    }
    if method == "GET":
        query = fields | {"ignore_eos": "true"}
        response = server.client.get("/v1/stream/sse", params=query)
    else:
        response = server.client.post("/v1/stream/sse", json=fields)
    events = events_of(response.text)
    whole = server.client.post("/v1/completions", json=fields).json()
    assert said(events) == whole["choices"][0]["text"]
    assert events[-1][1]["total_tokens"] == 40
    indices = [data["index"] for name, data in events if name == "token"]
    assert indices[0] == 0
    assert indices == sorted(set(indices))
    assert indices[-1] < 40


def test_a_query_that_is_wrong(server: ServerProcess) -> None:
    response = server.client.get("/v1/stream/sse", params={"model": MODEL, "prompt": "x", "temperature": "hot"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "temperature")


def test_the_prompt_is_not_logged(server: ServerProcess) -> None:
    server.client.get(
        "/v1/stream/sse",
        params={"model": MODEL, "prompt": "a most secret prompt", "max_tokens": "1"},
        headers={"X-Request-Id": "sse-log"},
    )
    eventually(lambda: "sse-log" in server.log, "the request is logged")
    assert "most secret" not in server.log


def test_a_client_that_goes_frees_its_slot(server: ServerProcess) -> None:
    params = {"model": MODEL, "prompt": "Once", "max_tokens": "900", "ignore_eos": "true"}
    with httpx.stream("GET", f"{server.url}/stream/sse", params=params, timeout=60, trust_env=False) as response:
        lines = response.iter_lines()
        next(lines)
        eventually(lambda: server.active() == 1, "the stream is active")
    eventually(lambda: server.active() == 0, "its slot is free")


def test_a_reader_that_stops_frees_its_slot() -> None:
    with ServerProcess("--context-length", "100000", "--ack-timeout-seconds", "1", "--token-batch-size", "1") as server:
        body = {"model": MODEL, "prompt": "Once", "max_tokens": 90_000, "ignore_eos": True}
        data = json.dumps(body).encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(
                b"POST /v1/stream/sse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data
            )
            eventually(lambda: server.active() == 1, "the stream is active")
            eventually(lambda: server.active() == 0, "its slot is free")
        eventually(lambda: "client_stalled" in server.log, "the log says why")


def test_an_engine_that_stands_still_costs_its_streams_an_error_and_is_started_again() -> None:
    with ServerProcess("--token-timeout-seconds", "1", "--stall-seconds", "5") as server:
        engine = server.engine_pid()
        params = {"model": MODEL, "prompt": "Once", "max_tokens": "900", "ignore_eos": "true"}
        with httpx.stream("GET", f"{server.url}/stream/sse", params=params, timeout=60, trust_env=False) as response:
            text = ""
            for piece in response.iter_text():
                if not text:
                    os.kill(engine, signal.SIGSTOP)
                text += piece
        assert events_of(text)[-1][1]["error"]["code"] == "token_timeout"
        # Nobody waits for it any more, and it owes an answer all the same.
        eventually(lambda: not is_alive(engine), "the engine was ended")
        assert server.complete("x", max_tokens=1).status_code == 200
