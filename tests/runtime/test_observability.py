"""What can be seen of a real server: profiles, the queue, metrics, traces."""

import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.runtime.process import MODEL, ServerProcess, eventually


def metric(server: ServerProcess, name: str) -> float:
    """The value of a metric of the model without other labels."""
    found = re.search(rf'^{name}{{model_name="{MODEL}"}} (.+)$', server.client.get("/metrics").text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_a_profile_has_real_times(server: ServerProcess) -> None:
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 30, "ignore_eos": True, "stream": True}
    server.client.post("/v1/completions", json=body, headers={"X-Request-Id": "profiled"})
    profiles = server.client.get("/metrics/profiles/recent").json()["profiles"]
    (profile,) = [each for each in profiles if each["request_id"] == "profiled"]
    assert (profile["model_id"], profile["output_tokens"]) == (MODEL, 30)
    phases = {each["phase"]: each["duration_ms"] for each in profile["phases"]}
    for name in ("tokenize", "prefill", "decode", "detokenize", "write"):
        assert phases[name] > 0, name
    in_order = ("queue", "tokenize", "prefill", "first_token", "decode")
    assert sum(phases[name] for name in in_order) <= profile["total_time_ms"] + 0.01
    stats = server.client.get("/metrics/profiles/stats?window=all").json()
    assert stats["sample_count"] >= 1
    assert {each["phase"] for each in stats["stats"]} >= set(in_order)


def test_a_queue_is_seen() -> None:
    with ServerProcess("--slots", "1") as server:
        threads = [
            threading.Thread(target=server.complete, args=("Once",), kwargs={"max_tokens": 300, "ignore_eos": True})
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: server.client.get("/metrics/queue/status").json()["queue_depth"] > 0, "some wait")
        for thread in threads:
            thread.join()
        status = server.client.get("/metrics/queue/status").json()
        assert (status["total_queued"], status["total_processed"]) == (4, 4)
        assert (status["status"], status["queue_depth"], status["active_workers"]) == ("idle", 0, 0)
        assert status["max_queue_depth"] >= 1
        assert status["avg_queue_depth"] > 0
        assert status["per_priority"]["normal"]["p99_wait_time_ms"] > 0


def test_the_prefix_cache_is_counted(server: ServerProcess) -> None:
    prompt = "The same long beginning of a prompt, " * 10
    before = metric(server, "inferno_prefix_cache_hits_total")
    steps = metric(server, "inferno_engine_steps_total")
    for _ in range(2):
        assert server.complete(prompt, max_tokens=2).status_code == 200
    assert metric(server, "inferno_prefix_cache_hits_total") > before
    assert metric(server, "inferno_engine_steps_total") > steps
    assert metric(server, "inferno_prefix_cache_queries_total") > metric(server, "inferno_prefix_cache_hits_total")


class Collector(ThreadingHTTPServer):
    """Takes traces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


def test_traces_reach_a_collector(collector: Collector) -> None:
    trace = "ab" * 16
    with ServerProcess("--otlp-endpoint", f"http://127.0.0.1:{collector.server_port}") as server:
        body = {"model": MODEL, "prompt": "a most private prompt", "max_tokens": 2}
        headers = {"traceparent": f"00-{trace}-{'cd' * 8}-01"}
        assert server.client.post("/v1/completions", json=body, headers=headers).status_code == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0  # what waits is sent first
    ((path, data),) = collector.received
    assert path == "/v1/traces"
    assert bytes.fromhex(trace) in data
    assert f"text_completion {MODEL}".encode() in data
    assert b"private" not in data


def test_a_collector_that_is_not_there_is_said_once() -> None:
    with ServerProcess("--otlp-endpoint", "http://127.0.0.1:9") as server:
        for _ in range(3):
            assert server.complete("Once", max_tokens=1).status_code == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.log.count("traces are not delivered") == 1
        assert "Traceback" not in server.log
