"""Sends spans by OTLP over HTTP. The only importer of OpenTelemetry's packages."""

import logging
import threading
from collections.abc import Sequence
from importlib import metadata

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inferno_runtime.server.tracing import Span

_log = logging.getLogger(__name__)
_PATH = "/v1/traces"
_LAST_WORDS_SECONDS = 2.0  # for the spans that wait when the server ends
_propagator = TraceContextTextMapPropagator()


class OtlpTracer:
    """Spans wait in a queue of bounded length for a thread that sends them; what does not fit is dropped.

    The queue, the batches and the sampling follow OpenTelemetry's variables (`OTEL_BSP_*`, `OTEL_TRACES_SAMPLER`, …).
    """

    def __init__(self, endpoint: str | None, exporter: SpanExporter | None = None) -> None:
        """endpoint: base URL of the collector, None for that of the environment; exporter: to be used in place of OTLP."""
        self._failures = _Failures()
        self._failures.take_over(logging.getLogger("opentelemetry"))
        # What the environment says of the service wins.
        resource = Resource({"service.name": "inferno", "service.version": metadata.version("inferno-runtime")})
        self._provider = TracerProvider(
            resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        delivery = _Delivery(exporter or OTLPSpanExporter(endpoint=_traces_url(endpoint)), self._failures)
        self._provider.add_span_processor(BatchSpanProcessor(delivery))
        self._tracer = self._provider.get_tracer("inferno")

    def record(self, span: Span) -> None:
        """Queue a span. Called on the event loop."""
        recorded = self._tracer.start_span(
            span.name,
            context=_propagator.extract(_carrier(span)),
            kind=SpanKind.SERVER,
            attributes=dict(span.attributes),
            start_time=_nanoseconds(span.start),
        )
        for name, at in span.events:
            recorded.add_event(name, timestamp=_nanoseconds(at))
        if span.error is not None:
            recorded.set_attribute("error.type", span.error)
            recorded.set_status(Status(StatusCode.ERROR))
        recorded.end(end_time=_nanoseconds(span.end))

    def close(self) -> None:
        """Send what waits. A collector that does not answer is not waited for: the thread ends with the process."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_LAST_WORDS_SECONDS)


class _Failures(logging.Handler):
    """Says the first of the failures in a row, and when they are over; a collector that is down would fill the log."""

    def __init__(self) -> None:
        super().__init__()
        self._failing = False

    def take_over(self, logger: logging.Logger) -> None:
        """Have a library's logger say what it says here alone."""
        logger.handlers[:] = [self]
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.note(record.getMessage())

    def note(self, reason: str) -> None:
        """Something failed."""
        if not self._failing:
            self._failing = True
            _log.warning("traces are not delivered (said once): %s", reason)

    def over(self) -> None:
        """Something went well."""
        if self._failing:
            self._failing = False
            _log.info("traces are delivered again")


class _Delivery(SpanExporter):
    """An exporter whose failures are said once."""

    def __init__(self, exporter: SpanExporter, failures: _Failures) -> None:
        self._exporter = exporter
        self._failures = failures

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._failures.note(f"{type(error).__name__}: {error}")
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._failures.over()
        else:
            self._failures.note("the collector did not take them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _carrier(span: Span) -> dict[str, str]:
    return {name: value for name in ("traceparent", "tracestate") if (value := span.headers.get(name)) is not None}


def _traces_url(endpoint: str | None) -> str | None:
    """Where traces go at a collector; None leaves it to the environment."""
    if endpoint is None or endpoint.endswith(_PATH):
        return endpoint
    return endpoint.rstrip("/") + _PATH


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
