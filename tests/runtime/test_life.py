"""Clients that go, engines that die, servers that end: nobody else notices, and everybody gets an answer."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.runtime.process import MODEL, ServerProcess, eventually, is_alive

LONG = {"model": MODEL, "prompt": "Once", "max_tokens": 900, "ignore_eos": True, "stream": True, "temperature": 0}


class Streams:
    """Long streams that run in threads; each keeps its events."""

    def __init__(self, server: ServerProcess, count: int, **fields: object) -> None:
        self.events: list[list[Any]] = [[] for _ in range(count)]
        self.statuses: list[int] = [0] * count
        self._server = server
        self._body = LONG | fields
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()
        eventually(lambda: all(self.events), "every stream has begun")

    def _read(self, number: int) -> None:
        url = f"{self._server.url}/completions"
        with httpx.stream("POST", url, json=self._body, timeout=120, trust_env=False) as response:
            self.statuses[number] = response.status_code
            for line in response.iter_lines():
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    self.events[number].append(data if data == "[DONE]" else json.loads(data))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


def test_a_client_that_goes_frees_its_slot(server: ServerProcess) -> None:
    with httpx.stream("POST", f"{server.url}/completions", json=LONG, timeout=60, trust_env=False) as response:
        lines = response.iter_lines()  # kept, since a generator that is dropped closes the response
        next(lines)
        eventually(lambda: server.active() == 1, "the stream is active")
    eventually(lambda: server.active() == 0, "its slot is free")


def test_a_client_that_goes_before_the_whole_answer_frees_its_slots(server: ServerProcess) -> None:
    body = json.dumps(LONG | {"stream": False, "prompt": ["a", "b", "c"]}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: server.active() == 3, "the request is active")
    eventually(lambda: server.active() == 0, "its slots are free")


def test_an_engine_that_is_killed(own_server: ServerProcess) -> None:
    engine = own_server.engine_pid()
    streams = Streams(own_server, 8)
    os.kill(engine, signal.SIGKILL)
    streams.join()
    for events in streams.events:
        error = events[-1]["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("server_error", "engine_restarted")
    answer = own_server.chat(temperature=0)
    assert answer.status_code == 200
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]
    assert own_server.engine_pid() != engine
    assert f'inferno_engine_restarts_total{{model_name="{MODEL}"}} 1.0' in own_server.client.get("/metrics").text
    eventually(lambda: own_server.client.get("/health/ready").status_code == 200, "the server is ready again")


def test_who_has_no_token_yet_does_not_notice_that_an_engine_is_killed() -> None:
    with ServerProcess("--slots", "1") as server:
        streams = Streams(server, 1)
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(server.complete, "The capital of France", max_tokens=4) for _ in range(3)]
            eventually(lambda: server.metric("num_requests_waiting") == 3, "the others wait")
            os.kill(server.engine_pid(), signal.SIGKILL)
            answers = [each.result() for each in waiting]
        streams.join()
        assert streams.events[0][-1]["error"]["code"] == "engine_restarted"
        assert [answer.status_code for answer in answers] == [200] * 3
        assert server.metric("num_requests_resubmitted_total") == 3
        assert "requests without a token that begin anew: 3" in server.log


def test_sigterm_lets_streams_end(own_server: ServerProcess) -> None:
    engine = own_server.engine_pid()
    streams = Streams(own_server, 8, max_tokens=400)
    own_server.signal(signal.SIGTERM)
    eventually(lambda: own_server.client.get("/health/ready").status_code == 503, "the server is draining")
    refused = own_server.complete("x")
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "engine_unavailable"
    assert refused.headers["connection"] == "close"
    assert int(refused.headers["retry-after"]) > 0
    assert own_server.client.get("/health/live").status_code == 200
    streams.join()
    assert own_server.wait() == 0
    assert not is_alive(engine)
    assert streams.statuses == [200] * 8
    for events in streams.events:
        assert events[-1] == "[DONE]"
        assert events[-2]["choices"][0]["finish_reason"] == "length"


def test_sigterm_ends_streams_that_take_too_long() -> None:
    with ServerProcess("--drain-seconds", "0") as server:
        streams = Streams(server, 2)
        server.signal(signal.SIGTERM)
        streams.join()
        assert server.wait() == 0
        for events in streams.events:
            assert events[-1]["error"]["code"] == "engine_unavailable"


def test_a_second_interrupt_does_not_wait() -> None:
    with ServerProcess() as server:
        streams = Streams(server, 2)
        server.signal(signal.SIGINT)
        eventually(lambda: server.client.get("/health/ready").status_code == 503, "the server is draining")
        server.signal(signal.SIGINT)
        streams.join()
        assert server.wait() == 0
        assert all(events[-1] != "[DONE]" for events in streams.events)


def test_an_idle_server_ends_at_once(own_server: ServerProcess) -> None:
    engine = own_server.engine_pid()
    own_server.signal(signal.SIGTERM)
    assert own_server.wait() == 0
    assert not is_alive(engine)


def test_the_time_limit() -> None:
    with ServerProcess("--inference-timeout-seconds", "1", "--context-length", "100000") as server:
        body = {key: value for key, value in LONG.items() if key != "model"} | {"max_tokens": 90_000, "stream": False}
        response = server.complete(body.pop("prompt"), **body)
        assert response.status_code == 504
        assert response.json()["error"]["type"] == "timeout_error"
        eventually(lambda: server.active() == 0, "the slot is free")


def test_a_full_queue() -> None:
    with ServerProcess("--slots", "1", "--max-queue", "0") as server:
        streams = Streams(server, 1)
        response = server.complete("x")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
        assert int(response.headers["retry-after"]) > 0
        streams.join()
        assert server.complete("x", max_tokens=1).status_code == 200


def test_logs_have_the_requests_id_and_not_the_prompt(server: ServerProcess) -> None:
    server.client.post(
        "/v1/completions",
        json={"model": MODEL, "prompt": "a most private prompt", "max_tokens": 1},
        headers={"X-Request-Id": "find-me"},
    )
    eventually(lambda: "find-me" in server.log, "the request is logged")  # which happens after the answer has left
    lines = [json.loads(line) for line in server.log.splitlines()]
    (line,) = [line for line in lines if line["request_id"] == "find-me"]
    assert (line["status"], line["path"], line["completion_tokens"]) == (200, "/v1/completions", 1)
    assert "private" not in server.log
