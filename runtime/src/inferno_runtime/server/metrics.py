"""Prometheus metrics: counters and histograms of requests, observed once per sequence, and what the engines report.

Everything is observed and exposed on the event loop, so a scrape sees whole sequences only. Labels are the models that are
served, the endpoints, the statuses and the reasons to end: nothing that a client can make up.

The names are vLLM's where it has such a metric, with `inferno_` before them, so that dashboards and the Gateway API's
inference extension, whose names are settings, need only another prefix.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
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
    steps: int
    restarts: int
    resubmitted: int
    preemptions: int
    drafted: int
    accepted: int
    store_bytes: int


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
        self._sought = self._counter("prefix_cache_queries", "Prompt tokens that were looked for in the prefix cache.")
        self._found = self._counter("prefix_cache_hits", "Prompt tokens that were found in the prefix cache.")
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
        # The server's own process_*, not the engines'.
        ProcessCollector(registry=self._registry)

    def sequence(self, model: str, usage: Usage, reason: FinishReason, first: float | None, whole: float) -> None:
        """Observe a sequence that has ended.

        first, whole: seconds from the request's arrival to the first token, if there was one, and to the end.
        """
        self._success.labels(model, reason.value).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        self._sought.labels(model).inc(usage.prompt_tokens)
        self._found.labels(model).inc(usage.cached_tokens)
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

    def families(self) -> Iterable[Metric]:
        """Every metric with its samples."""
        return self._registry.collect()

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"inferno_{name}", meaning, ("model_name", *labels), registry=self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"inferno_{name}", meaning, ("model_name",), registry=self._registry, buckets=buckets)


# What is read from an engine's report: name, kind, meaning and where it stands.
_Family = type[GaugeMetricFamily] | type[CounterMetricFamily]
_REPORTED: tuple[tuple[str, _Family, str, Callable[[Stats], float]], ...] = (
    ("num_requests_running", GaugeMetricFamily, "Sequences that are evaluated.", lambda stats: stats.active),
    ("num_requests_waiting", GaugeMetricFamily, "Sequences in the queue.", lambda stats: stats.queued),
    (
        "num_requests_paused",
        GaugeMetricFamily,
        "Sequences whose clients take too little.",
        lambda stats: stats.paused,
    ),
    ("kv_cache_usage_ratio", GaugeMetricFamily, "Share of the KV cache in use, 0 to 1.", lambda stats: stats.kv_usage),
    (
        "prefix_store_bytes",
        GaugeMetricFamily,
        "Host memory that holds the prefixes of earlier sequences.",
        lambda stats: stats.store_bytes,
    ),
    ("engine_steps", CounterMetricFamily, "Batches that were evaluated.", lambda stats: stats.steps),
    ("engine_restarts", CounterMetricFamily, "Times that an engine was started again.", lambda stats: stats.restarts),
    (
        "num_requests_resubmitted",
        CounterMetricFamily,
        "Requests without a token that an engine's death has given to the next one.",
        lambda stats: stats.resubmitted,
    ),
    (
        "num_preemptions",
        CounterMetricFamily,
        "Times that a sequence gave its memory up and went on later.",
        lambda stats: stats.preemptions,
    ),
    (
        "spec_decode_num_draft_tokens",
        CounterMetricFamily,
        "Tokens that were guessed and evaluated.",
        lambda stats: stats.drafted,
    ),
    (
        "spec_decode_num_accepted_tokens",
        CounterMetricFamily,
        "Guessed tokens that stood.",
        lambda stats: stats.accepted,
    ),
)


class _EngineCollector:
    """Reads the engines' reports when a scrape asks."""

    def __init__(self, engines: Callable[[], Iterable[tuple[str, Stats]]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        engines = list(self._engines())
        for name, kind, meaning, value in _REPORTED:
            family = kind(f"inferno_{name}", meaning, labels=["model_name"])
            for model, stats in engines:
                family.add_metric([model], value(stats))
            yield family
