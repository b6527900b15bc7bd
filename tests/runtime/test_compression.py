"""Content codings on real sockets: the text is the same in each, and can be read as it comes."""

import http.client
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import pytest

from tests.runtime.process import MODEL, ServerProcess, eventually

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = ["zstd", "br", "gzip", "deflate"]
STORY = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "stream": True}


def decoder(coding: str | None) -> Callable[[bytes], bytes]:
    """A decoder that gives what it can, piece by piece."""
    match coding:
        case "zstd":
            return zstd.ZstdDecompressor().decompress
        case "br":
            decompressor = brotli.Decompressor()
            return lambda data: bytes(decompressor.process(data))
        case "gzip":
            return zlib.decompressobj(wbits=31).decompress
        case "deflate":
            return zlib.decompressobj().decompress
        case _:
            return bytes


class Answer:
    """A response whose body is read as it comes."""

    def __init__(self, server: ServerProcess, method: str, path: str, accept: str, body: Any = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        headers = {"Accept-Encoding": accept, "Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        self.response = self._connection.getresponse()
        self.coding = self.response.getheader("Content-Encoding")

    def pieces(self) -> Iterator[bytes]:
        """The body, decoded."""
        decode = decoder(self.coding)
        while data := self.response.read1(65536):
            yield decode(data)
        self.close()

    def close(self) -> None:
        """Go, whether or not all was read."""
        self.response.close()
        self._connection.close()


def said(text: bytes) -> str:
    """The text of a stream of events."""
    *events, last = [event.removeprefix(b"data: ") for event in text.split(b"\n\n") if event.startswith(b"data: ")]
    assert last == b"[DONE]"
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


@pytest.fixture(scope="module")
def plain(server: ServerProcess) -> str:
    answer = Answer(server, "POST", "/v1/completions", "identity", STORY)
    assert answer.coding is None
    return said(b"".join(answer.pieces()))


@pytest.mark.parametrize("coding", CODINGS)
def test_a_stream_says_the_same(server: ServerProcess, plain: str, coding: str) -> None:
    answer = Answer(server, "POST", "/v1/completions", coding, STORY)
    assert answer.coding == coding
    assert answer.response.getheader("Vary") == "Accept-Encoding"
    pieces = list(answer.pieces())
    # The first token does not wait in the encoder for those that follow.
    assert pieces[0].startswith(b"data: {")
    assert said(b"".join(pieces)) == plain


@pytest.mark.parametrize("coding", CODINGS)
def test_a_chat_through_openais_way_of_asking(server: ServerProcess, coding: str) -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    answer = Answer(
        server, "POST", "/v1/chat/completions", f"{coding};q=0.9, identity;q=0.1", body | {"temperature": 0}
    )
    assert answer.coding == coding
    text = b"".join(answer.pieces())
    assert text.endswith(b"data: [DONE]\n\n")
    assert b"Paris" in text


@pytest.mark.parametrize("coding", CODINGS)
def test_a_client_that_vanishes_frees_its_slot(server: ServerProcess, coding: str) -> None:
    long = STORY | {"max_tokens": 900, "ignore_eos": True}
    answer = Answer(server, "POST", "/v1/completions", coding, long)
    assert next(answer.pieces())
    answer.close()
    eventually(lambda: server.active() == 0, "its slot is free")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
def test_whole_bodies(server: ServerProcess, coding: str, path: str) -> None:
    answer = Answer(server, "GET", path, coding)
    assert answer.coding == coding
    plain = Answer(server, "GET", path, "identity")
    body, uncoded = b"".join(answer.pieces()), b"".join(plain.pieces())
    if path == "/openapi.json":
        assert body == uncoded
    assert int(answer.response.getheader("Content-Length") or 0) < len(uncoded) / 2


def test_small_bodies_stay_plain(server: ServerProcess) -> None:
    answer = Answer(server, "GET", "/v1/models", "gzip, br")
    assert answer.coding is None
    assert json.loads(b"".join(answer.pieces()))["object"] == "list"
