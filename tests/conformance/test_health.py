"""Health, readiness and liveness, and what becomes of requests when a server is not well."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.models import Model
from tests.conformance.trouble import ONE_SLOT, kill_engine, occupied
from tests.conformance.wire import STORY, error_of
from tests.runtime.process import MODEL, ServerProcess, eventually


@covers("health.fields", "endpoints.monitoring")
def test_every_field(server: ServerProcess, model: Model) -> None:
    response = server.client.get("/health")
    body = response.json()
    assert response.status_code == 200
    assert set(body) >= {"status", "version", "model", "format", "uptime_seconds", "engine"}
    assert (body["status"], body["model"], body["format"]) == ("healthy", MODEL, model.format)
    assert body["version"]
    assert body["uptime_seconds"] > 0
    assert set(body["engine"]) >= {"state", "active", "queued", "kv_usage"}
    assert body["engine"]["state"] == "ready"
    assert 0 <= body["engine"]["kv_usage"] <= 1


@covers("health.fields")
def test_what_the_engine_does(serve: Serve) -> None:
    with serve(*ONE_SLOT) as server:
        with occupied(server):
            engine = server.client.get("/health").json()["engine"]
            assert (engine["active"], engine["queued"]) == (1, 0)
            eventually(lambda: server.client.get("/health").json()["engine"]["kv_usage"] > 0, "its cells are counted")
        eventually(lambda: server.client.get("/health").json()["engine"]["active"] == 0, "the slot is free")


@covers("health.ready", "health.live")
def test_ready_and_live(server: ServerProcess) -> None:
    assert server.client.get("/health/ready").status_code == 200
    assert server.client.get("/health/live").status_code == 200


@covers("health.ready", "health.live", "health.unhealthy", "errors.503")
def test_a_server_that_loads_its_model(tmp_path: Path) -> None:
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)  # nobody writes into it, so that whoever reads it waits
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(pipe), "--name", MODEL, "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            eventually(lambda: listens(client), "it listens")
            for path in ("/health", "/health/ready"):
                response = client.get(path)
                assert response.status_code == 503
                assert (response.json()["status"], bool(response.json()["reason"])) == ("loading", True)
            assert client.get("/health/live").status_code == 200
            refused = client.post("/v1/completions", json={"model": MODEL, "prompt": STORY})
            assert refused.status_code == 503
            assert error_of(refused)["type"] == "server_error"
            assert int(refused.headers["retry-after"]) > 0
    finally:
        process.kill()
        process.wait()


def listens(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.ConnectError:
        return False


@covers("health.draining", "errors.503", "errors.server_error")
def test_a_server_that_drains(serve: Serve) -> None:
    with serve(*ONE_SLOT) as server:
        with occupied(server):
            server.signal(signal.SIGTERM)
            eventually(lambda: server.client.get("/health/ready").status_code == 503, "it is not ready")
            health = server.client.get("/health")
            assert health.status_code == 503
            assert health.json()["reason"]
            assert server.client.get("/health/live").status_code == 200
            refused = server.complete(STORY)
            assert refused.status_code == 503
            assert error_of(refused)["type"] == "server_error"
            assert int(refused.headers["retry-after"]) > 0
        assert server.wait() == 0


@covers("health.live", "health.unhealthy", "errors.503")
def test_liveness_fails_when_starting_the_engine_again_does_not_help(model: Model, tmp_path: Path) -> None:
    path = tmp_path / model.path.name
    (shutil.copytree if model.path.is_dir() else shutil.copy)(model.path, path)
    with ServerProcess(str(path), "--name", model.name) as server:
        path.rename(tmp_path / "elsewhere")
        kill_engine(server)
        eventually(lambda: server.client.get("/health").status_code == 503, "it is not healthy")
        assert server.client.get("/health").json()["reason"]
        assert server.client.get("/health/ready").status_code == 503
        eventually(lambda: server.client.get("/health/live").status_code == 503, "it is given up")
        refused = server.complete(STORY)
        assert refused.status_code == 503
        assert error_of(refused)["type"] == "server_error"
        assert int(refused.headers["retry-after"]) > 0


@covers("health.live")
def test_an_engine_that_is_started_again_is_no_reason_to_end_the_server(serve: Serve) -> None:
    with serve() as server:
        kill_engine(server)
        eventually(lambda: server.metric("engine_restarts_total") == 1, "it is started again")
        assert server.client.get("/health/live").status_code == 200
        assert server.complete(STORY, max_tokens=1).status_code == 200
        eventually(lambda: server.client.get("/health/ready").status_code == 200, "it is ready again")
