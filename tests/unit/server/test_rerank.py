"""Reranking over HTTP: answers, refusals, keys, and clients that go away."""

import asyncio
import logging
from pathlib import Path

import pytest

from inferno_runtime.worker.errors import EncodingFailed, EngineError, EngineUnavailable, OutOfMemory, Overloaded
from tests.unit.server.conftest import Start, error_of
from tests.unit.server.fakes import BOS, FakeEngine
from tests.unit.server.test_generation import eventually

pytestmark = pytest.mark.asyncio

BODY = {"model": "fake", "query": "Who?", "documents": ["I", "you and me"], "raw_scores": True, "priority": "high"}


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
async def test_scores(start: Start, path: str, caplog: pytest.LogCaptureFixture) -> None:
    server = await start(FakeEngine(task="rerank"))
    with caplog.at_level(logging.INFO):
        response = await server.client.post(path, json=BODY)
    assert response.status_code == 200
    told = response.json()
    assert told["results"] == [{"index": 1, "relevance_score": 15.0}, {"index": 0, "relevance_score": 6.0}]
    assert told["usage"] == {"prompt_tokens": 21, "total_tokens": 21}
    assert told["id"] == f"rerank-{response.headers['x-request-id']}"
    assert server.engine.submitted == [
        {
            "inputs": [[*b"Who?", BOS, *b"I"], [*b"Who?", BOS, *b"you and me"]],
            "dimensions": 1,
            "priority": "high",
            "seconds": [5, 5],
        }
    ]
    metrics = (await server.client.get("/metrics")).text
    assert 'inferno_requests_total{endpoint="rerank",model_name="fake",status="200"} 1.0' in metrics
    assert 'inferno_prompt_tokens_total{model_name="fake"} 21.0' in metrics


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("writes", "generates text. Scores come from a reranker, one that is served with task: rerank."),
        ("embeds", "gives embeddings only; ask it at /v1/embeddings. Scores come from a reranker"),
    ],
)
async def test_only_rerankers_score(start: Start, model: str, reason: str) -> None:
    server = await start(FakeEngine("writes"), FakeEngine("embeds", task="embed"), FakeEngine(task="rerank"))
    response = await server.client.post("/v1/rerank", json={**BODY, "model": model})
    assert response.status_code == 400
    assert error_of(response)["code"] == "unsupported_task"
    assert reason in str(error_of(response)["message"])
    for path, fields in [("/v1/embeddings", {"input": "a"}), ("/v1/completions", {"prompt": "a"})]:
        response = await server.client.post(path, json={"model": "fake", **fields})
        assert error_of(response)["message"] == "The model 'fake' scores documents only; ask it at /v1/rerank."


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("full"), 503),
        (EngineUnavailable("gone"), 503),
        (OutOfMemory("full"), 507),
        (EncodingFailed("x"), 500),
    ],
)
async def test_an_engine_that_fails(start: Start, error: EngineError, status: int) -> None:
    server = await start(FakeEngine(task="rerank"))
    server.engine.refuses = error
    response = await server.client.post("/v1/rerank", json=BODY)
    assert response.status_code == status
    error_of(response)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
async def test_all_paths_need_a_key(start: Start, path: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {name: a, key: sk-a}\n")
    server = await start(FakeEngine(task="rerank"), keys_file=str(keys))
    assert (await server.client.post(path, json=BODY)).status_code == 401
    allowed = await server.client.post(path, json=BODY, headers={"Authorization": "Bearer sk-a"})
    assert allowed.status_code == 200
    assert "x-ratelimit-remaining-requests" in {name.lower() for name in allowed.headers}


async def test_a_client_that_goes_away_leaves_nothing_behind(start: Start) -> None:
    server = await start(FakeEngine(task="rerank"))
    server.engine.resume.clear()
    waiting = asyncio.create_task(server.client.post("/v1/rerank", json=BODY))
    await eventually(lambda: bool(server.engine.submitted))
    waiting.cancel()
    await eventually(lambda: bool(server.engine.cancelled))
