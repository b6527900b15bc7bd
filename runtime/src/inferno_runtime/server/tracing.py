"""Traces of requests, sent to an OpenTelemetry collector where one is named: by `otlpEndpoint`, or by the environment.

Nothing here imports OpenTelemetry's packages, which are an extra (`inferno-runtime[tracing]`), before they are needed.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from inferno_runtime.config import ServerConfig

_log = logging.getLogger(__name__)

Attribute = str | int | float | list[str]


@dataclass(frozen=True, slots=True)
class Span:
    """One request. Points in time are Unix times."""

    name: str
    headers: Mapping[str, str]  # of the request, for the trace that it belongs to
    start: float
    end: float
    attributes: Mapping[str, Attribute]
    events: tuple[tuple[str, float], ...]  # what happened when
    error: str | None  # a code, where it failed by the server's fault


class Tracer(Protocol):
    """Takes spans. Never waits, and never raises."""

    def record(self, span: Span) -> None:
        """Send a span, some time later; it is dropped where too many wait."""

    def close(self) -> None:
        """Send what waits, for a moment."""


class TracingError(Exception):
    """Requests cannot be traced as the configuration asks; the message is one line."""


def load_tracer(config: ServerConfig, environment: Mapping[str, str] = os.environ) -> Tracer | None:
    """The tracer that the configuration asks for, or else the environment by OpenTelemetry's own variables.

    None where neither does. Raises `TracingError` where the configuration asks for what cannot be had; an environment is
    often the same for a whole cluster, and only gets a warning then.
    """
    if config.otlp_endpoint is None and not _wanted(environment):
        return None
    try:
        from inferno_runtime.server.otlp import OtlpTracer

        return OtlpTracer(config.otlp_endpoint)
    except ImportError as error:
        message = f"tracing needs packages that are not installed ({error.name}); install inferno-runtime[tracing]"
    except ValueError as error:
        message = f"a variable of OpenTelemetry has a value that it cannot have: {error}"
    if config.otlp_endpoint is not None:
        raise TracingError(f"otlpEndpoint: {message}")
    _log.warning("%s, or set OTEL_SDK_DISABLED=true", message)
    return None


def _wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return "otlp" in exporter.split(",")
    return bool(environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
