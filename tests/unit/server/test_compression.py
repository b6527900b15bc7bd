"""Content codings: what clients ask for, and that they can read what they get."""

import asyncio
import gzip
import json
import sys
import zlib
from collections.abc import Callable

import brotli
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inferno_runtime.server import base
from inferno_runtime.server.compression import (
    IDENTITY,
    LEAST_BODY,
    Accepted,
    body_coding,
    compress,
    encoder,
    negotiate,
)
from inferno_runtime.worker.errors import EngineLost
from tests.unit.server.conftest import Running, Start
from tests.unit.server.fakes import FakeEngine

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = ["zstd", "br", "gzip", "deflate"]
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd.decompress,
    "br": brotli.decompress,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    IDENTITY: bytes,
}


def incremental(coding: str) -> Callable[[bytes], bytes]:
    """A decoder that gives what it can, piece by piece, as clients' decoders do."""
    if coding == "zstd":
        return zstd.ZstdDecompressor().decompress
    if coding == "br":
        decompressor = brotli.Decompressor()
        # Where its ring buffer wraps it keeps what it has decoded until it is asked again.
        return lambda data: bytes(decompressor.process(data) + decompressor.process(b""))
    return zlib.decompressobj(wbits=31 if coding == "gzip" else 15).decompress


@pytest.mark.parametrize(
    ("header", "coding", "plain"),
    [
        # RFC 9110, 12.5.3
        pytest.param(None, IDENTITY, True, id="no header: anything would do, so nothing is done"),
        pytest.param("", IDENTITY, True, id="an empty header: identity only"),
        pytest.param("   ", IDENTITY, True, id="blanks"),
        pytest.param("gzip", "gzip", True, id="one"),
        pytest.param("GZip", "gzip", True, id="names know no case"),
        pytest.param("x-gzip", "gzip", True, id="the old name"),
        pytest.param("deflate", "deflate", True, id="deflate"),
        pytest.param("br", "br", True, id="brotli"),
        pytest.param("zstd", "zstd", True, id="zstd"),
        pytest.param("gzip, deflate", "gzip", True, id="httpx and requests"),
        pytest.param("gzip, deflate, br", "gzip", True, id="the API document's example"),
        pytest.param("gzip, deflate, br, zstd", "zstd", True, id="browsers"),
        pytest.param("gzip;q=0.9, deflate, br", "br", True, id="brotli is liked better"),
        pytest.param("gzip;q=1.0, br;q=0.5", "gzip", True, id="the weight decides"),
        pytest.param("br;q=0.8,gzip;q=0.801", "gzip", True, id="three decimals"),
        pytest.param("compress, gzip", "gzip", True, id="one that is not here is passed over"),
        pytest.param("compress", IDENTITY, True, id="nothing that is here"),
        pytest.param("gzip;q=0", IDENTITY, True, id="a weight of 0 is a no"),
        pytest.param("gzip;q=0.000", IDENTITY, True, id="however it is written"),
        pytest.param("*", "gzip", True, id="anything: what most clients have"),
        pytest.param("*;q=0.5", "gzip", True, id="anything, with a weight"),
        pytest.param("br, *;q=0.1", "br", True, id="a name and the rest"),
        pytest.param("gzip;q=0, *", "deflate", True, id="the rest without one"),
        pytest.param("gzip;q=0.5, *", "deflate", True, id="the rest is liked better"),
        pytest.param("*;q=0", IDENTITY, False, id="nothing at all"),
        pytest.param("gzip, *;q=0", "gzip", False, id="this one only"),
        pytest.param("identity", IDENTITY, True, id="identity"),
        pytest.param("identity;q=0", IDENTITY, False, id="not identity, and nothing else is named"),
        pytest.param("identity;q=0, br", "br", False, id="anything but identity"),
        pytest.param("gzip;q=0.5, identity", IDENTITY, True, id="identity is liked better"),
        pytest.param("gzip, identity", "gzip", True, id="identity is liked as well"),
        pytest.param("gzip;q=0.2, identity;q=0.1", "gzip", True, id="identity is liked less"),
        pytest.param("*;q=0, identity", IDENTITY, True, id="identity only"),
        pytest.param("*;q=0.5, identity;q=1", IDENTITY, True, id="identity before the rest"),
        pytest.param("\tgzip \t;\t q=0.9 ,\tbr;q=0.1", "gzip", True, id="blanks where they may stand"),
        pytest.param("gzip;Q=0.1, br;Q=0.9", "br", True, id="Q"),
        pytest.param(",, gzip,,", "gzip", True, id="empty elements"),
        pytest.param("gzip;q=1.", "gzip", True, id="a point without decimals"),
        pytest.param("gzip, gzip;q=0", IDENTITY, True, id="named twice: the no counts"),
        # malformed elements are as good as not there
        pytest.param("gzip;q=", IDENTITY, True, id="no weight"),
        pytest.param("gzip;q=high", IDENTITY, True, id="a word for a weight"),
        pytest.param("gzip;q=2", IDENTITY, True, id="a weight above 1"),
        pytest.param("gzip;q=1.001", IDENTITY, True, id="a little above 1"),
        pytest.param("gzip;q=-1", IDENTITY, True, id="a negative weight"),
        pytest.param("gzip;q=0.1234", IDENTITY, True, id="four decimals"),
        pytest.param("gzip;q=1e-1", IDENTITY, True, id="an exponent"),
        pytest.param("gzip;q=nan", IDENTITY, True, id="not a number"),
        pytest.param("gzip;q =0.5", IDENTITY, True, id="a blank before the ="),
        pytest.param("gzip;level=9", IDENTITY, True, id="another parameter"),
        pytest.param("gzip;q=0.5;q=1", IDENTITY, True, id="two weights"),
        pytest.param("gzip deflate", IDENTITY, True, id="no comma"),
        pytest.param('"gzip"', IDENTITY, True, id="quotes"),
        pytest.param("gzip;q=oops, br;q=0.5", "br", True, id="the others still count"),
        pytest.param(";q=1, br", "br", True, id="a weight of nothing"),
        pytest.param("identity;q=0;q=0", IDENTITY, True, id="a malformed no is none"),
        pytest.param("ｇzip", IDENTITY, True, id="not ASCII"),
        pytest.param("a," * 1000 + "gzip", IDENTITY, True, id="too many to read"),
    ],
)
def test_what_a_client_accepts(header: str | None, coding: str, plain: bool) -> None:
    assert negotiate(header) == Accepted(coding, plain)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_header_has_an_answer(header: str) -> None:
    accepted = negotiate(header)
    assert accepted.coding in (*CODINGS, IDENTITY)


