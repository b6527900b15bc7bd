"""Profiles, the state of the queue and metrics over HTTP."""

import asyncio
from typing import Any

import pytest

from inferno_runtime.server.profiles import PHASES
from inferno_runtime.worker.errors import EngineLost, Overloaded
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import FakeEngine

pytestmark = pytest.mark.asyncio


async def got(server: Running, path: str, **parameters: object) -> Any:
    response = await server.client.get(path, params={key: str(value) for key, value in parameters.items()})
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    return response.json()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_profile(server: Running, stream: bool) -> None:
    body = {"model": "fake", "prompt": "Hi", "stream": stream}
    await server.client.post("/v1/completions", json=body, headers={"X-Request-Id": "mine"})
    recent = await got(server, "/metrics/profiles/recent")
    assert recent["count"] == 1
    (profile,) = recent["profiles"]
    assert (profile["request_id"], profile["model_id"], profile["endpoint"]) == ("mine", "fake", "completions")
    assert (profile["input_tokens"], profile["cached_tokens"], profile["output_tokens"]) == (2, 0, 12)
    assert [each["phase"] for each in profile["phases"]] == list(PHASES)
    phases = {each["phase"]: each["duration_ms"] for each in profile["phases"]}
    assert all(duration >= 0 for duration in phases.values())
    # What follows one another fits into the whole.
    assert sum(phases[name] for name in ("queue", "tokenize", "prefill", "first_token", "decode")) <= (
        profile["total_time_ms"] + 0.01
    )
    assert phases["write"] > 0
    assert phases["detokenize"] > 0
    assert 0 < profile["time_to_first_token_ms"] <= profile["total_time_ms"]


async def test_the_number_of_profiles(server: Running) -> None:
    for _ in range(3):
        await server.complete()
    assert (await got(server, "/metrics/profiles/recent", limit=2))["count"] == 2
    assert (await got(server, "/metrics/profiles/recent"))["count"] == 3


async def test_several_sequences_are_one_profile(server: Running) -> None:
    await server.complete(["a", "b", "c"])
    (profile,) = (await got(server, "/metrics/profiles/recent"))["profiles"]
    assert (profile["input_tokens"], profile["output_tokens"]) == (3, 36)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_has_no_profile_but_leaves_the_queue(server: Running, stream: bool) -> None:
    server.engine.fails = EngineLost("Lost.")
    await server.complete(stream=stream)
    assert (await got(server, "/metrics/profiles/recent"))["count"] == 0
    queue = await got(server, "/metrics/queue/status")
    assert (queue["total_queued"], queue["total_processed"]) == (1, 1)


async def test_what_is_refused_was_never_queued(server: Running) -> None:
    server.engine.refuses = Overloaded("Full.")
    await server.complete()
    queue = await got(server, "/metrics/queue/status")
    assert (queue["total_queued"], queue["total_processed"]) == (0, 0)


async def test_a_client_that_goes_leaves_the_queue(server: Running) -> None:
    server.engine.resume.clear()
    request = asyncio.create_task(server.complete())
    async with asyncio.timeout(20):
        while not server.engine.submitted:
            await asyncio.sleep(0.005)
        assert (await got(server, "/metrics/queue/status"))["total_processed"] == 0
        request.cancel()
        while server.context.in_flight:
            await asyncio.sleep(0.005)
    queue = await got(server, "/metrics/queue/status")
    assert (queue["total_queued"], queue["total_processed"]) == (1, 1)


async def test_stats(server: Running) -> None:
    await server.complete()
    await server.chat(stream=True)
    stats = await got(server, "/metrics/profiles/stats", window="1m")
    assert (stats["window"], stats["sample_count"]) == ("1m", 2)
    assert [each["phase"] for each in stats["stats"]] == [*PHASES, "time_to_first_token", "total"]
    for each in stats["stats"]:
        assert each["count"] == 2
        assert list(each["duration_ms"]) == ["min", "p50", "p90", "p95", "p99", "max", "mean", "stddev"]


