"""API keys: where they are asked for, how they are shown, what each may do, and that nobody is told them."""

import hmac
import os
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket

from inferno_runtime.server import auth
from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.wire import STORY, Socket, error_of
from tests.runtime.process import MODEL, ServerProcess, eventually

SECRET = "sk-planted"
KEYS = f"""\
- {{name: first, key: {SECRET}-first}}
- {{name: hashed, sha256: {sha256(f"{SECRET}-hashed".encode()).hexdigest()}}}
- {{name: narrow, key: {SECRET}-narrow, models: [another]}}
- {{name: modest, key: {SECRET}-modest, priority: low}}
"""
CLOSED = [
    ("GET", "/v1/models"),
    ("GET", f"/v1/models/{MODEL}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/stream/sse"),
    ("GET", "/stream/sse"),
    ("GET", "/v1/ws/stream"),
    ("GET", "/ws/stream"),
    ("GET", "/v1/nowhere"),
    ("GET", "/metrics/profiles/recent"),
    ("GET", "/metrics/profiles/stats"),
    ("GET", "/metrics/queue/status"),
]
OPEN = ["/health", "/health/live", "/health/ready", "/metrics"]
BODY: dict[str, Any] = {"model": MODEL, "prompt": STORY, "max_tokens": 2}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    path.write_text(KEYS)
    return path


@pytest.fixture(scope="module")
def guarded(serve: Serve, file: Path) -> Iterator[ServerProcess]:
    with serve("--keys-file", str(file), "--log-level", "debug") as server:
        yield server


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRET}-{name}"}


def complete(server: ServerProcess, name: str, **fields: object) -> httpx.Response:
    return server.client.post("/v1/completions", json=BODY | fields, headers=bearer(name))


@covers("keys.required", "errors.401", "errors.authentication_error")
@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_needs_a_key(guarded: ServerProcess, method: str, path: str) -> None:
    for headers in ({}, bearer("unknown"), {"Authorization": "Basic abc"}, {"X-API-Key": "unknown"}):
        response = guarded.client.request(method, path, headers=headers)
        assert response.status_code == 401
        assert error_of(response)["type"] == "authentication_error"
    assert guarded.client.request(method, path, headers=bearer("first")).status_code != 401


@covers("keys.open-paths")
@pytest.mark.parametrize("path", OPEN)
def test_what_needs_none(guarded: ServerProcess, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@covers("authentication.bearer", "keys.headers")
@pytest.mark.parametrize("name", ["first", "hashed"])
def test_both_headers(guarded: ServerProcess, name: str) -> None:
    for headers in (bearer(name), {"X-API-Key": f"{SECRET}-{name}"}):
        assert guarded.client.get("/v1/models", headers=headers).status_code == 200


@covers("keys.in-query")
@pytest.mark.parametrize("path", ["/v1/stream/sse", "/stream/sse"])
def test_an_event_source_may_show_its_key_in_the_query(guarded: ServerProcess, path: str) -> None:
    query = {"model": MODEL, "prompt": STORY, "max_tokens": "1"}
    assert guarded.client.get(path, params=query | {"api_key": f"{SECRET}-first"}).status_code == 200
    assert guarded.client.get(path, params=query | {"api_key": "unknown"}).status_code == 401


@covers("keys.in-query")
@pytest.mark.parametrize("path", ["/v1/ws/stream", "/ws/stream"])
def test_and_so_may_a_websocket(guarded: ServerProcess, path: str) -> None:
    for query, header in ((f"?api_key={SECRET}-first", {}), ("", bearer("first"))):
        with Socket(guarded, path + query, header=header) as client:
            client.ask(params={"max_tokens": 1})
            assert client.until("complete", "error")[-1]["type"] == "complete"
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        Socket(guarded, path)
    assert refused.value.status_code == 401


@covers("keys.in-query")
@pytest.mark.parametrize("path", ["/v1/models", "/metrics/queue/status", "/v1/nowhere"])
def test_and_nobody_else(guarded: ServerProcess, path: str) -> None:
    assert guarded.client.get(path, params={"api_key": f"{SECRET}-first"}).status_code == 401


# What a key may do


@covers("keys.models", "errors.403", "errors.permission_error")
def test_a_key_for_other_models(guarded: ServerProcess) -> None:
    for response in (
        complete(guarded, "narrow"),
        guarded.client.get(f"/v1/models/{MODEL}", headers=bearer("narrow")),
        guarded.client.get("/stream/sse", params=BODY, headers=bearer("narrow")),
    ):
        assert response.status_code == 403
        assert error_of(response)["type"] == "permission_error"
    assert guarded.client.get("/v1/models", headers=bearer("narrow")).json()["data"] == []


@covers("keys.priority", "errors.403", "errors.permission_error")
@pytest.mark.parametrize("priority", ["vip", "high", "normal"])
def test_a_key_with_a_highest_priority(guarded: ServerProcess, priority: str) -> None:
    in_body = complete(guarded, "modest", priority=priority)
    headers = bearer("modest") | {"X-Inferno-Priority": priority}
    in_header = guarded.client.post("/v1/completions", json=BODY, headers=headers)
    for response in (in_body, in_header):
        assert response.status_code == 403
        assert error_of(response)["type"] == "permission_error"


@covers("keys.priority")
def test_a_request_that_asks_for_no_priority_is_served_at_its_keys_own(guarded: ServerProcess) -> None:
    assert complete(guarded, "modest", priority="low").status_code == 200
    answer = complete(guarded, "modest")
    recent = guarded.client.get("/metrics/profiles/recent", headers=bearer("first")).json()["profiles"]
    (profile,) = [each for each in recent if each["request_id"] == answer.headers["x-request-id"]]
    assert profile["priority"] == "low"


# How they are kept


@covers("keys.reread")
def test_a_file_that_changes_is_read_again(guarded: ServerProcess, file: Path) -> None:
    def replace(text: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(text)
        os.replace(new, file)

    replace(KEYS + f"- {{name: new, key: {SECRET}-new}}\n")
    eventually(lambda: complete(guarded, "new").status_code == 200, "the new key is known")
    replace(KEYS)
    eventually(lambda: complete(guarded, "new").status_code == 401, "it is forgotten")


@covers("keys.hashed")
def test_only_digests_are_kept() -> None:
    for key in auth.parse(KEYS):
        assert SECRET not in repr(asdict(key))
        assert len(key.digest) == 32


@covers("keys.constant-time")
@pytest.mark.parametrize("shown", ["first", "modest", "unknown"])
def test_every_key_is_compared_whichever_is_shown(file: Path, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    found = auth.KeyRing(file).find(f"{SECRET}-{shown}".encode())
    assert (found.name if found else "unknown") == shown
    assert len(compared) == len(auth.parse(KEYS))


@covers("keys.never-logged")
def test_no_key_is_ever_logged(guarded: ServerProcess) -> None:
    for path in ("/stream/sse", "/ws/stream", "/v1/models", "/nowhere"):
        guarded.client.get(path, params={"api_key": f"{SECRET}-first"})
        guarded.client.get(path, headers=bearer("unknown"))
    guarded.client.get("/v1/models", headers=bearer("first") | {"X-Request-Id": "the-last-one"})
    eventually(lambda: "the-last-one" in guarded.log, "the last request is logged")
    assert SECRET not in guarded.log