@pytest.mark.parametrize(
    ("header", "size", "coding"),
    [
        ("gzip", LEAST_BODY - 1, IDENTITY),
        ("gzip", LEAST_BODY, "gzip"),
        ("gzip, identity;q=0", 1, "gzip"),
        ("gzip, identity;q=0", 0, IDENTITY),
        ("identity;q=0", 5000, IDENTITY),
    ],
)
def test_small_bodies_are_left_alone_where_that_is_acceptable(header: str, size: int, coding: str) -> None:
    assert body_coding(header, size) == coding


@pytest.mark.parametrize("coding", CODINGS)
@settings(deadline=None)
@given(body=st.binary(max_size=3000))
def test_a_whole_body_comes_back(coding: str, body: bytes) -> None:
    assert DECOMPRESS[coding](compress(body, coding)) == body


EVENT = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.text(max_size=50).map(lambda text: b'data: {"choices":[{"text":' + json.dumps(text).encode() + b"}]}\n\n"),
    st.just(b": waiting\n\n"),
    st.binary(min_size=1, max_size=50).map(lambda data: data * 1000),  # longer than any window
)


@pytest.mark.parametrize("coding", CODINGS)
@settings(deadline=None)
@given(events=st.lists(EVENT, max_size=12))
@example(events=[bytes(16), bytes(33_000)])
def test_a_client_has_each_event_as_soon_as_it_is_sent(coding: str, events: list[bytes]) -> None:
    writer, decode = encoder(coding), incremental(coding)
    assert writer is not None
    sent = b""
    for event in events:
        written = writer.encode(event)
        assert decode(written) == event
        sent += written
    sent += writer.end()
    assert DECOMPRESS[coding](sent) == b"".join(events)


@pytest.mark.parametrize("coding", CODINGS)
def test_events_shrink(coding: str) -> None:
    # Also across flushes: what an event repeats of the one before is not written again.
    writer = encoder(coding)
    assert writer is not None
    head = b'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","choices":[{"delta":{"content":"'
    events = [head + word + b'"}}]}\n\n' for word in [b"some", b"words", b"follow", b"one", b"another"] * 40]
    written = sum(len(writer.encode(event)) for event in events)
    assert written * 2 < sum(map(len, events))


def test_identity_has_no_encoder() -> None:
    assert encoder(IDENTITY) is None


# Over HTTP


