"""Traces: who asks for them, what they say, and that nothing waits for them."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from inferno_runtime.config import ServerConfig
from inferno_runtime.server.tracing import Span, TracingError, load_tracer
from inferno_runtime.worker.errors import EngineLost
from tests.unit.server.conftest import Running

COLLECTOR = "http://127.0.0.1:9"  # where nobody listens


class Spans:
    """A tracer that keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def record(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        pass


@pytest.fixture
def spans(server: Running) -> Spans:
    spans = Spans()
    server.context.tracer = spans
    return spans


@pytest.mark.parametrize("stream", [False, True])
async def test_a_generation(server: Running, spans: Spans, stream: bool) -> None:
    await server.chat(stream=stream, max_tokens=5, temperature=0, seed=3)
    (span,) = spans.spans
    assert (span.name, span.error) == ("chat fake", None)
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.provider.name"] == "inferno"
    assert (span.attributes["gen_ai.request.model"], span.attributes["gen_ai.response.model"]) == ("fake", "fake")
    assert (span.attributes["gen_ai.request.max_tokens"], span.attributes["gen_ai.request.seed"]) == (5, 3)
    assert span.attributes["gen_ai.usage.output_tokens"] == 5
    assert span.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert span.attributes["http.response.status_code"] == 200
    assert [name for name, _ in span.events] == ["queued", "prefill", "prefilled", "first_token", "last_token"]
    times = [span.start, *(at for _, at in span.events), span.end]
    assert times == sorted(times)


async def test_what_a_user_says_is_in_no_trace(server: Running, spans: Spans) -> None:
    await server.chat("a most private question", stop=["private too"])
    assert "private" not in str(spans.spans)
    assert "Hello" not in str(spans.spans)


async def test_the_id_and_the_trace_of_the_client(server: Running, spans: Spans) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    headers = {"traceparent": parent, "tracestate": "a=b", "X-Request-Id": "mine"}
    await server.client.get("/v1/models", headers=headers)
    (span,) = spans.spans
    assert (span.name, span.headers.get("traceparent"), span.headers.get("tracestate")) == ("GET models", parent, "a=b")
    assert span.attributes["inferno.request_id"] == "mine"


async def test_errors(server: Running, spans: Spans) -> None:
    await server.complete(max_tokens=-1)
    await server.client.post("/v1/completions", json={"model": "made up" * 100, "prompt": "x"})
    server.engine.fails = EngineLost("Lost.")
    await server.complete()
    await server.complete(stream=True)
    bad, unknown, whole, stream = spans.spans
    # A client's mistake is no fault of the server's.
    assert (bad.name, bad.error, bad.attributes["http.response.status_code"]) == ("text_completion", None, 400)
    assert (unknown.name, unknown.error) == ("text_completion", None)
    assert len(str(unknown.attributes["gen_ai.request.model"])) == 128
    assert (whole.error, stream.error) == ("engine_restarted", "engine_restarted")
    assert stream.attributes["gen_ai.response.finish_reasons"] == ["error"]


async def test_probes_are_not_traced(server: Running, spans: Spans) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/metrics", "/nowhere"):
        await server.client.get(path)
    assert spans.spans == []


OFF: list[dict[str, str]] = [
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_SDK_DISABLED": "true"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_TRACES_EXPORTER": "none"},
    {"OTEL_TRACES_EXPORTER": "console"},
    {"OTEL_SERVICE_NAME": "x"},
]
ON: list[dict[str, str]] = [
    {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR},
    {"OTEL_TRACES_EXPORTER": "otlp"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"},
]


@pytest.mark.parametrize("environment", OFF)
def test_nobody_asks(environment: dict[str, str]) -> None:
    assert load_tracer(ServerConfig(), environment) is None


@pytest.mark.parametrize("environment", ON)
def test_the_environment_asks(environment: dict[str, str]) -> None:
    tracer = load_tracer(ServerConfig(), environment)
    assert tracer is not None
    tracer.close()


def test_the_packages_are_not_installed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "inferno_runtime.server.otlp", None)
    assert load_tracer(ServerConfig(), ON[0]) is None
    assert "inferno-runtime[tracing]" in caplog.text
    with pytest.raises(TracingError, match="otlpEndpoint"):
        load_tracer(ServerConfig(otlp_endpoint=COLLECTOR), {})


@pytest.mark.parametrize("url", ["ftp://x", "collector:4318", "http://user:secret@collector", "http://a b"])
def test_an_endpoint_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="string_pattern_mismatch"):
        ServerConfig(otlp_endpoint=url)


SPAN = Span("chat m", {}, 1000.0, 1002.0, {"gen_ai.operation.name": "chat"}, (("first_token", 1001.0),), "oops")


def test_what_a_collector_gets() -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind, StatusCode

    from inferno_runtime.server.otlp import OtlpTracer

    exporter = InMemorySpanExporter()
    tracer = OtlpTracer(None, exporter)
    headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    tracer.record(SPAN)
    tracer.record(Span("GET models", headers, 1.0, 2.0, {}, (), None))
    tracer.record(Span("GET models", {"traceparent": "nonsense"}, 1.0, 2.0, {}, (), None))
    tracer._provider.force_flush()
    failed, child, root = exporter.get_finished_spans()
    tracer.close()
    assert (failed.start_time, failed.end_time) == (1000 * 10**9, 1002 * 10**9)
    assert [(event.name, event.timestamp) for event in failed.events] == [("first_token", 1001 * 10**9)]
    assert dict(failed.attributes or {}) == {"gen_ai.operation.name": "chat", "error.type": "oops"}
    assert (failed.status.status_code, failed.kind) == (StatusCode.ERROR, SpanKind.SERVER)
    assert failed.resource.attributes["service.name"] == "inferno"
    assert child.context is not None
    assert child.context.trace_id == int("ab" * 16, 16)
    assert root.parent is None


def test_a_collector_that_is_down_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from inferno_runtime.server.otlp import OtlpTracer

    class Flaky(SpanExporter):
        outcomes: list[Any] = [
            OSError("no route"),
            OSError("no route"),
            SpanExportResult.FAILURE,
            SpanExportResult.SUCCESS,
            SpanExportResult.FAILURE,
        ]

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            logging.getLogger("opentelemetry.exporter.somewhere").error("again and again")
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            assert isinstance(outcome, SpanExportResult)
            return outcome

    caplog.set_level(logging.INFO)
    tracer = OtlpTracer(None, Flaky())
    for _ in range(5):
        tracer.record(SPAN)
        tracer._provider.force_flush()
    tracer.close()
    said = [record.getMessage() for record in caplog.records if record.name == "inferno_runtime.server.otlp"]
    assert said == [
        "traces are not delivered (said once): again and again",
        "traces are delivered again",
        "traces are not delivered (said once): again and again",
    ]


def test_a_collector_that_is_not_there_holds_up_nothing() -> None:
    from inferno_runtime.server.otlp import OtlpTracer

    tracer = OtlpTracer(COLLECTOR)
    for _ in range(10_000):  # more than the queue holds
        tracer.record(SPAN)
    tracer.close()
