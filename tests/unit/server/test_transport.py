"""How long a request may take to come, and how many connections there may be."""

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from tornado.netutil import bind_sockets

from inferno_runtime.server import base, transport
from inferno_runtime.server.app import application, http_server
from tests.unit.server.conftest import Running, Start, error_of

pytestmark = pytest.mark.asyncio

SOON = 0.05  # seconds, in the place of those that a request may take
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"model":"fake","prompt":"x"}'


class Client:
    """A connection that sends what it is told to, when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """The status and the body of the next answer."""
        async with asyncio.timeout(20):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            (length,) = [int(line.split(":")[1]) for line in lines if line.startswith("content-length:")]
            return int(lines[0].split()[1]), await self.reader.readexactly(length)

    async def refusal(self) -> tuple[int, str, str]:
        """The status of the last answer, and the type and the code of its error."""
        status, body = await self.answer()
        async with asyncio.timeout(20):
            assert await self.reader.read() == b""
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return status, error["type"], error["code"]


Connect = Callable[[int], Awaitable[Client]]
LATE = (408, "timeout_error", "request_timeout")


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens connections: `await connect(port)`."""
    writers: list[asyncio.StreamWriter] = []

    async def begin(port: int) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return Client(reader, writer)

    yield begin
    for writer in writers:
        writer.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HEAD_SECONDS", SOON)
    monkeypatch.setattr(base, "BODY_SECONDS", SOON)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("data", [b"\r\n", b"P", HEAD, HEAD + b"Content-Length: 2\r\n"])
async def test_a_head_that_does_not_end(server: Running, connect: Connect, data: bytes) -> None:
    client = await connect(server.port)
    await client.send(data)
    assert await client.refusal() == LATE


@pytest.mark.usefixtures("hurried")
async def test_a_head_that_comes_byte_by_byte(server: Running, connect: Connect) -> None:
    client = await connect(server.port)
    answer = asyncio.create_task(client.refusal())
    while not answer.done():
        await client.send(b"x")
        await asyncio.sleep(0.001)
    assert await answer == LATE


@pytest.mark.usefixtures("hurried")
async def test_the_second_head_of_a_connection(server: Running, connect: Connect) -> None:
    client = await connect(server.port)
    await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await client.answer())[0] == 200
    await client.send(b"GET")
    assert await client.refusal() == LATE


@pytest.mark.usefixtures("hurried")
async def test_a_connection_may_be_idle_and_an_answer_take_long(server: Running, connect: Connect) -> None:
    idle, waiting, slow = [await connect(server.port) for _ in range(3)]
    server.engine.resume.clear()
    await waiting.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    await slow.send(HEAD)
    assert await slow.refusal() == LATE
    server.engine.resume.set()
    assert (await waiting.answer())[0] == 200
    await idle.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await idle.answer())[0] == 200


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/health", "/ws/stream", "/nowhere"])
@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 2\r\n\r\n",
        b"Content-Length: 2\r\n\r\n{",
        b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
)
async def test_a_body_that_does_not_end(server: Running, connect: Connect, path: str, data: bytes) -> None:
    client = await connect(server.port)
    await client.send(HEAD.replace(b"/v1/completions", path.encode()) + data)
    if b"Expect" in data:
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 (Continue)\r\n\r\n"
    assert await client.refusal() == LATE
    assert not server.engine.submitted
    assert (await server.client.get("/health")).status_code == 200


async def test_a_body_that_takes_longer_than_its_request_may(start: Start, connect: Connect) -> None:
    """Something of it comes all the time."""
    server = await start(inference_timeout_seconds=1)
    client = await connect(server.port)
    await client.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
    answer = asyncio.create_task(client.refusal())
    while not answer.done():
        await client.send(b" ")
        await asyncio.sleep(0.01)
    assert await answer == LATE


@pytest.mark.usefixtures("hurried")
async def test_a_body_that_is_refused_and_does_not_end(start: Start, connect: Connect) -> None:
    """The answer is the refusal."""
    server = await start(requests_per_minute=1)
    assert (await server.client.get("/v1/models")).status_code == 200
    client = await connect(server.port)
    await client.send(HEAD + b"Content-Length: 2\r\n\r\n")
    assert await client.refusal() == (429, "rate_limit_error", "rate_limit_exceeded")


async def test_more_connections_than_there_may_be(server: Running, connect: Connect) -> None:
    http = http_server(application(server.context), max_connections=2)
    sockets = bind_sockets(0, "127.0.0.1")
    http.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    try:
        one, other = await connect(port), await connect(port)
        for client in (one, other):
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.answer())[0] == 200
        assert await (await connect(port)).refusal() == (503, "server_error", "overloaded")
        one.writer.close()
        await one.writer.wait_closed()
        async with asyncio.timeout(20):
            while True:
                client = await connect(port)
                await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                if (await client.answer())[0] == 200:
                    break
    finally:
        http.stop()
        await http.close_all_connections()


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "connections"),
    [
        (1024, 20_000, 10_128, 10_000),
        (1024, 4096, 4096, 3968),
        (1024, resource.RLIM_INFINITY, 10_128, 10_000),
        (65_536, 65_536, None, 10_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 10_000),
        (64, 64, 64, 1),
    ],
)
async def test_connections_follow_from_the_files_that_may_be_open(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, connections: int
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    assert transport.affordable_connections() == connections
    assert limits == ([] if raised is None else [(raised, hard)])


async def test_a_client_that_goes_before_a_small_answer(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is to blame, and nothing is to be logged as a fault."""
    for count in (1, 2, 10) * 10:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        writer.transport.abort()
    error_of(await server.client.get("/nowhere"))
    assert not any(record.exc_info for record in caplog.records)