async def raw(server: Running, request: bytes) -> tuple[dict[str, str], bytes]:
    """The headers, in lower case, and all bytes of the body that a connection brings until its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(20):
        writer.write(request)
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def get(path: str, accept: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accept}\r\nConnection: close\r\n\r\n".encode()


def dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return whole


async def completion(server: Running, accept: str, version: str = "1.1", **fields: object) -> tuple[str, bytes]:
    """The coding and the decoded body of a completion."""
    body = json.dumps({"model": "fake", "prompt": "x", **fields}).encode()
    head = (
        f"POST /v1/completions HTTP/{version}\r\nHost: x\r\nAccept-Encoding: {accept}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    headers, answer = await raw(server, head.encode() + body)
    assert headers["vary"] == "Accept-Encoding"
    if headers.get("transfer-encoding") == "chunked":
        answer = dechunked(answer)
    coding = headers.get("content-encoding", IDENTITY)
    return coding, DECOMPRESS[coding](answer)


@pytest.mark.parametrize("coding", [*CODINGS, IDENTITY])
async def test_bodies(server: Running, coding: str) -> None:
    headers, body = await raw(server, get("/metrics", coding))
    assert headers.get("content-encoding", IDENTITY) == coding
    assert int(headers["content-length"]) == len(body)
    assert headers["vary"] == "Accept-Encoding"
    assert b"inferno_num_requests_running" in DECOMPRESS[coding](body)


@pytest.mark.parametrize("coding", [*CODINGS, IDENTITY])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_streams(server: Running, coding: str, version: str) -> None:
    used, text = await completion(server, coding, version, stream=True)
    assert used == coding
    assert text.startswith(b"data: {")
    assert text.endswith(b"data: [DONE]\n\n")


async def test_each_event_arrives_while_the_next_one_is_awaited(start: Start) -> None:
    server = await start(FakeEngine(says="x" * 400), token_batch_size=1)
    server.engine.resume.clear()
    body = b'{"model":"fake","prompt":"x","stream":true}'
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    request = b"POST /v1/completions HTTP/1.0\r\nHost: x\r\nAccept-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    writer.write(request + body)
    decode, text = incremental("gzip"), b""
    async with asyncio.timeout(20):
        server.engine.resume.set()
        await reader.readuntil(b"\r\n\r\n")
        server.engine.resume.clear()  # after the first token, or a few
        while not text.endswith(b"\n\n"):
            text += decode(await reader.read(1 << 16))
        assert b"[DONE]" not in text
        server.engine.resume.set()
        while rest := await reader.read(1 << 16):
            text += decode(rest)
    assert text.endswith(b"data: [DONE]\n\n")
    writer.close()


async def test_small_answers_are_plain(server: Running) -> None:
    used, body = await completion(server, "gzip")
    assert used == IDENTITY
    assert json.loads(body)["choices"][0]["text"] == "Hello, world"


@pytest.mark.parametrize("coding", CODINGS)
async def test_small_answers_to_clients_that_refuse_plain_ones(server: Running, coding: str) -> None:
    used, body = await completion(server, f"{coding}, identity;q=0")
    assert used == coding
    assert json.loads(body)["choices"][0]["text"] == "Hello, world"


async def test_a_client_that_accepts_nothing_is_answered_all_the_same(server: Running) -> None:
    used, body = await completion(server, "*;q=0", stream=True)
    assert used == IDENTITY
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("coding", CODINGS)
async def test_errors(server: Running, coding: str) -> None:
    used, body = await completion(server, f"{coding}, identity;q=0", max_tokens=-1)
    assert used == coding
    assert json.loads(body)["error"]["param"] == "max_tokens"


@pytest.mark.parametrize("coding", [*CODINGS, IDENTITY])
async def test_head_has_the_headers_of_get(server: Running, coding: str) -> None:
    get_headers, _ = await raw(server, get("/openapi.json", coding))
    head_headers, body = await raw(server, get("/openapi.json", coding, "HEAD"))
    assert body == b""
    for name in ("content-length", "content-encoding", "vary", "content-type"):
        assert head_headers.get(name) == get_headers.get(name)


@pytest.mark.parametrize("coding", [*CODINGS, IDENTITY])
async def test_a_large_body(server: Running, coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "LARGE_BODY", LEAST_BODY)
    headers, body = await raw(server, get("/metrics", coding))
    assert headers.get("content-encoding", IDENTITY) == coding
    assert int(headers["content-length"]) == len(body)
    assert b"inferno_num_requests_running" in DECOMPRESS[coding](body)


@pytest.mark.parametrize("coding", CODINGS)
async def test_an_error_in_mid_stream_can_be_read(server: Running, coding: str) -> None:
    server.engine.fails = EngineLost("Lost.")
    used, text = await completion(server, coding, stream=True)
    assert used == coding
    last = text.rstrip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_restarted"


async def test_a_client_that_vanishes_from_a_compressed_stream(server: Running) -> None:
    server.engine.says = "x" * 100
    body = {"model": "fake", "prompt": "a", "stream": True, "max_tokens": 100}
    async with server.client.stream(
        "POST", "/v1/completions", json=body, headers={"Accept-Encoding": "br"}
    ) as response:
        server.engine.resume.clear()
        async for _ in response.aiter_raw():
            break
    async with asyncio.timeout(20):
        while server.context.in_flight:
            await asyncio.sleep(0.005)
    server.engine.resume.set()
    assert (await server.chat()).status_code == 200


async def test_a_usual_client_notices_nothing(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.client.base_url, trust_env=False) as client:
        response = await client.get("/openapi.json", headers={"Accept-Encoding": "gzip, deflate"})
        assert response.headers["content-encoding"] == "gzip"
        assert response.json()["openapi"].startswith("3.1")
