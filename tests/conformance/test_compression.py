"""Compression: what is negotiated, what stays plain, and streams that can be read as they come."""

import json
from typing import Any

import httpx
import pytest

from tests.conformance.covering import covers
from tests.conformance.trouble import ENDLESS
from tests.conformance.wire import STORY
from tests.runtime.process import MODEL, ServerProcess, eventually
from tests.runtime.test_compression import decoder

CODINGS = ["gzip", "deflate", "br", "zstd"]
STREAM = {"model": MODEL, "prompt": STORY, "max_tokens": 200, "temperature": 0, "ignore_eos": True, "stream": True}
LEAST_RATIO = {"gzip": 2.5, "deflate": 2.0, "br": 3.0, "zstd": 2.5}  # the documented ones, and zstd like gzip


def fetch(server: ServerProcess, accept: str | None, body: Any = None, path: str = "/metrics") -> tuple[str, bytes]:
    """The coding of an answer, and the bytes that came."""
    method = "GET" if body is None else "POST"
    with httpx.Client(base_url=server.root, timeout=60, trust_env=False) as client:
        request = client.build_request(method, path, json=body)
        del request.headers["Accept-Encoding"]
        if accept is not None:
            request.headers["Accept-Encoding"] = accept
        response = client.send(request, stream=True)
        raw = b"".join(response.iter_raw())
        assert response.status_code == 200
        assert "Accept-Encoding" in response.headers["vary"]
        return response.headers.get("content-encoding", "identity"), raw


@covers("compression.accept-encoding", "compression.q-values")
@pytest.mark.parametrize(
    ("accept", "codings"),
    [
        ("gzip, deflate, br", {"gzip", "deflate", "br"}),
        (None, {"identity"}),
        ("", {"identity"}),
        ("identity", {"identity"}),
        ("gzip", {"gzip"}),
        ("deflate", {"deflate"}),
        ("br", {"br"}),
        ("zstd", {"zstd"}),
        ("gzip;q=0.5, br;q=1.0", {"br"}),
        ("gzip;q=1.0, br;q=0.5", {"gzip"}),
        ("gzip;q=0.4, zstd;q=0.6, deflate;q=0.5", {"zstd"}),
        ("gzip;q=0, br;q=0.1", {"br"}),
        ("identity;q=1, gzip;q=0.5", {"identity"}),
        ("gzip;q=0", {"identity"}),
        ("*", set(CODINGS)),
        ("*;q=0, gzip", {"gzip"}),
        ("compress, nonsense", {"identity"}),
    ],
)
def test_what_is_negotiated(server: ServerProcess, accept: str | None, codings: set[str]) -> None:
    coding, raw = fetch(server, accept)
    assert coding in codings
    assert b"inferno_requests_total" in decoder(coding)(raw)


@covers("compression.formats", "compression.ratios", "matrix.extensions.compression")
@pytest.mark.parametrize("coding", CODINGS)
def test_a_stream_says_the_same_in_less(server: ServerProcess, coding: str) -> None:
    plain = fetch(server, None, STREAM, "/v1/completions")[1]
    got, raw = fetch(server, coding, STREAM, "/v1/completions")
    assert got == coding
    decoded = decoder(coding)(raw)
    assert said(decoded) == said(plain)
    assert len(decoded) / len(raw) > LEAST_RATIO[coding]


def said(stream: bytes) -> str:
    *events, last = [event.removeprefix(b"data: ") for event in stream.split(b"\n\n") if event]
    assert last == b"[DONE]"
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


@covers("compression.flushed")
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/stream/sse"])
def test_an_event_can_be_read_as_soon_as_it_has_come(roomy: ServerProcess, coding: str, path: str) -> None:
    body = {"model": MODEL, "prompt": STORY, "stream": True, **ENDLESS}
    with roomy.client.stream("POST", path, json=body, headers={"Accept-Encoding": coding}) as response:
        assert response.headers["content-encoding"] == coding
        decode, pieces = decoder(coding), response.iter_raw()
        text = b""
        while b"\n\n" not in text:
            text += decode(next(pieces))
        assert b"data: {" in text
        assert roomy.active() == 1  # tens of thousands of tokens are still to come
    eventually(lambda: roomy.active() == 0, "the client has gone")


@covers("compression.small-bodies")
def test_small_bodies_stay_plain(server: ServerProcess) -> None:
    coding, raw = fetch(server, "gzip, br", path="/v1/models")
    assert (coding, json.loads(raw)["object"]) == ("identity", "list")


@covers("compression.small-bodies")
def test_bodies_of_more_than_a_kilobyte_do_not(embedder: ServerProcess) -> None:
    body = {"model": MODEL, "input": ["a", "b"]}
    coding, raw = fetch(embedder, "gzip", body, "/v1/embeddings")
    answer = decoder(coding)(raw)
    assert len(answer) > 1024
    assert (coding, len(json.loads(answer)["data"])) == ("gzip", 2)


@covers("compression.vary")
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/health", "/nowhere"])
def test_vary_is_on_every_answer(server: ServerProcess, path: str) -> None:
    assert "Accept-Encoding" in server.client.get(path).headers["vary"]
