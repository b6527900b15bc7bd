"""`/metrics/profiles/recent`, `/metrics/profiles/stats` and `/metrics/queue/status`: what requests took, as JSON."""

import asyncio
import logging

import msgspec

from inferno_runtime.openai import errors
from inferno_runtime.openai.monitoring import DEFAULT_LIMIT, DEFAULT_WINDOW, MOST_RECENT, WindowName
from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.profiles import WINDOWS, Load
from inferno_runtime.server.registry import Offer


class MonitoringHandler(BaseHandler):
    """Takes the parameters that these paths share; others are ignored."""

    log_level = logging.DEBUG

    def models(self) -> list[Offer]:
        """The model that `model` names, or else all that are open to the caller. Raises `ApiError` (403, 404)."""
        name = self.get_query_argument("model", None)
        if name is None:
            return [offer for offer in self.context.registry.offers() if self.caller.may_use(offer.names)]
        return [self.context.registry.find(name, self.caller)]

    def window(self) -> WindowName:
        """The window that `window` names. Raises `ApiError` (400)."""
        name = self.get_query_argument("window", DEFAULT_WINDOW)
        if name not in WINDOWS:
            raise errors.bad_request(f"'window' must be one of {', '.join(WINDOWS)}, not '{name[:64]}'.", "window")
        return name

    def limit(self) -> int:
        """The number that `limit` gives. Raises `ApiError` (400)."""
        given = self.get_query_argument("limit", str(DEFAULT_LIMIT))
        # A longer number is out of range, however long it takes to read.
        limit = int(given) if given.isascii() and given.isdecimal() and len(given) <= 9 else 0
        if not 1 <= limit <= MOST_RECENT:
            raise errors.bad_request(
                f"'limit' must be an integer from 1 to {MOST_RECENT}, not '{given[:64]}'.", "limit"
            )
        return limit

    async def answer(self, body: msgspec.Struct) -> None:
        """Send the answer, which nobody should keep."""
        self.set_header("Cache-Control", "no-store")
        await self.finish(msgspec.json.encode(body))


class RecentProfilesHandler(MonitoringHandler):
    """`/metrics/profiles/recent`."""

    async def run(self) -> None:
        limit, models = self.limit(), self.models()
        await self.answer(self.context.profiles.recent(limit, _names(models)))


class ProfileStatsHandler(MonitoringHandler):
    """`/metrics/profiles/stats`."""

    async def run(self) -> None:
        window, models = self.window(), self.models()
        await self.answer(self.context.profiles.stats(window, _names(models)))


class QueueStatusHandler(MonitoringHandler):
    """`/metrics/queue/status`."""

    async def run(self) -> None:
        window, models = self.window(), self.models()
        load = _load(models)
        await self.answer(self.context.profiles.queue(window, load, _names(models)))


def _names(models: list[Offer]) -> frozenset[str]:
    return frozenset(offer.name for offer in models)


def _load(models: list[Offer]) -> Load:
    """Of the models' engines: what of it an adapter is asked for is not told apart."""
    now = asyncio.get_running_loop().time()
    engines = list(dict.fromkeys(offer.served.engine for offer in models))
    stats = [engine.stats for engine in engines]
    return Load(
        active=sum(each.active for each in stats),
        queued=sum(each.queued for each in stats),
        room=sum(engine.served.engine.max_queue - engine.stats.queued for engine in engines),
        mean_depth=sum(each.depth.mean(now) for each in stats),
        most_depth=max((each.depth.most for each in stats), default=0),
    )
