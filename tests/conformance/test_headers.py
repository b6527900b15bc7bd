"""What every response carries, and what every path does with a method that it does not have."""

import re

import httpx
import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import API_VERSION, STORY, Socket, error_of
from tests.runtime.process import MODEL, ServerProcess

GETS = [
    "/v1/models",
    f"/v1/models/{MODEL}",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/metrics/profiles/recent",
    "/metrics/profiles/stats",
    "/metrics/queue/status",
]
POSTS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
BODY = {"model": MODEL, "prompt": STORY, "max_tokens": 2}
REQUESTS = [
    *[("GET", path, None) for path in GETS],
    *[("HEAD", path, None) for path in GETS],
    *[("POST", path, {}) for path in POSTS],
    *[("DELETE", path, None) for path in (*GETS, *POSTS)],
    ("POST", "/v1/completions", BODY),
    ("POST", "/v1/completions", BODY | {"stream": True}),
    ("GET", f"/v1/stream/sse?model={MODEL}&prompt=Hi&max_tokens=1", None),
    ("GET", "/ws/stream", None),
    ("GET", "/nowhere", None),
    ("PROPFIND", "/v1/models", None),
]
SERVERS_OWN = re.compile(r"req_[0-9a-f]{24}")


@covers("headers.request-id", "headers.version", "overview.api-version")
@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_every_response_has_an_id_and_a_version(server: ServerProcess, method: str, path: str, body: object) -> None:
    response = server.client.request(method, path, json=body)
    assert response.headers["openai-version"] == API_VERSION
    assert SERVERS_OWN.fullmatch(response.headers["x-request-id"])
    again = server.client.request(method, path, json=body, headers={"X-Request-Id": "my-own/id 5"})
    assert again.headers["x-request-id"] == "my-own/id 5"


@covers("headers.request-id", "headers.version")
def test_a_websockets_handshake_too(server: ServerProcess) -> None:
    with Socket(server, header={"X-Request-Id": "mine"}) as client:
        headers = client.connection.getheaders()
    assert headers is not None
    assert (headers["x-request-id"], headers["openai-version"]) == ("mine", API_VERSION)


@covers("headers.request-id")
@pytest.mark.parametrize("sent", ["", "x" * 129, "é", "tab\there"], ids=["empty", "long", "not-ascii", "tab"])
def test_an_id_that_is_not_sane_is_replaced(server: ServerProcess, sent: str) -> None:
    response = server.client.get("/v1/models", headers={b"X-Request-Id": sent.encode()})
    assert SERVERS_OWN.fullmatch(response.headers["x-request-id"])


@covers("headers.request-id")
def test_two_requests_have_two_ids(server: ServerProcess) -> None:
    assert len({server.client.get("/health").headers["x-request-id"] for _ in range(5)}) == 5


# Methods and paths


@covers("paths.head")
@pytest.mark.parametrize("path", GETS)
def test_head_works_where_get_does(server: ServerProcess, path: str) -> None:
    get, head = server.client.get(path), server.client.head(path)
    assert (get.status_code, head.status_code) == (200, 200)
    assert get.content
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


@covers("paths.unknown-method", "errors.405")
@pytest.mark.parametrize(
    ("path", "allow"),
    [
        *[(path, {"GET", "HEAD"}) for path in (*GETS, "/ws/stream", "/v1/ws/stream")],
        *[(path, {"POST"}) for path in POSTS],
        ("/stream/sse", {"GET", "HEAD", "POST"}),
    ],
)
def test_a_method_that_is_not_there(server: ServerProcess, path: str, allow: set[str]) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
        if method in allow:
            continue
        response = server.client.request(method, path)
        assert response.status_code == 405, method
        assert set(response.headers["allow"].split(", ")) == allow
        if method != "HEAD":
            error = error_of(response)
            assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_allowed")


@covers("paths.unknown-method", "paths.unknown-path")
@pytest.mark.parametrize("path", ["/v1/models", "/nowhere"])
def test_a_connection_that_ends_with_an_answer_says_so(server: ServerProcess, path: str) -> None:
    assert server.client.request("PROPFIND", path).headers["connection"] == "close"
    for method in ("GET", "PUT", "DELETE"):
        assert "connection" not in server.client.request(method, path).headers


@covers("paths.unknown-path", "errors.404", "errors.not_found_error")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/nowhere", "/v1", "/v1/nothing", "/v1/chat", "/health/nothing", "/metrics/x"])
def test_a_path_that_is_not_there(server: ServerProcess, method: str, path: str) -> None:
    response = server.client.request(method, path)
    assert response.status_code == 404
    assert error_of(response)["type"] == "not_found_error"


@covers("streaming.no-cache")
def test_streams_are_not_to_be_cached(server: ServerProcess) -> None:
    def stream(path: str) -> httpx.Response:
        return server.client.post(path, json=BODY | {"stream": True})

    for path in ("/v1/completions", "/v1/stream/sse"):
        assert stream(path).headers["cache-control"] == "no-cache"
