"""Clients that are slow, that do nothing and that vanish: the others are served, and nothing is left of them."""

import contextlib
import json
import re
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest

from tests.runtime.counters import count, nothing_lost
from tests.runtime.process import MODEL, ServerProcess, eventually
from tests.runtime.raw import (
    GOOD,
    TEXT,
    WebSocket,
    ask,
    connect,
    frame,
    get,
    head,
    message,
    read,
    request,
    unharmed,
    upgrade,
)

ENDLESS = {"model": MODEL, "prompt": "Once", "max_tokens": 90_000, "ignore_eos": True, "stream": True}
LONG_PROMPT = "a word and another " * 4000
IDLE = 1000  # connections
IDLE_BYTES = 32 * 1024  # that one may take of the server's memory


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One with two slots, whose sequences take longer than any test; at its end nothing is in flight."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # what the server is started with
    try:
        process = ServerProcess("--slots", "2", "--context-length", "100000", "--inference-timeout-seconds", "3600")
    finally:
        wanted = max(soft, 2 * IDLE)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
    with process:
        assert ask(process, request(GOOD)).status == 200  # what is only loaded once is
        yield process
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert "draining: 0 requests and sockets" in process.log


@pytest.fixture(autouse=True)
def _unharmed(server: ServerProcess) -> Iterator[None]:
    with unharmed(server), nothing_lost(server):
        yield


def body(**fields: object) -> bytes:
    return json.dumps(ENDLESS | fields).encode()


def post(**fields: object) -> bytes:
    """A request on a connection that may have another."""
    data = body(**fields)
    return head(f"Content-Length: {len(data)}") + data


def reset(connection: socket.socket) -> None:
    """Go without a word to anybody, not even the server's kernel."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def running(server: ServerProcess, sequences: int = 1) -> None:
    eventually(lambda: server.metric("num_requests_running") == sequences, f"{sequences} sequences run")


# What a client has done when it vanishes. Each takes a new connection to that point.


def in_the_first_line(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(b"POST /v1/comp")


def in_a_header(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(head("Content-Length: 10")[:-10])


def in_a_body(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(request(body())[:-10])


def in_a_chunk(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(head("Transfer-Encoding: chunked") + b"ff\r\nx")


def asking_whether_to_send_a_body(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(head("Content-Length: 10", "Expect: 100-continue"))
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")


def sending_a_body_that_was_refused(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(head(f"Content-Length: {1 << 40}") + bytes(100_000))
    assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def before_a_small_answer(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(get("/health"))


def before_a_large_answer(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(get("/openapi.json") * 20)


def in_a_prompt(server: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(post(prompt=LONG_PROMPT))
    running(server)


def before_a_whole_answer(server: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(post(stream=False))
    running(server)


def before_a_whole_answer_with_an_empty_line_behind_the_request(
    server: ServerProcess, connection: socket.socket
) -> None:
    connection.sendall(post(stream=False) + b"\r\n")
    running(server)


def before_several_answers(server: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(post(stream=False, prompt=["a", "b", "c"]))
    running(server, 2)


def at_the_first_token(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(post())
    connection.recv(1)


def in_a_stream(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(post())
    for _piece in range(20):
        connection.recv(4096)


def in_a_compressed_stream(_: ServerProcess, connection: socket.socket) -> None:
    data = body()
    connection.sendall(head(f"Content-Length: {len(data)}", "Accept-Encoding: br") + data)
    for _piece in range(20):
        connection.recv(4096)


def in_a_stream_with_another_request_behind(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(post() + get("/health"))
    connection.recv(4096)


def between_two_events(_: ServerProcess, connection: socket.socket) -> None:
    query = {name: json.dumps(value).strip('"') for name, value in ENDLESS.items() if name != "stream"}
    connection.sendall(get(f"/stream/sse?{urlencode(query)}"))
    while not connection.recv(65536).endswith(b"\n\n\r\n"):
        pass


def reading_nothing_of_a_stream(server: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(post())
    running(server)


def in_a_handshake(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(upgrade()[:-10])


def behind_a_handshake(_: ServerProcess, connection: socket.socket) -> None:
    connection.sendall(upgrade())


def greeted(connection: socket.socket) -> None:
    connection.sendall(upgrade())
    assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")


def on_an_idle_websocket(_: ServerProcess, connection: socket.socket) -> None:
    greeted(connection)


def in_a_frame(_: ServerProcess, connection: socket.socket) -> None:
    greeted(connection)
    connection.sendall(frame(TEXT, b'{"type":', size=1000))


def in_a_message_of_several_frames(_: ServerProcess, connection: socket.socket) -> None:
    greeted(connection)
    connection.sendall(frame(TEXT, b'{"type":', fin=False))


def on_a_busy_websocket(server: ServerProcess, connection: socket.socket) -> None:
    greeted(connection)
    params = {name: ENDLESS[name] for name in ("max_tokens", "ignore_eos")}
    for _request in range(5):  # two of which have slots
        connection.sendall(message(type="inference", model=MODEL, prompt="Once", params=params))
    running(server, 2)
    eventually(lambda: server.metric("num_requests_waiting") == 3, "the others wait")
    connection.sendall(frame(TEXT, b"{", size=10))


PHASES: list[Callable[[ServerProcess, socket.socket], None]] = [
    in_the_first_line,
    in_a_header,
    in_a_body,
    in_a_chunk,
    asking_whether_to_send_a_body,
    sending_a_body_that_was_refused,
    before_a_small_answer,
    before_a_large_answer,
    in_a_prompt,
    before_a_whole_answer,
    before_a_whole_answer_with_an_empty_line_behind_the_request,
    before_several_answers,
    at_the_first_token,
    in_a_stream,
    in_a_compressed_stream,
    in_a_stream_with_another_request_behind,
    between_two_events,
    reading_nothing_of_a_stream,
    in_a_handshake,
    behind_a_handshake,
    on_an_idle_websocket,
    in_a_frame,
    in_a_message_of_several_frames,
    on_a_busy_websocket,
]


@pytest.mark.parametrize("vanish", [socket.socket.close, reset], ids=["closed", "reset"])
@pytest.mark.parametrize("reach", PHASES, ids=[phase.__name__ for phase in PHASES])
def test_a_client_that_vanishes(
    server: ServerProcess,
    reach: Callable[[ServerProcess, socket.socket], None],
    vanish: Callable[[socket.socket], None],
) -> None:
    connection = connect(server)
    reach(server, connection)
    vanish(connection)


@pytest.mark.parametrize("vanish", [socket.socket.close, reset], ids=["closed", "reset"])
def test_a_client_that_vanishes_from_the_queue(server: ServerProcess, vanish: Callable[[socket.socket], None]) -> None:
    with connect(server) as one, connect(server) as other:
        for connection in (one, other):
            connection.sendall(post())
        running(server, 2)
        for stream in (False, True):
            waiting = connect(server)
            waiting.sendall(post(stream=stream))
            eventually(lambda: server.metric("num_requests_waiting") == 1, "it waits")
            vanish(waiting)
            eventually(lambda: server.metric("num_requests_waiting") == 0, "nobody waits for it")
        assert server.metric("num_requests_running") == 2


def test_a_hundred_clients_that_vanish_together(server: ServerProcess) -> None:
    connections = [connect(server) for _ in range(100)]
    for connection in connections:
        connection.sendall(post())
    running(server, 2)
    eventually(lambda: server.metric("num_requests_waiting") == 98, "all others wait")
    for connection in connections:
        reset(connection)


def test_many_clients_that_vanish_just_behind_what_they_sent(server: ServerProcess) -> None:
    """Some are gone when the server looks, some while it answers."""
    for data in (upgrade(), upgrade() + message(type="ping"), get("/v1/models"), post(max_tokens=1)):
        for _ in range(100):
            connection = connect(server)
            connection.sendall(data)
            reset(connection)


def test_a_client_that_sends_no_more_is_taken_for_gone(server: ServerProcess) -> None:
    """Who shuts its own side down cannot be told from who has gone until something is written to it: it is not waited for."""
    with connect(server) as connection:
        connection.sendall(post())
        connection.recv(1)
        before = len(server.log)
        connection.shutdown(socket.SHUT_WR)
        assert b"[DONE]" not in read(connection)
        eventually(lambda: '"status": 499' in server.log[before:], "it is logged as gone")


# Slow and idle clients


def trickle(server: ServerProcess, data: bytes) -> None:
    """Have a hundred clients send something a byte at a time, none of which finishes, and be served meanwhile."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(100)]
        for number in range(len(data)):
            for connection in connections:
                connection.sendall(data[number : number + 1])
            if number % 10 == 0:
                assert server.complete("x", max_tokens=1).status_code == 200


