"""Prometheus metrics: counters and histograms of requests, gauges of the engines. Observed once per request."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from inferno_runtime.engine.request import FinishReason, Usage

# Another series for each counter, which no dashboard reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_SECONDS_PER_TOKEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


class Stats(Protocol):
    """What an engine reports; see `worker.client.EngineStats`."""

    active: int
    queued: int
    paused: int
    kv_usage: float
    restarts: int


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, engines: Callable[[], Iterable[tuple[str, Stats]]]) -> None:
        """engines: the name and last report of every engine, asked at each scrape."""
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engines))
        self.requests = self._counter("requests", "Requests answered.", "endpoint", "status")
        self._success = self._counter("request_success", "Sequences that came to an end.", "finished_reason")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens.")
        self._generated = self._counter("generation_tokens", "Generated tokens.")
        self._first = self._histogram("time_to_first_token_seconds", "From arrival to the first token.", _SECONDS)
        self._token = self._histogram(
            "time_per_output_token_seconds", "Between two tokens of a sequence, on average.", _SECONDS_PER_TOKEN
        )
        self._whole = self._histogram("e2e_request_latency_seconds", "From arrival to the last token.", _SECONDS)
        self._queued = self._histogram("request_queue_time_seconds", "In the queue.", _SECONDS)
        self._prefill = self._histogram("request_prefill_time_seconds", "Evaluating the prompt.", _SECONDS)
        self._decode = self._histogram("request_decode_time_seconds", "Generating.", _SECONDS)
        self._prompts = self._histogram("request_prompt_tokens", "Prompt tokens of a sequence.", _TOKENS)
        self._answers = self._histogram("request_generation_tokens", "Generated tokens of a sequence.", _TOKENS)

    def sequence(self, model: str, usage: Usage, reason: FinishReason, first: float | None, whole: float) -> None:
        """Observe a sequence that has ended.

        first, whole: seconds from the request's arrival to the first token, if there was one, and to the end.
        """
        self._success.labels(model, reason.value).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        if first is not None:
            self._first.labels(model).observe(first)
        if usage.completion_tokens > 1:
            self._token.labels(model).observe(usage.decode / (usage.completion_tokens - 1))
        self._whole.labels(model).observe(whole)
        self._queued.labels(model).observe(usage.queued)
        self._prefill.labels(model).observe(usage.prefill)
        self._decode.labels(model).observe(usage.decode)
        self._prompts.labels(model).observe(usage.prompt_tokens)
        self._answers.labels(model).observe(usage.completion_tokens)

    def embeddings(self, model: str, sizes: Sequence[int], queued: float, encoding: float, whole: float) -> None:
        """Observe a request for vectors that was answered.

        sizes: tokens of each input; queued, encoding, whole: seconds from its arrival at the engine to its first batch, from
        there to its last, and from its arrival to the answer.
        """
        self._success.labels(model, FinishReason.STOP.value).inc(len(sizes))
        self._prompt.labels(model).inc(sum(sizes))
        self._whole.labels(model).observe(whole)
        self._queued.labels(model).observe(queued)
        self._prefill.labels(model).observe(encoding)
        for size in sizes:
            self._prompts.labels(model).observe(size)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"inferno_{name}", meaning, ("model_name", *labels), registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"inferno_{name}", meaning, ("model_name",), registry=self._registry, buckets=buckets)


class _EngineCollector:
    """Reads the engines' reports when a scrape asks."""

    def __init__(self, engines: Callable[[], Iterable[tuple[str, Stats]]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        label = ["model_name"]
        running = GaugeMetricFamily("inferno_num_requests_running", "Sequences that are evaluated.", labels=label)
        waiting = GaugeMetricFamily("inferno_num_requests_waiting", "Sequences in the queue.", labels=label)
        paused = GaugeMetricFamily(
            "inferno_num_requests_paused", "Sequences whose clients take too little.", labels=label
        )
        usage = GaugeMetricFamily("inferno_kv_cache_usage_ratio", "Share of the KV cache in use, 0 to 1.", labels=label)
        restarts = CounterMetricFamily(
            "inferno_engine_restarts", "Times that an engine was started again.", labels=label
        )
        for name, stats in self._engines():
            running.add_metric([name], stats.active)
            waiting.add_metric([name], stats.queued)
            paused.add_metric([name], stats.paused)
            usage.add_metric([name], stats.kv_usage)
            restarts.add_metric([name], stats.restarts)
        yield from (running, waiting, paused, usage, restarts)