async def test_the_queue(server: Running) -> None:
    await server.complete()
    engine = server.engine.stats
    now = asyncio.get_running_loop().time()
    engine.active, engine.queued = 8, 3
    engine.depth.set(5, now)
    engine.depth.set(3, now)
    queue = await got(server, "/metrics/queue/status")
    assert (queue["status"], queue["window"]) == ("queueing", "5m")
    assert (queue["queue_depth"], queue["current_queue_depth"], queue["active_workers"]) == (3, 3, 8)
    assert (queue["max_queue_depth"], queue["avg_queue_depth"]) == (5, 3.0)
    assert queue["per_priority"]["normal"]["total_processed"] == 1
    assert queue["throughput_requests_per_sec"] > 0
    engine.queued = 256
    assert (await got(server, "/metrics/queue/status"))["status"] == "full"


async def test_one_of_several_models(start: Start) -> None:
    server = await start(FakeEngine("one", aliases=("uno",)), FakeEngine("two"))
    await server.client.post("/v1/completions", json={"model": "uno", "prompt": "x"})
    for name, samples in (("one", 1), ("uno", 1), ("two", 0)):
        assert (await got(server, "/metrics/profiles/recent", model=name))["count"] == samples
        assert (await got(server, "/metrics/profiles/stats", model=name))["sample_count"] == samples
        assert (await got(server, "/metrics/queue/status", model=name))["total_queued"] == samples


@pytest.mark.parametrize(
    ("path", "parameter", "status", "blamed"),
    [
        ("/metrics/profiles/recent", "limit=0", 400, "limit"),
        ("/metrics/profiles/recent", "limit=1001", 400, "limit"),
        ("/metrics/profiles/recent", "limit=-1", 400, "limit"),
        ("/metrics/profiles/recent", "limit=1.5", 400, "limit"),
        ("/metrics/profiles/recent", "limit=", 400, "limit"),
        ("/metrics/profiles/recent", "limit=%D9%A1", 400, "limit"),
        ("/metrics/profiles/recent", "limit=" + "9" * 5000, 400, "limit"),
        ("/metrics/profiles/recent", "model=none", 404, "model"),
        ("/metrics/profiles/stats", "window=2m", 400, "window"),
        ("/metrics/profiles/stats", "window=", 400, "window"),
        ("/metrics/profiles/stats", "model=none", 404, "model"),
        ("/metrics/queue/status", "window=ALL", 400, "window"),
        ("/metrics/queue/status", "model=none", 404, "model"),
    ],
)
async def test_bad_parameters(server: Running, path: str, parameter: str, status: int, blamed: str) -> None:
    response = await server.client.get(f"{path}?{parameter}")
    assert response.status_code == status
    assert error_of(response)["param"] == blamed
    assert len(response.text) < 500


async def test_other_parameters_are_ignored(server: Running) -> None:
    assert (await got(server, "/metrics/profiles/recent", limit=1, other="x"))["count"] == 0


@pytest.mark.parametrize("path", ["/metrics/profiles/recent", "/metrics/profiles/stats", "/metrics/queue/status"])
async def test_methods(server: Running, path: str) -> None:
    assert (await server.client.head(path)).status_code == 200
    response = await server.client.post(path)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_metrics_of_the_engine(server: Running) -> None:
    await server.complete("abc")
    stats = server.engine.stats
    stats.steps, stats.preemptions, stats.drafted, stats.accepted, stats.store_bytes = 7, 1, 40, 30, 4096
    lines = (await server.client.get("/metrics")).text.splitlines()
    for line in (
        'inferno_engine_steps_total{model_name="fake"} 7.0',
        'inferno_num_preemptions_total{model_name="fake"} 1.0',
        'inferno_spec_decode_num_draft_tokens_total{model_name="fake"} 40.0',
        'inferno_spec_decode_num_accepted_tokens_total{model_name="fake"} 30.0',
        'inferno_prefix_store_bytes{model_name="fake"} 4096.0',
        'inferno_prefix_cache_queries_total{model_name="fake"} 3.0',
        'inferno_prefix_cache_hits_total{model_name="fake"} 0.0',
    ):
        assert line in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


async def test_clients_make_no_labels(server: Running) -> None:
    await server.client.post("/v1/completions", json={"model": "made-up-model", "prompt": "x"})
    await server.client.get("/made-up-path")
    await server.client.get("/v1/models/made-up-name")
    await server.client.request("PROPFIND", "/v1/models")
    text = (await server.client.get("/metrics")).text
    assert "made-up" not in text
    assert "PROPFIND" not in text
    assert 'inferno_requests_total{endpoint="completions",model_name="",status="404"} 1.0' in text
