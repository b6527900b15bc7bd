"""WebSockets on real sockets, over a fake engine."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from inferno_runtime.worker.errors import EngineLost, Overloaded
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import FakeEngine

pytestmark = pytest.mark.asyncio


async def eventually(true: Callable[[], object]) -> None:
    async with asyncio.timeout(120):  # which decides nothing but when to give up on a test that hangs
        while not true():
            await asyncio.sleep(0.005)


class Client:
    """A connection, and what is said on it."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection

    async def send(self, **message: object) -> None:
        await self.connection.write_message(json.dumps(message))

    async def ask(self, **fields: object) -> None:
        await self.send(**{"type": "inference", "model": "fake", "prompt": "Hi", **fields})

    async def receive(self) -> Any:
        """The next message, decoded; None at the connection's end."""
        async with asyncio.timeout(20):
            message = await self.connection.read_message()
        return None if message is None else json.loads(message)

    async def until(self, *kinds: str) -> list[Any]:
        """The messages up to the first of these types."""
        messages: list[Any] = []
        while not messages or messages[-1]["type"] not in kinds:
            message = await self.receive()
            assert message is not None, f"closed after {messages}"
            messages.append(message)
        return messages

    async def error(self) -> dict[str, Any]:
        """The next message's error object."""
        message = await self.receive()
        assert message["type"] == "error"
        assert set(message["error"]) == {"message", "type", "param", "code"}
        return dict(message["error"]) | {"request_id": message["request_id"]}


