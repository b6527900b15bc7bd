"""Requests that are not HTTP, or not any that is served: each gets one answer, an error object, and harms nobody."""

from collections.abc import Iterator

import pytest

from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.raw import GOOD, answers, ask, exchange, get, head, request, unharmed

LONG = "x" * 70_000  # beyond what the head of a request may have
CHUNKED = head("Transfer-Encoding: chunked")


@pytest.fixture(autouse=True)
def _unharmed(server: ServerProcess) -> Iterator[None]:
    with unharmed(server):
        yield


NOT_HTTP = {
    # The first line
    "nothing": b"\r\n\r\n",
    "words": b"this is not http\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "an unknown version": b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
    "HTTP/2 without negotiation": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version in lower case": b"GET /health http/1.1\r\nHost: x\r\n\r\n",
    "two spaces": b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the place of a space": b"GET\t/health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the method": b" GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method that is no token": b"GE(T /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /health now HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL in the path": b"GET /health\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control byte in the path": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a carriage return in the first line": b"GET /health\rX HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS client": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    # Headers
    "no colon": head("nothing"),
    "no name": head(": x"),
    "a space before the colon": head("Transfer-Encoding : chunked"),
    "a folded header": head("X-Long: a", " b"),
    "a header that begins with a tab": head("\tX: y"),
    "a NUL in a value": head("X: a\0b"),
    "a delete in a value": head("X: a\x7fb"),
    "a carriage return in a value": head("X: a\rContent-Length: 2"),
    "a control byte in a name": head("X\x01: y"),
    "a name that is not ASCII": head("Ä: y"),
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": head("Host: y"),
    "a host with a path": b"GET /health HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "a host with a user": b"GET /health HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a query of two thousand parameters": get("/health?" + "a=&" * 2000),
    # The framing of a body, where two readers could differ on what is the next request
    "a length in words": head("Content-Length: ten"),
    "a negative length": head("Content-Length: -1"),
    "a length with a sign": head("Content-Length: +2") + b"{}",
    "a hexadecimal length": head("Content-Length: 0x2") + b"{}",
    "a length with an underscore": head("Content-Length: 1_0") + b"{}",
    "a length with a space": head("Content-Length: 1 0") + b"{}",
    "an empty length": head("Content-Length:"),
    "a length that is not ASCII": head("Content-Length: ²") + b"{}",
    "two lengths": head("Content-Length: 2", "Content-Length: 3") + b"{}",
    "two lengths in one": head("Content-Length: 2, 3") + b"{}",
    "a length and chunks": head("Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + get("/health"),
    "chunks and a length": head("Transfer-Encoding: chunked", "Content-Length: 0") + b"0\r\n\r\n" + get("/health"),
    "an unknown transfer coding": head("Transfer-Encoding: xchunked"),
    "a transfer coding beside chunks": head("Transfer-Encoding: gzip, chunked"),
    "a transfer coding behind chunks": head("Transfer-Encoding: chunked, identity"),
    "chunks twice": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunks in quotes": head('Transfer-Encoding: "chunked"'),
    "chunks behind a vertical tab": head("Transfer-Encoding: \x0bchunked"),
    "a chunk's size in words": CHUNKED + b"ten\r\n{}\r\n0\r\n\r\n",
    "a negative chunk's size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk's size with a prefix": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk's size with a space": CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n",
    "an empty chunk's size": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "a chunk's size beyond any": CHUNKED + b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "a chunk's size of a thousand digits": CHUNKED + b"0" * 1000 + b"2\r\n{}\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "chunks that end in something else": CHUNKED + b"2\r\n{}\r\n0\r\n{}",
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http(server: ServerProcess, data: bytes) -> None:
    answer = ask(server, data)  # one, whatever follows the request
    error = answer.error
    assert (answer.status, error["type"], error["code"]) == (400, "invalid_request_error", "malformed_request")
    assert answer.headers["connection"] == "close"
    assert answer.headers["openai-version"] == "2023-06-01"
    assert "x-request-id" in answer.headers


TOO_LARGE = {
    "a path": (get(f"/{LONG}"), 431),
    "a query": (get(f"/health?{LONG}"), 431),
    "a header": (get("/health", f"X: {LONG}"), 431),
    "a header's name": (get("/health", f"{LONG}: x"), 431),
    "many headers": (get("/health", *("X: yyyyyyyyyyyyyyyyyy" for _ in range(4000))), 431),
    "a first line without an end": (LONG.encode(), 431),
    "a length": (head(f"Content-Length: {1 << 40}"), 413),
    "a length beyond 64 bits": (head(f"Content-Length: {1 << 80}"), 413),
    "a length of five thousand digits": (head(f"Content-Length: {'9' * 5000}"), 413),
}


@pytest.mark.parametrize(("data", "status"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large(server: ServerProcess, data: bytes, status: int) -> None:
    answer = ask(server, data)
    code = {413: "request_too_large", 431: "headers_too_large"}[status]
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["connection"] == "close"


NOT_THERE = {
    "a method that the path does not have": (get("/v1/completions", method="DELETE"), 405, "method_not_allowed"),
    "a method that nothing has": (get("/v1/models", method="BREW"), 405, "method_not_allowed"),
    "a method in lower case": (get("/v1/models", method="get"), 405, "method_not_allowed"),
    "a trace": (get("/v1/models", method="TRACE"), 405, "method_not_allowed"),
    "a tunnel": (get("x:443", method="CONNECT"), 404, "not_found"),
    "the options of everything": (get("*", method="OPTIONS"), 404, "not_found"),
    "a path in capitals": (get("/V1/MODELS"), 404, "not_found"),
    "an encoded slash": (get("/v1%2Fmodels"), 404, "not_found"),
    "two slashes": (get("//v1/models"), 404, "not_found"),
    "a slash at the end": (request(GOOD, path="/v1/completions/"), 404, "not_found"),
    "a way up": (get("/v1/../health"), 404, "not_found"),
    "a way up out of everything": (get("/../../etc/passwd"), 404, "not_found"),
    "a matrix parameter": (get("/v1/models;a=b"), 404, "not_found"),
    "a percent sign": (get("/%"), 404, "not_found"),
    "a path that is not ASCII": (get("/é"), 404, "not_found"),
    "a path without a slash": (get("health"), 404, "not_found"),
    "a long path": (get("/" + "x" * 60_000), 404, "not_found"),
    "a model that is a way up": (get("/v1/models/..%2f..%2fhealth"), 404, "model_not_found"),
    "a model that is a NUL": (get("/v1/models/%00"), 404, "model_not_found"),
    "a model of a long name": (get("/v1/models/" + "x" * 60_000), 404, "model_not_found"),
    "a model that is half encoded": (get("/v1/models/%zz"), 404, "model_not_found"),
    "a model that is not UTF-8": (get("/v1/models/%ff"), 400, "invalid_request"),
    "a number of profiles in words": (get("/metrics/profiles/recent?limit=ten"), 400, "invalid_value"),
    "no profiles": (get("/metrics/profiles/recent?limit=0"), 400, "invalid_value"),
    "a negative number of profiles": (get("/metrics/profiles/recent?limit=-1"), 400, "invalid_value"),
    "a number of profiles beyond any": (get(f"/metrics/profiles/recent?limit={'9' * 5000}"), 400, "invalid_value"),
    "an unknown window": (get("/metrics/queue/status?window=forever"), 400, "invalid_value"),
    "a window that is not UTF-8": (get("/metrics/profiles/stats?window=%ff"), 400, "invalid_request"),
    "profiles of no model": (get("/metrics/profiles/stats?model=none"), 404, "model_not_found"),
}


@pytest.mark.parametrize(("data", "status", "code"), NOT_THERE.values(), ids=NOT_THERE)
def test_what_is_not_there(server: ServerProcess, data: bytes, status: int, code: str) -> None:
    answer = ask(server, data)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert ("allow" in answer.headers) is (status == 405)


# What looks wrong and is not, lest the server be strict where the standard is not.
CHUNKS = b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n"
ODD = {
    "an empty line before the request": b"\r\n" + request(GOOD),
    "the same length twice": request(GOOD, f"Content-Length: {len(GOOD)}"),
    "HTTP/1.0 without a host": b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
    "a chunk for each byte": head("Transfer-Encoding: chunked", "Connection: close") + CHUNKS,
    "chunks in capitals": head("TRANSFER-ENCODING: Chunked", "CONNECTION: Close") + CHUNKS,
    "a large header": request(GOOD, f"X: {'x' * 60_000}"),
    "a header that is not ASCII": request(GOOD, "X: é"),
    "no space behind a colon": request(GOOD, "X:y"),
    "an id of the client's that is none": request(GOOD, "X-Request-Id: é"),
    "an unknown expectation": request(GOOD, "Expect: miracles"),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_what_is_odd_and_right(server: ServerProcess, data: bytes) -> None:
    assert ask(server, data).status == 200


def test_requests_in_a_row_are_answered_in_order(server: ServerProcess) -> None:
    data = head(method="GET", path=f"/v1/models/{MODEL}") + head(method="GET", path="/nowhere") + request(GOOD)
    assert [answer.status for answer in answers(exchange(server, data))] == [200, 404, 200]


def test_what_lies_behind_the_last_request_is_none(server: ServerProcess) -> None:
    before = len(server.log)
    assert ask(server, get("/v1/models") + get("/v1/models", "X-Request-Id: never")).status == 200
    assert ask(server, get("/health")).status == 200
    assert "never" not in server.log[before:]


def test_a_refused_body_need_not_be_understood(server: ServerProcess) -> None:
    """The answer to a request that is refused early is not followed by another to what is wrong with its body."""
    chunk = b"2000000\r\n" + b" " * 0x2000000 + b"\r\n"
    answer = ask(server, head("Transfer-Encoding: chunked") + chunk * 2 + b"no chunk at all\r\n")
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_what_cannot_be_read_is_not_logged(server: ServerProcess) -> None:
    """Where a header is malformed it may be the one with the key."""
    before = len(server.log)
    assert ask(server, get("/v1/models", "Authorization: Bearer sk-planted\r")).status == 400
    assert "sk-planted" not in server.log
    assert "malformed_request" in server.log[before:]
