"""Priorities: how they are asked for, and what they are worth in a queue."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from inferno_runtime.engine.request import Priority
from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.trouble import ONE_SLOT, occupied, queued
from tests.conformance.wire import QUESTION, STORY, Socket, error_of
from tests.runtime.process import MODEL, ServerProcess, eventually

PRIORITIES = ["vip", "high", "normal", "low"]


@pytest.fixture(scope="module")
def single(serve: Serve) -> Iterator[ServerProcess]:
    """A server with one slot, for which all wait."""
    with serve(*ONE_SLOT) as server:
        yield server


def served_at(server: ServerProcess, request_id: str) -> str:
    """The priority that a request was served at."""

    def mine() -> list[str]:
        profiles = server.client.get("/metrics/profiles/recent").json()["profiles"]
        return [profile["priority"] for profile in profiles if profile["request_id"] == request_id]

    eventually(lambda: bool(mine()), "its profile is there")
    (priority,) = mine()
    return priority


@covers("priorities.body", "priorities.header", "matrix.extensions.queue")
@pytest.mark.parametrize("priority", PRIORITIES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/stream/sse"])
def test_in_the_body_or_in_a_header(server: ServerProcess, path: str, priority: str) -> None:
    prompt: dict[str, object] = {"messages": QUESTION} if "chat" in path else {"prompt": STORY}
    body = {"model": MODEL, "max_tokens": 1, **prompt}
    in_body = server.client.post(path, json=body | {"priority": priority})
    assert served_at(server, in_body.headers["x-request-id"]) == priority
    in_header = server.client.post(path, json=body, headers={"X-Inferno-Priority": priority})
    assert served_at(server, in_header.headers["x-request-id"]) == priority


@covers("priorities.body", "priorities.header")
@pytest.mark.parametrize("priority", PRIORITIES)
def test_on_a_websocket(server: ServerProcess, priority: str) -> None:
    with Socket(server, header={"X-Inferno-Priority": "low"}) as client:
        client.ask(id=f"ws-{priority}", priority=priority, params={"max_tokens": 1})
        client.ask(id=f"ws-header-{priority}", params={"max_tokens": 1})
        for _ in range(2):
            client.until("complete")
    assert served_at(server, f"ws-{priority}") == priority


@covers("priorities.default")
def test_normal_by_default(server: ServerProcess) -> None:
    response = server.complete(STORY, max_tokens=1)
    assert served_at(server, response.headers["x-request-id"]) == "normal"


@covers("priorities.body", "priorities.header", "errors.400")
def test_a_priority_that_is_none(server: ServerProcess) -> None:
    in_body = server.complete(STORY, priority="urgent")
    assert (in_body.status_code, error_of(in_body)["param"]) == (400, "priority")
    body = {"model": MODEL, "prompt": STORY}
    in_header = server.client.post("/v1/completions", json=body, headers={"X-Inferno-Priority": "urgent"})
    assert (in_header.status_code, error_of(in_header)["type"]) == (400, "invalid_request_error")


@covers("priorities.weights")
def test_the_weights() -> None:
    assert [Priority(name).weight for name in PRIORITIES] == [8, 4, 2, 1]


@covers("priorities.weights", "matrix.extensions.queue")
def test_who_waits_is_served_by_weight(single: ServerProcess) -> None:
    def ask(name: str) -> None:
        body = {"model": MODEL, "prompt": STORY, "max_tokens": 1, "priority": name.partition("-")[0]}
        headers = {"X-Request-Id": name}
        httpx.post(
            f"{single.url}/completions", json=body, headers=headers, timeout=60, trust_env=False
        ).raise_for_status()

    # The lowest come first, and all wait until the last has come.
    names = [f"{priority}-{number}" for priority in reversed(PRIORITIES) for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        with occupied(single):
            answers = []
            for count, name in enumerate(names, 1):
                answers.append(pool.submit(ask, name))
                eventually(lambda count=count: queued(single) == count, "it waits")  # type: ignore[misc]
        for answer in answers:
            answer.result()
    eventually(lambda: all(f'"{name}"' in single.log for name in names), "all are logged")
    order = [json.loads(line)["request_id"] for line in single.log.splitlines()]
    served = [name for name in order if name in names]
    # Of the first ones none is low but at most one, and most are the highest.
    first = [name.partition("-")[0] for name in served[:9]]
    assert first.count("vip") > first.count("high") > first.count("low")
    assert served.index("vip-5") < served.index("low-1")


@covers("priorities.ageing")
def test_none_waits_for_ever(single: ServerProcess) -> None:
    body = {"model": MODEL, "prompt": STORY, "max_tokens": 20, "ignore_eos": True}
    url, done = f"{single.url}/completions", False

    def flood() -> None:
        while not done:
            httpx.post(url, json=body | {"priority": "vip"}, timeout=60, trust_env=False).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        floods = [pool.submit(flood) for _ in range(4)]
        try:
            eventually(lambda: queued(single) > 1, "there is a queue")
            for _ in range(3):
                assert single.complete(STORY, max_tokens=1, priority="low").status_code == 200
        finally:
            done = True
        for each in floods:
            each.result()
