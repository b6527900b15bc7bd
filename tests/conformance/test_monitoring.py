"""Profiles, the queue's status and the metrics."""

from typing import Any

import pytest

from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.trouble import ONE_SLOT, occupied
from tests.conformance.wire import STORY, error_of
from tests.runtime.process import MODEL, ServerProcess

DURATIONS = {"min", "p50", "p95", "p99", "max", "mean", "stddev"}


def get(server: ServerProcess, path: str, **query: str) -> Any:
    response = server.client.get(f"/metrics/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


@covers("monitoring.recent", "monitoring.request-id", "matrix.extensions.profiling")
@pytest.mark.parametrize("stream", [False, True])
def test_the_recent_profiles(server: ServerProcess, stream: bool) -> None:
    response = server.complete(STORY, max_tokens=7, ignore_eos=True, stream=stream)
    body = get(server, "profiles/recent")
    assert set(body) == {"profiles", "count", "timestamp"}
    assert body["count"] == len(body["profiles"]) <= 100
    (profile,) = [each for each in body["profiles"] if each["request_id"] == response.headers["x-request-id"]]
    assert (profile["model_id"], profile["output_tokens"]) == (MODEL, 7)
    assert profile["input_tokens"] > 0
    assert profile["total_time_ms"] > 0
    assert profile["timestamp"] <= body["timestamp"]
    assert all(phase["duration_ms"] >= 0 for phase in profile["phases"])
    assert {"queue", "prefill", "decode"} <= {phase["phase"] for phase in profile["phases"]}


@covers("monitoring.stats", "matrix.extensions.profiling")
@pytest.mark.parametrize("window", ["1m", "5m", "1h", "all"])
def test_the_statistics(server: ServerProcess, window: str) -> None:
    server.complete(STORY, max_tokens=7)
    body = get(server, "profiles/stats", window=window)
    assert {"stats", "window", "sample_count"} <= set(body)
    assert body["window"] == window
    assert body["sample_count"] >= 1
    for phase in body["stats"]:
        assert set(phase) == {"phase", "count", "duration_ms", "throughput_tokens_per_sec"}
        assert set(phase["duration_ms"]) >= DURATIONS
        durations = [phase["duration_ms"][name] for name in ("min", "p50", "p95", "p99", "max")]
        assert durations == sorted(durations)


@covers("monitoring.queue", "matrix.extensions.queue")
def test_the_queue(serve: Serve) -> None:
    with serve(*ONE_SLOT) as server:
        idle = get(server, "queue/status")
        assert {"timestamp_ms", "total_queued", "total_processed", "current_queue_depth", "avg_queue_depth"} <= set(
            idle
        )
        assert {"max_queue_depth", "per_priority", "throughput_requests_per_sec", "avg_latency_ms"} <= set(idle)
        assert {"status", "queue_depth", "active_workers", "avg_wait_ms"} <= set(idle)
        assert (idle["total_queued"], idle["queue_depth"], idle["active_workers"]) == (0, 0, 0)
        with occupied(server):
            busy = get(server, "queue/status")
            assert (busy["active_workers"], busy["total_queued"], busy["total_processed"]) == (1, 1, 0)
            assert busy["status"] != idle["status"]
        assert server.complete(STORY, max_tokens=1, priority="high").status_code == 200
        after = get(server, "queue/status")
    assert (after["total_queued"], after["total_processed"]) == (2, 2)
    assert set(after["per_priority"]) == {"vip", "high", "normal", "low"}
    waits = {f"{name}_wait_time_ms" for name in ("avg", "p50", "p95", "p99")}
    for name, counts in after["per_priority"].items():
        assert set(counts) == {"total_queued", "total_processed", *waits}
        assert counts["total_queued"] == counts["total_processed"] == (1 if name in ("high", "normal") else 0)


@covers("monitoring.recent", "monitoring.stats", "monitoring.queue", "requests.known-fields")
@pytest.mark.parametrize(
    ("path", "query", "status", "param"),
    [
        ("profiles/recent", {"limit": "0"}, 400, "limit"),
        ("profiles/recent", {"limit": "many"}, 400, "limit"),
        ("profiles/stats", {"window": "2m"}, 400, "window"),
        ("queue/status", {"window": "forever"}, 400, "window"),
        ("profiles/recent", {"model": "gpt-unknown"}, 404, "model"),
    ],
)
def test_a_parameter_that_is_wrong(
    server: ServerProcess, path: str, query: dict[str, str], status: int, param: str
) -> None:
    response = server.client.get(f"/metrics/{path}", params=query)
    assert (response.status_code, error_of(response)["param"]) == (status, param)


@covers("monitoring.metrics")
def test_the_metrics(server: ServerProcess) -> None:
    response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")

    def counted(name: str) -> float:
        return server.metric(f"{name}_seconds_count")

    before = {name: counted(name) for name in ("time_to_first_token", "time_per_output_token")}
    server.complete(STORY, max_tokens=5, ignore_eos=True)
    for name, count in before.items():
        assert counted(name) == count + 1
        assert f"inferno_{name}_seconds_bucket{{" in server.client.get("/metrics").text
