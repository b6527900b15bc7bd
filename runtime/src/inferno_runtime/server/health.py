"""`/health` for people, `/health/live` and `/health/ready` for probes, `/metrics` for Prometheus."""

import logging
import time
from importlib import metadata

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.registry import Served
from inferno_runtime.worker.client import EngineState

VERSION = metadata.version("inferno-runtime")


class HealthHandler(BaseHandler):
    """The state of the server and its engines; 503 with the reason while it does not serve."""

    log_level = logging.DEBUG

    async def run(self) -> None:
        context = self.context
        status, reason = self.verdict()
        body: dict[str, object] = {
            "status": status,
            "version": VERSION,
            "uptime_seconds": round(time.monotonic() - context.began, 3),
        }
        if reason:
            body["reason"] = reason
        models = [_model(served) for served in context.registry]
        if len(models) == 1:
            body |= models[0]
        else:
            body["models"] = models
        self.set_status(503 if reason else 200)
        await self.finish(msgspec.json.encode(body))

    def verdict(self) -> tuple[str, str]:
        """A word for the state, and the reason where it is not a good one."""
        return readiness(self)


class ReadyHandler(BaseHandler):
    """Whether requests should be sent here."""

    log_level = logging.DEBUG

    async def run(self) -> None:
        status, reason = readiness(self)
        self.set_status(503 if reason else 200)
        await self.finish(msgspec.json.encode({"status": status, "reason": reason} if reason else {"status": status}))


class LiveHandler(BaseHandler):
    """Whether starting this process again would help."""

    log_level = logging.DEBUG

    async def run(self) -> None:
        dead = [served for served in self.context.registry if not served.engine.alive]
        if dead:
            reason = "; ".join(f"{served.name}: {served.engine.state_reason}" for served in dead)
            self.set_status(503)
            await self.finish(msgspec.json.encode({"status": "dead", "reason": reason}))
        else:
            await self.finish(b'{"status":"live"}')


class MetricsHandler(BaseHandler):
    """Prometheus' text format."""

    log_level = logging.DEBUG

    async def run(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        await self.finish(self.context.metrics.text())


def readiness(handler: BaseHandler) -> tuple[str, str]:
    """A word for the server's state, and the reason where it does not serve."""
    registry = handler.context.registry
    if registry.draining:
        return "draining", "The server is shutting down."
    if registry.leaving:
        return "leaving", "The server will be ended soon."
    waiting = [served for served in registry if not served.ready]
    if not waiting:
        return "healthy", ""
    word = "loading" if any(served.engine.state is EngineState.STARTING for served in waiting) else "unhealthy"
    return word, "; ".join(f"{s.name}: {s.engine.state_reason or 'the model is being loaded'}" for s in waiting)


def _model(served: Served) -> dict[str, object]:
    stats = served.engine.stats
    return {
        "model": served.name,
        "format": served.engine.info.format if served.loaded else None,
        "task": served.engine.info.task if served.loaded else None,
        "vision": served.engine.info.vision if served.loaded else None,
        "engine": {
            "state": served.engine.state.value,
            "active": stats.active,
            "queued": stats.queued,
            "kv_usage": round(stats.kv_usage, 4),
            "tuning": served.engine.tuning,
            "draft": served.engine.draft,
        },
    }
