"""What is kept of a request that has ended, whatever transport it came by: a line in the log, a count, and a span."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from inferno_runtime.server.context import Context
from inferno_runtime.server.tracing import Attribute, Span

_log = logging.getLogger("inferno_runtime.access")

CLIENT_CLOSED = 499  # here only: nobody is left to read it


class Traced(Protocol):
    """What a trace says of a request besides; see `server.work`."""

    @property
    def span_name(self) -> str:
        """What it is called in a trace; one of few names."""

    @property
    def span_attributes(self) -> Mapping[str, Attribute]:
        """What is worth knowing of it."""

    def span_events(self, offset: float) -> tuple[tuple[str, float], ...]:
        """What happened when. offset: what the loop's clock must be moved by to be Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A request that has ended."""

    method: str
    path: str
    endpoint: str  # its name in the metrics; empty if it is not counted
    status: int
    began: float  # on the loop's clock
    request_id: str
    model: str  # the name of the one that served it, empty if none did
    headers: Mapping[str, str]
    fields: Mapping[str, object]  # what the log says besides; `error` is the code of one
    level: int = logging.INFO
    traced: Traced | None = None


def record(context: Context, ended: Ended) -> None:
    """Keep what is to be kept."""
    now = asyncio.get_running_loop().time()
    _write_line(ended, now - ended.began)
    if ended.endpoint:
        context.metrics.requests.labels(ended.model, ended.endpoint, str(ended.status)).inc()
        if context.tracer is not None:
            context.tracer.record(_span(ended, now))


def _write_line(ended: Ended, seconds: float) -> None:
    _log.log(
        ended.level,
        "%s %s %d %.1f ms",
        ended.method,
        ended.path,
        ended.status,
        seconds * 1000,
        extra={
            "method": ended.method,
            "path": ended.path,
            "status": ended.status,
            "ms": round(seconds * 1000, 1),
            "request_id": ended.request_id,
            **({"model": ended.model} if ended.model else {}),
            **ended.fields,
        },
    )


def _span(ended: Ended, now: float) -> Span:
    offset = time.time() - now
    traced = ended.traced
    # A client's own mistakes are no errors of the server's.
    error = ended.fields.get("error") if ended.status < 400 or ended.status >= 500 else None
    return Span(
        name=traced.span_name if traced else f"{ended.method} {ended.endpoint}",
        headers=ended.headers,
        start=ended.began + offset,
        end=now + offset,
        attributes={
            "http.request.method": ended.method,
            "http.response.status_code": ended.status,
            "url.path": ended.path,
            "inferno.request_id": ended.request_id,
            **(traced.span_attributes if traced else {}),
        },
        events=traced.span_events(offset) if traced else (),
        error=None if error is None else str(error),
    )
