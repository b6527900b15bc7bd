"""kopf's watches, in a thread and an event loop of their own.

kopf takes the loop that it runs in for its own: as it ends it ends every task there. And reading ten thousand objects
takes seconds, in which the Lease must be renewed all the same.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import kopf

from inferno_operator import handlers
from inferno_operator.api.kinds import Kind
from inferno_operator.api.resource import Key
from inferno_operator.store import Packed
from inferno_operator.workqueue import backoff

_log = logging.getLogger(__name__)

_STOP_SECONDS: Final = 10.0
# Watches that ran for so long had no fault of their own.
_SOUND_SECONDS: Final = 120.0

Report = Callable[[Kind, str | None, Packed], None]
"""Told the kind of an object, how it changed (None where it was listed), and the object, packed where it was read."""
Evicting = Callable[[Key, str], None]
"""Told of a pod that its node evicts, and its uid."""


@dataclass(frozen=True, slots=True)
class Ear:
    """Who is told of what the watches see."""

    report: Report
    evicting: Evicting


async def keep_watching(ear: Ear, namespaces: tuple[str, ...], stalled: asyncio.Event) -> None:
    """Watches until cancelled. The watches begin anew when they end, or when ``stalled`` says that they had better;
    what is known meanwhile stays known.
    """
    failures = 0
    while True:
        began = time.monotonic()
        stalled.clear()
        watches = asyncio.create_task(watch(ear, namespaces), name="watches")
        told = asyncio.create_task(stalled.wait(), name="stalled")
        try:
            await asyncio.wait({watches, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watches, told):
                task.cancel()
            await asyncio.wait({watches, told})
        failures = 1 if time.monotonic() - began > _SOUND_SECONDS else failures + 1
        seconds = backoff(failures)
        error = None if watches.cancelled() else watches.exception()
        _log.warning("the watches begin anew in %.1f s: %s", seconds, error or "they had fallen silent")
        await asyncio.sleep(seconds)


async def watch(ear: Ear, namespaces: tuple[str, ...]) -> None:
    """Watches until cancelled; ends with an error where that cannot go on, such as for its credentials."""
    loop = asyncio.get_running_loop()
    watching = True

    def hand_over(told: Callable[..., None], *arguments: Any) -> None:
        if watching:
            loop.call_soon_threadsafe(told, *arguments)

    thread = _Thread(loop, Ear(partial(hand_over, ear.report), partial(hand_over, ear.evicting)), namespaces)
    try:
        await asyncio.shield(thread.ended)
    finally:
        watching = False
        thread.stop()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.shield(thread.ended), _STOP_SECONDS)


class _Thread:
    """The thread, from its start on. ``ended`` holds the error that ended it, if one did."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ear: Ear, namespaces: tuple[str, ...]) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._kopf: tuple[asyncio.AbstractEventLoop, asyncio.Task[None]] | None = None
        self._stopped = False
        threading.Thread(target=self._run, args=(ear, namespaces), name="watches", daemon=True).start()

    def stop(self) -> None:
        """Asks it to end."""
        self._stopped = True
        if self._kopf is not None:
            theirs, task = self._kopf
            with contextlib.suppress(RuntimeError):  # its loop is closed already
                theirs.call_soon_threadsafe(task.cancel)

    def _run(self, ear: Ear, namespaces: tuple[str, ...]) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._operate(ear, namespaces))
        except asyncio.CancelledError:
            pass
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the process ends, and nobody waits any more
            self._loop.call_soon_threadsafe(self._end, error)

    async def _operate(self, ear: Ear, namespaces: tuple[str, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._kopf = (asyncio.get_running_loop(), task)
        if self._stopped:
            return
        await kopf.operator(
            registry=kopf.get_default_registry(),
            standalone=True,
            # Unused without peering, but kopf would ask for the user's name, and a container's user may have none.
            identity=cast(Any, "inferno-operator"),
            clusterwide=not namespaces,
            namespaces=namespaces,
            memo=kopf.Memo(report=ear.report, evicting=ear.evicting),
        )

    def _end(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


assert handlers, "imported for its decorators"