def test_heads_that_come_byte_by_byte(server: ServerProcess) -> None:
    trickle(server, head("Content-Length: 10")[:-1])


def test_bodies_that_come_byte_by_byte(server: ServerProcess) -> None:
    trickle(server, request(GOOD)[:-1])


def test_frames_that_come_byte_by_byte(server: ServerProcess) -> None:
    trickle(server, (upgrade() + message(type="ping"))[:-1])


def resident(server: ServerProcess) -> int:
    """Bytes of memory that the server's process has."""
    (found,) = re.findall(r"^process_resident_memory_bytes (.+)$", server.client.get("/metrics").text, re.MULTILINE)
    return int(float(found))


def idle_connection(server: ServerProcess) -> socket.socket:
    return connect(server)


def idle_after_a_request(server: ServerProcess) -> socket.socket:
    connection = connect(server)
    connection.sendall(head(method="GET", path="/v1/models"))
    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    return connection


def idle_websocket(server: ServerProcess) -> socket.socket:
    client = WebSocket(server)
    client._file.close()
    return client.socket


@pytest.mark.parametrize("kind", [idle_connection, idle_after_a_request, idle_websocket])
def test_a_thousand_idle_connections(
    server: ServerProcess,
    kind: Callable[[ServerProcess], socket.socket],
    record_property: Callable[[str, object], None],
) -> None:
    files, memory = count(server).files, resident(server)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(kind(server)) for _ in range(IDLE)]
        eventually(lambda: count(server).files == files + IDLE, "the server has them all")
        each = (resident(server) - memory) / IDLE
        record_property("bytes per idle connection", each)
        assert each < IDLE_BYTES
        assert server.complete("x", max_tokens=1).status_code == 200
        with server.client.stream("POST", "/v1/completions", json=ENDLESS | {"max_tokens": 50}) as response:
            assert list(response.iter_lines())[-2] == "data: [DONE]"
        # Nor was any of them given up.
        if kind is not idle_websocket:
            connections[0].sendall(get("/health"))
            assert read(connections[0]).startswith(b"HTTP/1.1 200 ")
