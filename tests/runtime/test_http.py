"""The edges of HTTP, against the real server."""

import json
import socket

import pytest

from tests.runtime.process import MODEL, ServerProcess


def exchange(server: ServerProcess, data: bytes) -> bytes:
    """Send bytes; everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize("extra", ["", "Expect: 100-continue\r\n"])
def test_a_large_body_is_refused_before_it_is_sent(server: ServerProcess, extra: str) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n{extra}\r\n"
    top, _, body = exchange(server, head.encode()).partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["error"]["code"] == "request_too_large"


def test_a_large_body_that_is_sent_all_the_same(server: ServerProcess) -> None:
    response = server.client.post("/v1/completions", content=b" " * (33 * 1024 * 1024))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


def test_a_long_prompt_is_refused_in_words(server: ServerProcess) -> None:
    response = server.chat("word " * 200_000)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert response.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/v1/models", 200),
        ("HEAD", f"/v1/models/{MODEL}", 200),
        ("HEAD", "/health", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/chat", 404),
        ("DELETE", f"/v1/models/{MODEL}", 405),
    ],
)
def test_methods_and_paths(server: ServerProcess, method: str, path: str, status: int) -> None:
    response = server.client.request(method, path)
    assert response.status_code == status
    assert response.headers["openai-version"] == "2023-06-01"
    assert "x-request-id" in response.headers
    if status >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_media_type_that_is_not_json(server: ServerProcess) -> None:
    response = server.client.post("/v1/completions", content=b"a=b", headers={"Content-Type": "text/plain"})
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_a_malformed_request_line(server: ServerProcess) -> None:
    assert exchange(server, b"this is not http\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in server.log


def test_health_tells_what_runs(server: ServerProcess, model_format: str) -> None:
    body = server.client.get("/health").json()
    assert (body["status"], body["model"], body["format"]) == ("healthy", MODEL, model_format)
    assert set(body["engine"]) == {"state", "active", "queued", "kv_usage", "tuning", "draft"}
    assert body["engine"]["state"] == "ready"