Connect = Callable[..., Awaitable[Client]]


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens connections: `await connect(server, path=…)`."""
    open_: list[WebSocketClientConnection] = []

    async def begin(server: Running, path: str = "/ws/stream", **headers: str) -> Client:
        request = HTTPRequest(f"ws://127.0.0.1:{server.port}{path}", headers=headers)
        open_.append(await websocket_connect(request))
        return Client(open_[-1])

    yield begin
    for connection in open_:
        connection.close()


def text_of(messages: list[Any], request_id: str | None = None) -> str:
    tokens = [m for m in messages if m["type"] == "token" and request_id in (None, m["request_id"])]
    return "".join(message["token"] for message in tokens)


@pytest.mark.parametrize("path", ["/ws/stream", "/v1/ws/stream"])
async def test_a_request(server: Running, connect: Connect, path: str) -> None:
    client = await connect(server, path)
    await client.ask(params={"max_tokens": 5, "temperature": 0})
    start, *tokens, complete = await client.until("complete")
    assert start == {"type": "start", "request_id": start["request_id"], "model": "fake"}
    assert start["request_id"].startswith("req_")
    assert {message["request_id"] for message in (*tokens, complete)} == {start["request_id"]}
    assert [(t["token"], t["accumulated"]) for t in tokens] == [("H", "H"), ("ell", "Hell"), ("o", "Hello")]
    assert (complete["total_tokens"], complete["finish_reason"]) == (5, "length")
    assert complete["usage"]["total_tokens"] == 7
    assert server.engine.submitted[0]["prompt"] == list(b"Hi")


async def test_a_chat_is_rendered(server: Running, connect: Connect) -> None:
    client = await connect(server)
    await client.send(type="inference", model="fake", messages=[{"role": "user", "content": "Hi"}])
    assert text_of(await client.until("complete")) == "Hello, world"
    await server.chat("Hi")
    assert server.engine.submitted[0]["prompt"] == server.engine.submitted[1]["prompt"]


async def test_the_accumulated_text_can_be_left_out(server: Running, connect: Connect) -> None:
    client = await connect(server)
    await client.ask(params={"accumulated": False})
    messages = await client.until("complete")
    assert text_of(messages) == "Hello, world"
    assert not any("accumulated" in message for message in messages)


async def test_several_requests_on_one_connection(server: Running, connect: Connect) -> None:
    client = await connect(server)
    for number in range(4):
        await client.ask(id=f"r{number}")
    messages = []
    for _ in range(4):
        messages += await client.until("complete")
    for number in range(4):
        assert text_of(messages, f"r{number}") == "Hello, world"
    assert len(server.engine.submitted) == 4


async def test_an_id_can_be_used_again_after_its_end(server: Running, connect: Connect) -> None:
    client = await connect(server)
    for _ in range(3):
        await client.ask(id="again")
        assert (await client.until("complete", "error"))[-1]["type"] == "complete"


async def test_an_id_in_use(server: Running, connect: Connect) -> None:
    server.engine.resume.clear()
    client = await connect(server)
    await client.ask(id="mine")
    await client.until("start")
    await client.ask(id="mine")
    error = await client.error()
    assert (error["param"], error["code"], error["request_id"]) == ("id", "id_in_use", None)
    server.engine.resume.set()
    assert text_of(await client.until("complete")) == "Hello, world"


async def test_more_requests_than_a_connection_may_have(start: Start, connect: Connect) -> None:
    server = await start(websocket_requests=2)
    server.engine.resume.clear()
    client = await connect(server)
    for name in ("a", "b"):
        await client.ask(id=name)
        await client.until("start")
    await client.ask(id="c")
    error = await client.error()
    assert (error["type"], error["code"], error["request_id"]) == ("rate_limit_error", "too_many_requests", "c")
    server.engine.resume.set()
    await client.until("complete")
    await client.until("complete")
    await client.ask(id="c")
    assert (await client.until("complete"))[-1]["request_id"] == "c"


async def test_cancel(server: Running, connect: Connect) -> None:
    client = await connect(server)
    server.engine.resume.clear()
    await client.ask(id="a")
    await client.until("start")
    await client.send(type="cancel", request_id="a")
    *_, complete = await client.until("complete")
    assert (complete["request_id"], complete["finish_reason"], complete["total_tokens"]) == ("a", "cancelled", 0)
    assert server.engine.cancelled == [1]
    await client.send(type="cancel", request_id="a")
    error = await client.error()
    assert (error["param"], error["code"], error["request_id"]) == ("request_id", "request_not_found", "a")


async def test_cancel_before_the_engine_has_it(server: Running, connect: Connect) -> None:
    client = await connect(server)
    # Large enough to be tokenized in a thread.
    await client.ask(id="a", prompt=[65] * 60_000, params={})
    await client.send(type="cancel", request_id="a")
    *_, last = await client.until("complete", "error")
    assert last["request_id"] == "a"
    assert last["type"] == "error" or last["finish_reason"] == "cancelled"


async def test_ping(server: Running, connect: Connect) -> None:
    client = await connect(server)
    await client.send(type="ping")
    assert await client.receive() == {"type": "pong", "request_id": None}


@pytest.mark.parametrize("message", ["", "{", "[]", '{"type":"what"}', '{"type":"cancel"}', "\x00", '{"type":"ack"}'])
async def test_a_malformed_message_keeps_the_connection_open(server: Running, connect: Connect, message: str) -> None:
    client = await connect(server)
    await client.connection.write_message(message)
    assert (await client.error())["type"] == "invalid_request_error"
    await client.ask()
    assert text_of(await client.until("complete")) == "Hello, world"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": "other"}, "model", "model_not_found"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": "x" * 600}, "prompt", "context_length_exceeded"),
        ({"params": {"temperature": 9}}, "temperature", "invalid_value"),
        ({"params": {"stop": [""]}}, "stop", "invalid_value"),
        ({"id": "a\nb"}, "id", "invalid_value"),
    ],
)
async def test_a_wrong_request_keeps_the_connection_open(
    server: Running, connect: Connect, fields: dict[str, Any], param: str, code: str
) -> None:
    client = await connect(server)
    await client.ask(**{"id": "a", **fields})
    error = await client.error()
    assert (error["param"], error["code"]) == (param, code)
    assert error["request_id"] == (None if param == "id" else "a")
    await client.ask(id="a")
    assert (await client.until("complete"))[-1]["request_id"] == "a"


async def test_errors_of_the_engine(server: Running, connect: Connect) -> None:
    client = await connect(server)
    server.engine.refuses = Overloaded("Full.")
    await client.ask()
    assert (await client.error())["code"] == "overloaded"
    server.engine.refuses, server.engine.fails = None, EngineLost("Lost.")
    await client.ask(id="a")
    *_, last = await client.until("error")
    assert (last["request_id"], last["error"]["code"]) == ("a", "engine_restarted")
    server.engine.fails = None
    await client.ask(id="a")
    assert text_of(await client.until("complete")) == "Hello, world"


async def test_a_fault_of_the_servers_own(server: Running, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    client = await connect(server)
    server.engine.refuses = RuntimeError("secret")  # type: ignore[assignment]
    await client.ask(id="a")
    error = await client.error()
    assert (error["code"], error["request_id"]) == ("internal_error", "a")
    assert "secret" not in error["message"]
    assert any(record.exc_info for record in caplog.records)


async def test_a_window_of_acknowledgements(start: Start, connect: Connect) -> None:
    server = await start(FakeEngine(says="x" * 40), token_batch_size=1)
    client = await connect(server)
    await client.ask(id="a", flow_control={"ack": True, "window": 4})
    start_, *tokens = [await client.receive() for _ in range(5)]
    assert start_["type"] == "start"
    await eventually(lambda: server.engine.pauses == [(1, True)])
    await client.send(type="ping")
    assert (await client.receive())["type"] == "pong"  # and no fifth token
    while True:
        await client.send(type="ack", request_id="a", received=len(tokens))
        messages = await client.until("token", "complete")
        tokens += [message for message in messages if message["type"] == "token"]
        if messages[-1]["type"] == "complete":
            break
    assert text_of(tokens) == "x" * 40
    assert (1, False) in server.engine.pauses


async def test_a_wrong_acknowledgement_does_not_end_its_request(server: Running, connect: Connect) -> None:
    server.engine.resume.clear()
    client = await connect(server)
    await client.ask(id="a", flow_control={"ack": True})
    await client.until("start")
    await client.send(type="ack", request_id="a", received=5)
    error = await client.error()
    assert (error["param"], error["request_id"]) == ("received", "a")
    server.engine.resume.set()
    assert text_of(await client.until("complete")) == "Hello, world"
    await client.send(type="ack", request_id="a", received=3)  # which came too late
    await client.send(type="ping")
    assert (await client.receive())["type"] == "pong"


async def test_a_client_that_owes_an_acknowledgement(start: Start, connect: Connect) -> None:
    server = await start(ack_timeout_seconds=1)
    client = await connect(server)
    await client.ask(id="a", flow_control={"ack": True, "window": 1})
    *_, error = await client.until("error")
    assert (error["request_id"], error["error"]["type"]) == ("a", "timeout_error")
    assert error["error"]["code"] == "ack_timeout"
    assert server.engine.cancelled == [1]
    await client.ask(id="a")
    assert text_of(await client.until("complete")) == "Hello, world"


async def test_cancel_while_an_acknowledgement_is_owed(server: Running, connect: Connect) -> None:
    client = await connect(server)
    await client.ask(id="a", flow_control={"ack": True, "window": 1})
    await client.until("token")
    await eventually(lambda: server.engine.pauses == [(1, True)])
    await client.send(type="cancel", request_id="a")
    assert (await client.until("complete"))[-1]["finish_reason"] == "cancelled"


LONG = 4000  # tokens whose messages, each with all the text before it, no socket takes at once


async def test_a_slow_reader_is_told_and_its_sequence_paused(start: Start, connect: Connect) -> None:
    server = await start(FakeEngine(says="x" * LONG), token_batch_size=1, stream_buffer_kb=64)
    server.engine.context = 2 * LONG
    client = await connect(server)
    await client.ask(params={"max_tokens": LONG})
    await eventually(lambda: (1, True) in server.engine.pauses)  # nothing is read meanwhile
    messages = await client.until("complete")
    assert text_of(messages) == "x" * LONG
    assert messages[-1]["finish_reason"] == "stop"
    levels = [message["level"] for message in messages if message["type"] == "backpressure"]
    assert "critical" in levels
    assert levels[levels.index("critical") + 1] == "healthy"
    spans = {"healthy": (0.0, 0.7), "moderate": (0.7, 0.9), "critical": (0.9, 100.0)}
    for message in messages:
        if message["type"] == "backpressure":
            least, most = spans[message["level"]]
            assert least <= message["buffer_usage"] <= most
    assert server.engine.pauses[-1] == (1, False)


async def test_a_client_that_reads_nothing(start: Start, connect: Connect) -> None:
    server = await start(FakeEngine(says="x" * LONG), token_batch_size=1, stream_buffer_kb=64, ack_timeout_seconds=1)
    server.engine.context = 2 * LONG
    client = await connect(server)
    await client.ask(id="a", params={"max_tokens": LONG})
    await eventually(lambda: server.engine.cancelled == [1])
    *_, error = await client.until("error")  # when it reads at last
    assert (error["error"]["type"], error["error"]["code"]) == ("timeout_error", "client_stalled")


async def test_a_client_that_sends_and_does_not_read_is_not_answered_for_ever(start: Start, connect: Connect) -> None:
    # While the kernel takes what is sent, the full buffer ends it; once it has filled both directions and nothing moves
    # at all, which may come first, the ping that is not answered does.
    server = await start(stream_buffer_kb=16, ack_timeout_seconds=1, keep_alive_seconds=2)
    client = await connect(server)
    message = json.dumps({"type": "cancel", "request_id": "x" * 128})

    async def flood() -> None:
        while True:
            await client.connection.write_message(message)

    flooding = asyncio.create_task(flood())
    try:
        await eventually(lambda: not server.context.sockets)
    finally:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


@pytest.mark.parametrize("phase", ["idle", "queued", "running", "paused"])
async def test_a_client_that_vanishes(start: Start, connect: Connect, phase: str) -> None:
    server = await start(FakeEngine(says="x" * 100), token_batch_size=1)
    client = await connect(server)
    if phase == "queued":
        server.engine.resume.clear()
    if phase != "idle":
        await client.ask(flow_control={"ack": True, "window": 2} if phase == "paused" else {})
        await client.until("start" if phase == "queued" else "token")
    if phase == "paused":
        await eventually(lambda: server.engine.pauses == [(1, True)])
    if phase == "running":
        server.engine.resume.clear()
    protocol = client.connection.protocol
    assert protocol is not None
    assert protocol.stream is not None
    protocol.stream.close()  # without a word
    await eventually(lambda: not server.context.sockets)
    await eventually(lambda: server.context.idle.is_set())
    if phase in ("queued", "paused"):
        assert server.engine.cancelled == [1]


async def test_an_idle_connection_is_closed_when_the_server_drains(server: Running, connect: Connect) -> None:
    client = await connect(server)
    await client.send(type="ping")
    await client.until("pong")
    server.context.registry.draining = True
    for socket in tuple(server.context.sockets):
        socket.drain()
    assert await client.receive() is None
    assert client.connection.close_code == 1001
    await eventually(lambda: server.context.idle.is_set())


async def test_a_busy_connection_is_closed_after_its_last_request(server: Running, connect: Connect) -> None:
    server.engine.resume.clear()
    client = await connect(server)
    await client.ask(id="a")
    await client.until("start")
    server.context.registry.draining = True
    for socket in tuple(server.context.sockets):
        socket.drain()
    await client.ask(id="b")
    assert (await client.error())["code"] == "engine_unavailable"
    server.engine.resume.set()
    assert text_of(await client.until("complete")) == "Hello, world"
    assert await client.receive() is None
    assert client.connection.close_code == 1001


async def test_silence_is_filled_with_pings(start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await start(keep_alive_seconds=1)
    pinged = asyncio.Event()
    monkeypatch.setattr(WebSocketClientConnection, "on_ping", lambda self, data: pinged.set())
    client = await connect(server)
    reading = asyncio.create_task(client.receive())
    await asyncio.wait_for(pinged.wait(), 20)
    assert server.context.sockets
    reading.cancel()


async def test_a_ping_that_is_not_answered(start: Start) -> None:
    server = await start(keep_alive_seconds=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /ws/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"\x89\x00"  # a ping
        close = await reader.readexactly(4)
    assert close[0] == 0x88
    assert int.from_bytes(close[2:], "big") == 1011
    writer.close()


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 426, "upgrade_required"),
        ({"Upgrade": "websocket"}, 426, "upgrade_required"),
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, 426, "upgrade_required"),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "8"}, 426, "upgrade_required"),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}, 400, "invalid_value"),
    ],
)
async def test_a_handshake_that_is_none(server: Running, headers: dict[str, str], status: int, code: str) -> None:
    response = await server.client.get("/ws/stream", headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    if status == 426:
        assert response.headers["upgrade"] == "websocket"


async def test_other_methods(server: Running) -> None:
    response = await server.client.post("/ws/stream", json={})
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")


async def test_pages_of_other_origins(start: Start, connect: Connect) -> None:
    server = await start(allowed_origins=("https://friend.example",))
    client = await connect(server, Origin="https://friend.example")
    await client.send(type="ping")
    await client.until("pong")
    with pytest.raises(HTTPClientError) as caught:
        await connect(server, Origin="https://other.example")
    assert caught.value.code == 403


async def test_a_message_that_is_too_large(start: Start, connect: Connect) -> None:
    server = await start(websocket_message_bytes=1024)
    client = await connect(server)
    await client.ask(prompt="x" * 2000)
    assert await client.receive() is None
    assert not server.engine.submitted


async def test_compression_is_not_negotiated(server: Running) -> None:
    request = HTTPRequest(f"ws://127.0.0.1:{server.port}/ws/stream")
    connection = await websocket_connect(request, compression_options={})
    assert "Sec-WebSocket-Extensions" not in (connection.headers or {})
    connection.close()


async def test_every_request_has_a_line_in_the_log_and_a_count(
    server: Running, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await connect(server)
    await client.ask(id="find-me", prompt="private")
    await client.until("complete")
    (record,) = [r for r in caplog.records if r.name == "inferno_runtime.access" and r.__dict__["method"] == "WS"]
    fields = record.__dict__
    assert (fields["path"], fields["status"], fields["request_id"]) == ("/ws/stream", 200, "find-me")
    assert (fields["model"], fields["prompt_tokens"], fields["completion_tokens"]) == ("fake", 7, 12)
    assert "private" not in str(fields)
    metrics = server.context.metrics.text().decode()
    assert 'inferno_requests_total{endpoint="websocket",model_name="fake",status="200"} 1.0' in metrics
    assert 'inferno_request_success_total{finished_reason="stop",model_name="fake"} 1.0' in metrics
