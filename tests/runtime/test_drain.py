"""A server that is told to end while it is busy: what runs ends well, nothing new begins, and everybody hears of it."""

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from tests.runtime.process import MODEL, ServerProcess, children, eventually
from tests.runtime.raw import (
    CLOSE,
    GOOD,
    Answer,
    WebSocket,
    answers,
    ask,
    checked,
    connect,
    frame,
    get,
    head,
    message,
    read,
    request,
    upgrade,
)

MESSAGES = [{"role": "user", "content": "Tell me a story"}]
LONG = {"max_tokens": 300, "ignore_eos": True, "temperature": 0}
ENDLESS = LONG | {"max_tokens": 90_000}
GOING_AWAY = 1001


class Load:
    """A request of every kind, each on a connection of its own, that has begun but cannot have ended yet."""

    def __init__(self, server: ServerProcess, fields: Mapping[str, object]) -> None:
        query = urlencode(
            {"model": MODEL, "prompt": "Once"} | {name: json.dumps(value) for name, value in fields.items()}
        )
        prompt, messages = {"model": MODEL, "prompt": "Once"}, {"model": MODEL, "messages": MESSAGES}
        self._requests = {
            "chat": _post("/v1/chat/completions", {**messages, **fields, "stream": True}),
            "completion": _post("/v1/completions", {**prompt, **fields, "stream": True}),
            "events": get(f"/stream/sse?{query}"),
            "whole": _post("/v1/completions", {**prompt, **fields}),
        }
        self._connections = {kind: connect(server) for kind in self._requests}
        for kind, connection in self._connections.items():
            connection.sendall(self._requests[kind])
        count = len(self._requests)
        eventually(lambda: _taken(server) == count, "the engine has all of them")

    def answers(self) -> dict[str, Answer]:
        """Each kind's, complete."""
        found = {}
        for kind, connection in self._connections.items():
            with connection:
                (found[kind],) = answers(read(connection))
        return found


def _post(path: str, fields: dict[str, object]) -> bytes:
    return request(json.dumps(fields).encode(), path=path)


def _taken(server: ServerProcess) -> float:
    return server.metric("num_requests_running") + server.metric("num_requests_waiting")


def events(answer: Answer) -> list[str]:
    """The data of a stream's events."""
    lines = answer.body.decode().split("\n")
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def drain(server: ServerProcess) -> None:
    server.signal(signal.SIGTERM)
    eventually(lambda: server.client.get("/health/ready").status_code == 503, "the server is draining")


def hold(server: ServerProcess) -> WebSocket:
    """A request that goes on until its client acknowledges what it was sent."""
    client = WebSocket(server)
    client.send(
        message(
            type="inference",
            id="held",
            model=MODEL,
            prompt="Once",
            flow_control={"ack": True, "window": 1},
            params=LONG,
        )
    )
    eventually(lambda: server.metric("num_requests_paused") == 1, "it is paused")
    return client


def assert_refused(answer: Answer) -> None:
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "server_error", "engine_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("slots", ["8", "2"], ids=["all run", "some wait"])
def test_what_has_begun_ends_well(slots: str) -> None:
    with ServerProcess("--slots", slots) as server:
        load = Load(server, LONG)
        server.signal(signal.SIGTERM)
        found = load.answers()
        assert server.wait() == 0
    assert {answer.status for answer in found.values()} == {200}
    for kind in ("chat", "completion"):
        *_, last, done = events(found[kind])
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"
        assert done == "[DONE]"
    complete = json.loads(events(found["events"])[-1])
    assert (complete["total_tokens"], complete["finish_reason"]) == (300, "length")
    assert json.loads(found["whole"].body)["usage"]["completion_tokens"] == 300


def test_a_server_that_is_to_leave_answers_until_it_is_ended() -> None:
    with ServerProcess() as server:
        kept = connect(server)
        kept.sendall(head(method="GET", path="/v1/models"))
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        server.signal(signal.SIGUSR1)
        eventually(lambda: server.client.get("/health/ready").status_code == 503, "the server says so")
        assert json.loads(ask(server, get("/health")).body)["status"] == "leaving"
        assert ask(server, get("/health/live")).status == 200
        # Whoever still comes is answered, and comes back to somebody else.
        kept.sendall(request(GOOD).replace(b"Connection: close\r\n", b""))
        with kept:
            (answer,) = answers(read(kept))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        chat = _post("/v1/chat/completions", {"model": MODEL, "messages": MESSAGES, "stream": True, **LONG})
        assert events(ask(server, chat))[-1] == "[DONE]"
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_nothing_new_begins() -> None:
    with ServerProcess() as server:
        held = hold(server)
        kept, half = connect(server), connect(server)
        for connection in (kept, half):
            connection.sendall(head(method="GET", path="/v1/models"))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        half.sendall(request(GOOD)[:-1])
        drain(server)
        # On connections from before, be it in the middle of a body, and on new ones.
        kept.sendall(request(GOOD).replace(b"Connection: close\r\n", b""))
        half.sendall(GOOD[-1:])
        for connection in (kept, half):
            (answer,) = answers(read(connection))
            assert_refused(answer)
            connection.close()
        chat = _post("/v1/chat/completions", {"model": MODEL, "messages": MESSAGES, "stream": True})
        vectors = _post("/v1/embeddings", {"model": MODEL, "input": "x"})
        for data in (request(GOOD), chat, vectors, get(f"/stream/sse?model={MODEL}&prompt=x"), upgrade()):
            assert_refused(ask(server, data))
        held.send(message(type="inference", id="late", model=MODEL, prompt="x"))
        refused = next(m for m in iter(held.message, None) if m["request_id"] == "late")
        assert checked(refused["error"])["code"] == "engine_unavailable"
        # Who watches is told.
        for path, status in (("/health", 503), ("/health/ready", 503), ("/health/live", 200), ("/metrics", 200)):
            assert ask(server, get(path)).status == status
        assert json.loads(ask(server, get("/health")).body)["status"] == "draining"
        held.send(message(type="cancel", request_id="held"))
        while held.message()["type"] != "complete":
            pass
        held.send(frame(CLOSE))
        assert held.close_code() == GOING_AWAY
        held.close()
        assert server.wait() == 0


