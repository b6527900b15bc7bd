"""The error object, and every documented status and type from a cause that a client can meet."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.trouble import ENDLESS, LONG_CONTEXT, kill_engine
from tests.conformance.wire import STORY, Socket, checked, chunks_of, error_of, events_of
from tests.runtime.process import MODEL, ServerProcess, eventually

KEYS = """\
- {name: first, key: sk-first}
- {name: narrow, key: sk-narrow, models: [another]}
- {name: spent, key: sk-spent, requestsPerMinute: 1}
"""
FIRST = {"Authorization": "Bearer sk-first"}


@pytest.fixture(scope="module")
def strict(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that has a reason for every refusal."""
    keys: Path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    keys.write_text(KEYS)
    with serve("--keys-file", str(keys), "--inference-timeout-seconds", "2", *LONG_CONTEXT) as server:
        yield server


def complete(server: ServerProcess, headers: dict[str, str] = FIRST, **fields: object) -> httpx.Response:
    body = {"model": MODEL, "prompt": STORY, "max_tokens": 1, **fields}
    return server.client.post("/v1/completions", json=body, headers=headers)


def spent(server: ServerProcess) -> httpx.Response:
    for _ in range(2):
        response = complete(server, {"Authorization": "Bearer sk-spent"})
    return response


def with_media_type(server: ServerProcess) -> httpx.Response:
    headers = FIRST | {"Content-Type": "text/plain"}
    return server.client.post("/v1/completions", content="prompt=Hi", headers=headers)


def too_large(server: ServerProcess) -> httpx.Response:
    return server.client.post("/v1/completions", content=b" " * (32 * 1024 * 1024 + 1), headers=FIRST)


def crashed(server: ServerProcess) -> httpx.Response:
    """An answer under which the engine dies."""
    eventually(lambda: server.client.get("/health/ready").status_code == 200, "the engine is there")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(complete, server, **ENDLESS)
        eventually(lambda: server.active() == 1, "the request is active")
        kill_engine(server)
        return answer.result()


Cause = Callable[[ServerProcess], httpx.Response]
CAUSES: list[tuple[int, str, str | None, str | None, Cause]] = [
    (400, "invalid_request_error", "temperature", "invalid_value", lambda server: complete(server, temperature=3)),
    (401, "authentication_error", None, "missing_api_key", lambda server: complete(server, {})),
    (
        401,
        "authentication_error",
        None,
        "invalid_api_key",
        lambda server: complete(server, {"Authorization": "Bearer sk-unknown"}),
    ),
    (
        403,
        "permission_error",
        "model",
        "model_not_allowed",
        lambda server: complete(server, {"Authorization": "Bearer sk-narrow"}),
    ),
    (404, "invalid_request_error", "model", "model_not_found", lambda server: complete(server, model="gpt-unknown")),
    (404, "not_found_error", None, "not_found", lambda server: server.client.get("/v1/nowhere", headers=FIRST)),
    (
        405,
        "invalid_request_error",
        None,
        "method_not_allowed",
        lambda server: server.client.get("/v1/completions", headers=FIRST),
    ),
    (413, "invalid_request_error", None, "request_too_large", too_large),
    (415, "invalid_request_error", None, "unsupported_media_type", with_media_type),
    (429, "rate_limit_error", None, "rate_limit_exceeded", spent),
    (504, "timeout_error", None, "timeout", lambda server: complete(server, **ENDLESS)),
]


@covers(
    "errors.format",
    "errors.400",
    "errors.401",
    "errors.403",
    "errors.404",
    "errors.405",
    "errors.413",
    "errors.415",
    "errors.429",
    "errors.504",
    "errors.invalid_request_error",
    "errors.authentication_error",
    "errors.permission_error",
    "errors.not_found_error",
    "errors.rate_limit_error",
    "errors.timeout_error",
)
@pytest.mark.parametrize(
    ("status", "kind", "param", "code", "cause"), CAUSES, ids=[f"{row[0]}-{row[3]}" for row in CAUSES]
)
def test_a_status_and_its_type(
    strict: ServerProcess, status: int, kind: str, param: str | None, code: str | None, cause: Cause
) -> None:
    response = cause(strict)
    error = error_of(response)
    assert response.status_code == status
    assert (error["type"], error["param"], error["code"]) == (kind, param, code)


@covers("errors.200")
def test_what_goes_well_is_a_200(strict: ServerProcess) -> None:
    assert complete(strict).status_code == 200


# What breaks


@pytest.fixture(scope="module")
def fragile(serve: Serve) -> Iterator[ServerProcess]:
    """A server whose engine is killed."""
    with serve(*LONG_CONTEXT) as server:
        yield server


@covers("errors.500", "errors.server_error")
def test_an_engine_that_dies_is_a_500_and_is_started_again(fragile: ServerProcess) -> None:
    response = crashed(fragile)
    assert response.status_code == 500
    assert error_of(response)["type"] == "server_error"
    assert complete(fragile).status_code == 200


@covers("streaming.error-event")
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/stream/sse"])
def test_an_error_after_the_first_byte_is_the_streams_last_event(fragile: ServerProcess, path: str) -> None:
    assert complete(fragile).status_code == 200
    prompt: dict[str, Any] = {"prompt": STORY}
    if path == "/v1/chat/completions":
        prompt = {"messages": [{"role": "user", "content": "Tell me a story."}]}
    body = {"model": MODEL, "stream": True, **prompt, **ENDLESS}
    with httpx.stream("POST", fragile.root + path, json=body, timeout=60, trust_env=False) as response:
        assert response.status_code == 200
        pieces = response.iter_text()
        text = next(pieces)
        kill_engine(fragile)
        text += "".join(pieces)
    if path == "/v1/stream/sse":
        name, last = events_of(text)[-1]
        assert name == "error"
    else:
        last = chunks_of(text)[-1]
    assert set(last) == {"error"}
    assert checked(last["error"])["type"] == "server_error"


@covers("streaming.error-event", "websocket.error")
def test_an_error_of_a_websockets_request_is_its_last_message(fragile: ServerProcess) -> None:
    assert complete(fragile).status_code == 200
    with Socket(fragile) as client:
        client.ask(id="a", params=ENDLESS)
        client.until("token")
        kill_engine(fragile)
        error = client.until("error", "complete")[-1]
        assert (error["type"], error["request_id"], error["error"]["type"]) == ("error", "a", "server_error")
        client.ask(id="b", params={"max_tokens": 1})
        messages = client.until("complete", "error")
        assert {message["request_id"] for message in messages} == {"b"}
