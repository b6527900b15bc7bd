"""Handlers that have an engine work for their client, and end that work when the client goes away."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import replace

from tornado.iostream import StreamClosedError

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.context import Context
from inferno_runtime.server.generate import Run
from inferno_runtime.server.hearing import Piece
from inferno_runtime.server.record import CLIENT_CLOSED, Ended
from inferno_runtime.server.stream import EventStream
from inferno_runtime.server.work import Arrival, Work

_log = logging.getLogger(__name__)


class WorkHandler(BaseHandler):
    """Has one `Work` for its request."""

    allow = "POST"
    takes_body = True

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone = False

    @property
    def arrival(self) -> Arrival:
        """The request as `Work` wants it."""
        return Arrival(self.endpoint, self.request_id, self.began, self.request.headers, self.caller, self.meter)

    async def carry_out(self, work: Work, answering: Coroutine[None, None, None]) -> None:
        """Answer the request, until the client goes away. Raises `ApiError`."""
        self._work = work
        self.context.enter(self)
        try:
            # A task of its own, so that a client that goes away can end it wherever it waits.
            self._task = asyncio.create_task(answering)
            await self._task
        except StreamClosedError:
            self.on_connection_close()
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            work.cancel()
            self.context.leave(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True
        if self._work is not None:
            self._work.cancel()
        if self._task is not None:
            self._task.cancel()
        self.log_request(CLIENT_CLOSED)

    def ended(self, status: int) -> Ended:
        ended, work = super().ended(status), self._work
        if work is None:
            return ended
        return replace(ended, model=work.model, fields={**work.log_fields, **ended.fields}, traced=work)


class StreamedAnswer(ABC):
    """How the events of a stream are written."""

    @abstractmethod
    def piece(self, index: int, piece: Piece) -> bytes:
        """The events for the next piece of a sequence; may be nothing."""

    @abstractmethod
    def end(self, run: Run) -> bytes:
        """What closes the stream, when all its sequences have ended."""


class RunHandler(WorkHandler):
    """Has text generated."""

    async def run(self) -> None:
        run = Run(self.context, self.arrival)
        await self.carry_out(run, self.answer(run))

    @abstractmethod
    async def answer(self, run: Run) -> None:
        """Have `run` take the request, and answer it. Raises `ApiError`."""

    async def stream(self, run: Run, stream: EventStream, answer: StreamedAnswer) -> None:
        """Submit the run and write its text as it comes. Raises `ApiError` while nothing was written."""

        async def write(index: int, piece: Piece) -> None:
            await stream.send(answer.piece(index, piece))

        try:
            with self.meter.connection():
                await run.submit()
                await run.stream(write)
                await stream.end(answer.end(run))
            run.done()
        except ApiError as error:
            run.cancel()  # which need not wait until the client has heard of it
            await stream.fail(error)
        except StreamClosedError:
            raise
        except Exception:
            if not stream.open:
                raise
            _log.exception("%s failed in mid-stream", self.request.path)
            await stream.fail(errors.internal())
        finally:
            stream.close()