# Takes the compiler all the time that it may have.
SLOW = "start: A\nA: /.*a.{18}b.*/ & /.*c.{19}d.*/ & ~/.*e.{17}f.*/"


def test_who_waits_for_a_grammar_to_be_compiled_is_told_so() -> None:
    with ServerProcess("--drain-seconds", "0") as server:
        forms = [{"type": "grammar", "grammar": SLOW + "x" * number} for number in range(2)]
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(server.complete, "x", response_format=form) for form in forms]
            eventually(lambda: bool(children(server.pid, "inferno_runtime.worker.compiler")), "it is being compiled")
            server.signal(signal.SIGTERM)
            answers = [each.result() for each in asked]
        assert server.wait() == 0
        assert "Traceback" not in server.log
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["connection"] == "close"


def test_who_does_nothing_holds_nothing_up() -> None:
    with ServerProcess() as server:
        silent, half, kept = [connect(server) for _ in range(3)]
        half.sendall(b"POST /v1/comp")
        kept.sendall(head(method="GET", path="/health"))
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        polite, rude, mid = [WebSocket(server) for _ in range(3)]
        mid.send(message(type="ping")[:-1])
        server.signal(signal.SIGTERM)
        opcode, goodbye = polite.receive()
        assert opcode == CLOSE
        polite.send(frame(CLOSE, goodbye))
        assert int.from_bytes(goodbye[:2], "big") == GOING_AWAY
        for client in (rude, mid):  # which do not answer
            assert client.close_code() == GOING_AWAY
        for client in (polite, rude, mid):
            client.close()
        assert server.wait() == 0
        for connection in (silent, half, kept):
            assert read(connection) == b""
            connection.close()


def assert_cut_off(server: ServerProcess, load: Load, client: WebSocket) -> None:
    """Everybody is told, and the server has ended well."""
    found = load.answers()
    while (last := client.message())["type"] != "error":
        assert last["type"] in ("start", "token", "backpressure")
    assert checked(last["error"])["code"] == "engine_unavailable"
    client.send(frame(CLOSE))
    assert client.close_code() == GOING_AWAY
    client.close()
    assert server.wait() == 0
    assert found["whole"].status == 503
    assert found["whole"].headers["connection"] == "close"
    assert found["whole"].error["code"] == "engine_unavailable"
    for kind in ("chat", "completion", "events"):
        assert found[kind].status == 200
        error = checked(json.loads(events(found[kind])[-1])["error"])
        assert (error["type"], error["code"]) == ("server_error", "engine_unavailable")
    assert b"event: error\n" in found["events"].body
    assert "Traceback" not in server.log


@contextlib.contextmanager
def endless(*flags: str) -> Iterator[tuple[ServerProcess, Load, WebSocket]]:
    """A server whose requests do not end by themselves."""
    with ServerProcess("--context-length", "100000", *flags) as server:
        load = Load(server, ENDLESS)
        client = WebSocket(server)
        client.send(message(type="inference", model=MODEL, prompt="Once", params=ENDLESS))
        assert client.message()["type"] == "start"
        yield server, load, client


def test_what_takes_longer_than_it_may_is_told_so() -> None:
    with endless("--drain-seconds", "1") as (server, load, client):
        server.signal(signal.SIGTERM)
        assert_cut_off(server, load, client)
        assert "unfinished" in server.log


def test_an_interrupt_ends_a_drain_at_once() -> None:
    with endless("--drain-seconds", "3600") as (server, load, client):
        drain(server)
        server.signal(signal.SIGINT)
        assert_cut_off(server, load, client)


def test_sigterm_again_changes_nothing() -> None:
    """A kubelet that was itself started again sends it again, and means no hurry by that."""
    with ServerProcess() as server:
        held = hold(server)
        drain(server)
        server.signal(signal.SIGTERM)
        for _ in range(10):
            assert server.client.get("/health/live").status_code == 200
        held.send(message(type="cancel", request_id="held"))
        while (last := held.message())["type"] not in ("complete", "error"):
            pass
        assert last["finish_reason"] == "cancelled"
        held.close()
        assert server.wait() == 0
