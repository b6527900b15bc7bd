"""Overview, Authentication without keys, and the tables of endpoints."""

from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from inferno_runtime.config import ListenConfig
from tests.conformance import models
from tests.conformance.covering import covers
from tests.conformance.models import Model
from tests.conformance.wire import API_VERSION, QUESTION, error_of
from tests.runtime.process import MODEL, ServerProcess


@covers("overview.base-url")
def test_the_api_is_below_v1_on_port_8000(server: ServerProcess) -> None:
    assert ListenConfig().port == 8000
    assert server.url == f"http://127.0.0.1:{server.port}/v1"
    assert server.client.get(f"{server.url}/models").status_code == 200


@covers("overview.drop-in")
def test_openais_own_client_needs_a_base_url_and_nothing_else(server: ServerProcess) -> None:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, _strict_response_validation=True) as client:
        answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")


@covers("overview.api-version")
@pytest.mark.parametrize("path", ["/v1/models", "/health", "/metrics", "/nowhere"])
def test_the_version_of_the_api(server: ServerProcess, path: str) -> None:
    assert server.client.get(path).headers["openai-version"] == API_VERSION


@covers("overview.models")
@pytest.mark.parametrize("make", [models.llama, models.experts], ids=["llama-and-mistral", "mixtral"])
def test_the_kinds_of_models(make: Callable[[Path], Model], tmp_path: Path) -> None:
    model = make(tmp_path)
    with ServerProcess(str(model.path), "--name", model.name) as server:
        body = server.complete("Once", max_tokens=5, ignore_eos=True).json()
    assert body["usage"]["completion_tokens"] == 5


@covers("overview.models", "health.format")
def test_the_format_of_the_model(server: ServerProcess, model: Model) -> None:
    assert server.client.get("/health").json()["format"] == model.format
    assert "Paris" in server.chat(temperature=0).json()["choices"][0]["message"]["content"]


@covers("authentication.optional")
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer anything"}, {"X-API-Key": "anything"}],
    ids=["none", "bearer", "x-api-key"],
)
def test_a_server_without_keys_lets_everybody_in(server: ServerProcess, headers: dict[str, str]) -> None:
    assert server.client.get("/v1/models", headers=headers).status_code == 200


@covers("endpoints.base", "endpoints.streaming", "endpoints.monitoring", "paths.all")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", f"/v1/models/{MODEL}", 200),
        # What is there says what it misses.
        ("POST", "/v1/chat/completions", 400),
        ("POST", "/v1/completions", 400),
        ("POST", "/v1/embeddings", 400),
        ("GET", "/v1/stream/sse", 400),
        ("GET", "/stream/sse", 400),
        ("GET", "/ws/stream", 426),
        ("GET", "/v1/ws/stream", 426),
        ("GET", "/metrics/profiles/recent", 200),
        ("GET", "/metrics/profiles/stats", 200),
        ("GET", "/metrics/queue/status", 200),
        ("GET", "/metrics", 200),
        ("GET", "/health", 200),
        ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
    ],
)
def test_every_endpoint_is_there(server: ServerProcess, method: str, path: str, status: int) -> None:
    response = server.client.request(method, path)
    assert response.status_code == status
    if status == 400:
        assert error_of(response)["type"] == "invalid_request_error"
