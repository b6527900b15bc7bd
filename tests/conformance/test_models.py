"""Models: the list, one of them, and what cannot be done with them."""

import time
from pathlib import Path

import httpx
import pytest

from tests.conformance.covering import covers
from tests.conformance.models import Model
from tests.conformance.wire import error_of
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.test_start import started

RESOURCE = """\
apiVersion: inferno.ai/v1alpha1
kind: InfernoModel
metadata: {{name: {name}}}
spec:
  model: {{source: '{source}'}}
  engine: {{slots: 2, threads: 1, tuning: 'off'}}
"""


def check(model: dict[str, object]) -> None:
    """Every documented field."""
    assert (model["id"], model["root"], model["object"], model["owned_by"]) == (MODEL, MODEL, "model", "inferno")
    assert (model["permission"], model["parent"]) == ([], None)
    assert isinstance(model["created"], int)
    assert 0 <= time.time() - model["created"] < 86_400


@covers("models.list", "matrix.models.list")
def test_the_list(server: ServerProcess) -> None:
    body = server.client.get("/v1/models").json()
    assert set(body) == {"object", "data"}
    assert body["object"] == "list"
    (model,) = body["data"]
    check(model)


@covers("models.one", "matrix.models.get")
def test_one_model(server: ServerProcess) -> None:
    model = server.client.get(f"/v1/models/{MODEL}").json()
    check(model)
    assert server.client.get("/v1/models").json()["data"] == [model]


@covers("models.several")
def test_several_models_are_all_listed(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    names = ["llama-7b", "llama-13b"]
    path.write_text("---\n".join(RESOURCE.format(name=name, source=model.path.as_uri()) for name in names))
    with started("run", str(path), "--port", "0") as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert [each["id"] for each in client.get("/models").json()["data"]] == names
        for name in names:
            assert client.get(f"/models/{name}").json()["id"] == name
            answer = client.post("/completions", json={"model": name, "prompt": "Once", "max_tokens": 1}).json()
            assert answer["model"] == name


@covers("paths.unknown-model", "errors.404")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models/gpt-unknown", None),
        ("POST", "/v1/chat/completions", {"model": "gpt-unknown", "messages": [{"role": "user", "content": "Hi"}]}),
        ("POST", "/v1/completions", {"model": "gpt-unknown", "prompt": "Hi"}),
        ("POST", "/v1/embeddings", {"model": "gpt-unknown", "input": "Hi"}),
        ("GET", "/v1/stream/sse?model=gpt-unknown&prompt=Hi", None),
    ],
    ids=["model", "chat", "completions", "embeddings", "sse"],
)
def test_a_model_that_is_not_there(
    server: ServerProcess, method: str, path: str, body: dict[str, object] | None
) -> None:
    response = server.client.request(method, path, json=body)
    error = error_of(response)
    assert response.status_code == 404
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")


@covers("matrix.models.create", "matrix.models.delete", "errors.405")
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/models"), ("DELETE", f"/v1/models/{MODEL}")], ids=["create", "delete"]
)
def test_models_are_neither_created_nor_deleted(server: ServerProcess, method: str, path: str) -> None:
    response = server.client.request(method, path)
    error = error_of(response)
    assert response.status_code == 405
    assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"
    assert server.client.get(f"/v1/models/{MODEL}").status_code == 200
