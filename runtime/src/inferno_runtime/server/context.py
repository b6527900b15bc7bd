"""What the handlers of one server share."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from tornado.web import RequestHandler

from inferno_runtime.config import RuntimeConfig
from inferno_runtime.server.access import Access
from inferno_runtime.server.metrics import Metrics
from inferno_runtime.server.profiles import Profiles
from inferno_runtime.server.registry import Registry
from inferno_runtime.server.response_store import ResponseStore
from inferno_runtime.server.tracing import Tracer


class Socket(Protocol):
    """A connection that outlives its requests; see `server.websocket`."""

    def drain(self) -> None:
        """End it once nothing runs on it."""


@dataclass(slots=True)
class Context:
    """What the handlers of one application share."""

    config: RuntimeConfig
    registry: Registry
    metrics: Metrics
    started: float  # Unix time
    access: Access
    profiles: Profiles = field(default_factory=Profiles)
    responses: ResponseStore = field(init=False)
    began: float = field(default_factory=time.monotonic)  # when it started, by the clock that nobody sets
    tracer: Tracer | None = None  # None while requests are not traced
    in_flight: set[RequestHandler] = field(default_factory=set)
    sockets: set[Socket] = field(default_factory=set)
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while nothing is in flight

    def __post_init__(self) -> None:
        self.idle.set()
        server = self.config.server
        self.responses = ResponseStore(
            server.stored_responses, server.stored_response_kb * 1024, server.stored_response_seconds
        )

    def enter(self, handler: RequestHandler) -> None:
        """A request is being worked on: a server that drains waits for it."""
        self.in_flight.add(handler)
        self.idle.clear()

    def leave(self, handler: RequestHandler) -> None:
        """It no longer is."""
        self.in_flight.discard(handler)
        if not self.in_flight:
            self.idle.set()
