"""Rate limits: the defaults, what is counted, the headers that tell of it, and what happens beyond."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
import websocket

from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.trouble import ENDLESS, LONG_CONTEXT
from tests.conformance.wire import QUESTION, STORY, Socket, chunks_of, error_of
from tests.runtime.process import MODEL, ServerProcess, eventually

# Each key has the server's limits to itself, and so each test.
NAMES = ["requests", "tokens", "charges", "streams", "paths", "another", "transports", "refused", "reset"]
KEYS = (
    "".join(f"- {{name: {name}, key: sk-{name}}}\n" for name in NAMES)
    + "- {name: sockets, key: sk-sockets, requestsPerMinute: 0}\n"
)
WHATS = ["Requests", "Tokens"]
KINDS = ["Limit", "Remaining", "Reset"]


@pytest.fixture(scope="module")
def default(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with keys and with the limits that it has by itself."""
    keys: Path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    keys.write_text(KEYS)
    with patch("tests.runtime.process.UNLIMITED", ()):  # which other servers of the tests are started with
        server = serve("--keys-file", str(keys))
    with server:
        yield server


@pytest.fixture(scope="module")
def keyless(serve: Serve) -> Iterator[ServerProcess]:
    """A server without keys that lets an address make few requests."""
    limits = ("--requests-per-minute", "5", "--tokens-per-minute", "5000", "--max-connections", "1")
    with serve(*limits, *LONG_CONTEXT) as server:
        yield server


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer sk-{name}"}


def complete(server: ServerProcess, name: str, prompt: object = STORY, **fields: object) -> httpx.Response:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 2, **fields}
    return server.client.post("/v1/completions", json=body, headers=bearer(name))


def left(response: httpx.Response, what: str) -> int:
    return int(response.headers[f"x-ratelimit-remaining-{what}"])


def refused(response: httpx.Response) -> None:
    """Hold a refusal to what is documented."""
    error = error_of(response)
    assert response.status_code == 429
    assert error["type"] == "rate_limit_error"
    assert error["message"].startswith("Rate limit exceeded")
    assert 1 <= int(response.headers["retry-after"]) <= 60


@covers("limits.requests", "limits.headers", "limits.exceeded", "errors.429", "errors.rate_limit_error")
def test_a_hundred_requests_a_minute(default: ServerProcess) -> None:
    responses = [default.client.get("/v1/models", headers=bearer("requests")) for _ in range(101)]
    assert [response.status_code for response in responses] == [200] * 100 + [429]
    assert [left(response, "requests") for response in responses] == [*range(99, -1, -1), 0]
    assert {response.headers["x-ratelimit-limit-requests"] for response in responses} == {"100"}
    refused(responses[-1])
    # Somebody else's are his own.
    assert default.client.get("/v1/models", headers=bearer("another")).status_code == 200


@covers("limits.tokens", "limits.headers", "limits.exceeded", "errors.429", "errors.rate_limit_error")
def test_10000_tokens_a_minute(default: ServerProcess) -> None:
    left_over = 10_000
    for _ in range(11):
        response = complete(default, "tokens", [5] * 900, max_tokens=1, ignore_eos=True)
        assert response.headers["x-ratelimit-limit-tokens"] == "10000"
        left_over -= 901
        assert left(response, "tokens") == left_over
    beyond = complete(default, "tokens", [5] * 900)
    refused(beyond)
    assert left(beyond, "tokens") == left_over
    assert complete(default, "tokens", [5] * 9, max_tokens=1).status_code == 200


@covers("limits.charges")
def test_prompts_and_answers_are_charged(default: ServerProcess) -> None:
    before = 10_000
    for prompt in (STORY, [STORY, "Hello"]):
        response = complete(default, "charges", prompt, max_tokens=7)
        before -= response.json()["usage"]["total_tokens"]
        assert left(response, "tokens") == before
    # A prompt that is refused costs nothing.
    assert complete(default, "charges", temperature=9).status_code == 400
    assert left(default.client.get("/v1/models", headers=bearer("charges")), "tokens") == before


@covers("limits.charges", "limits.headers")
def test_a_streams_headers_tell_of_its_prompt(default: ServerProcess) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 7}
    response = complete(default, "streams", **options)
    usage = chunks_of(response.text)[-2]["usage"]
    assert left(response, "tokens") == 10_000 - usage["prompt_tokens"]
    after = default.client.get("/v1/models", headers=bearer("streams"))
    assert left(after, "tokens") == 10_000 - usage["total_tokens"]


@covers("limits.headers", "limits.every-response")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", f"/v1/models/{MODEL}", 200),
        ("GET", "/v1/models/unknown", 404),
        ("GET", "/v1/nowhere", 404),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/chat/completions", 400),
        ("POST", "/v1/completions", 400),
        ("POST", "/v1/embeddings", 400),
        ("GET", "/v1/stream/sse", 400),
        ("GET", "/v1/ws/stream", 426),
    ],
)
def test_every_response_has_the_six_headers(default: ServerProcess, method: str, path: str, status: int) -> None:
    response = default.client.request(method, path, headers=bearer("paths"))
    assert response.status_code == status
    for what in WHATS:
        for kind in KINDS:
            assert response.headers[f"X-RateLimit-{kind}-{what}"].isdecimal()


@covers("limits.headers")
def test_reset_is_a_unix_time_within_the_minute(default: ServerProcess) -> None:
    now = time.time()
    first = complete(default, "reset")
    for what in WHATS:
        assert now <= int(first.headers[f"x-ratelimit-reset-{what.lower()}"]) <= time.time() + 61
    second = complete(default, "reset")
    assert second.headers["x-ratelimit-reset-requests"] == first.headers["x-ratelimit-reset-requests"]


@covers("limits.connections", "limits.exceeded")
def test_a_hundred_connections(default: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Socket(default, header=bearer("sockets")))
        with pytest.raises(websocket.WebSocketBadStatusException) as beyond:
            Socket(default, header=bearer("sockets"))
        assert beyond.value.status_code == 429
        assert b"rate_limit_error" in (beyond.value.resp_body or b"")
        refused(complete(default, "sockets", stream=True))
        assert complete(default, "sockets").status_code == 200  # which holds no connection open
    eventually(lambda: complete(default, "sockets", stream=True).status_code == 200, "their connections are free")


@covers("limits.unauthenticated")
def test_a_401_is_charged_to_nobody(default: ServerProcess) -> None:
    for _ in range(5):
        response = default.client.get("/v1/models", headers=bearer("unknown"))
        assert response.status_code == 401
        assert "x-ratelimit-limit-requests" not in response.headers
    assert left(default.client.get("/v1/models", headers=bearer("refused")), "requests") == 99


@covers("limits.per-address", "limits.exceeded")
def test_without_keys_each_address_counts(keyless: ServerProcess) -> None:
    body = {"model": MODEL, "prompt": STORY, "stream": True, **ENDLESS}
    with keyless.client.stream("POST", "/v1/completions", json=body) as stream:
        assert stream.headers["x-ratelimit-limit-requests"] == "5"
        assert stream.headers["x-ratelimit-limit-tokens"] == "5000"
        lines = stream.iter_lines()
        next(lines)
        refused(keyless.complete(STORY, stream=True))  # a second connection
    responses = [keyless.client.get("/v1/models") for _ in range(4)]
    assert [response.status_code for response in responses] == [200] * 3 + [429]


@covers("limits.off")
def test_zero_is_no_limit(server: ServerProcess) -> None:
    response = server.chat(max_tokens=1)
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("x-ratelimit-")]


@covers("limits.open-paths")
@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_monitoring_does_not_count(default: ServerProcess, path: str) -> None:
    assert "x-ratelimit-limit-requests" not in default.client.get(path).headers


@covers("limits.every-transport")
def test_every_transport_is_charged(default: ServerProcess) -> None:
    def remaining() -> int:
        return left(default.client.get("/v1/models", headers=bearer("transports")), "tokens")

    before = remaining()
    query = {"model": MODEL, "prompt": STORY, "max_tokens": "5", "ignore_eos": "true"}
    assert default.client.get("/stream/sse", params=query, headers=bearer("transports")).status_code == 200
    with Socket(default, header=bearer("transports")) as client:
        client.ask(params={"max_tokens": 5, "ignore_eos": True})
        usage = client.until("complete")[-1]["usage"]
    assert before - remaining() == 2 * usage["total_tokens"]
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 5}
    answer = default.client.post("/v1/chat/completions", json=body, headers=bearer("transports"))
    assert before - remaining() == 2 * usage["total_tokens"] + answer.json()["usage"]["total_tokens"]
