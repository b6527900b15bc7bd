"""What handlers share that have the engine work for a client: limits of time, clients that go away, what can go wrong."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tornado.iostream import StreamClosedError

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server.base import CLIENT_CLOSED, BaseHandler, Context, require_json
from inferno_runtime.worker.errors import (
    EncodingFailed,
    EngineLost,
    EngineUnavailable,
    GenerationTimeout,
    OutOfMemory,
    Overloaded,
)

# What is larger than so many bytes is read, tokenized and written in a thread, so that the loop goes on serving others.
_LARGE = 64 * 1024

_Result = TypeVar("_Result")


class WorkHandler(BaseHandler):
    """Takes a request, has the engine work, and ends that work when the client goes away."""

    allow = "POST"
    takes_body = True

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        self._work: asyncio.Task[None] | None = None
        self._gone = False
        self.deadline = self.began + context.config.server.inference_timeout_seconds

    async def work(self) -> None:
        """Read the body and answer it; what handlers implement. Raises `ApiError`."""
        raise NotImplementedError

    def cancel_work(self) -> None:
        """End what the engine does for this request, if it still does."""
        raise NotImplementedError

    async def run(self) -> None:
        require_json(self.request)
        if self.context.registry.draining:
            raise errors.unavailable("The server is shutting down.")
        self.context.enter(self)
        try:
            # A task of its own, so that a client that goes away can end it wherever it waits.
            self._work = asyncio.create_task(self.work())
            await self._work
        except StreamClosedError:
            self.on_connection_close()
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            self.cancel_work()
            self.context.leave(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True
        self.cancel_work()
        if self._work is not None:
            self._work.cancel()
        self.log_request(CLIENT_CLOSED)

    async def off_loop(self, work: Callable[[], _Result], size: int | None = None) -> _Result:
        """The result of work on so many bytes, by default those of the body."""
        if (len(self._body) if size is None else size) <= _LARGE:
            return work()
        return await asyncio.to_thread(work)

    def elapsed(self) -> float:
        """Seconds since the request came."""
        return asyncio.get_running_loop().time() - self.began

    def engine_error(self, error: Exception) -> ApiError:
        """What a client is told of an error of the engine's."""
        match error:
            case TimeoutError() | GenerationTimeout():
                return errors.timed_out(self.context.config.server.inference_timeout_seconds)
            case Overloaded():
                return errors.unavailable(str(error), retry_after=1, code="overloaded")
            case EngineUnavailable():
                return errors.unavailable(str(error))
            case OutOfMemory():
                return ApiError(507, str(error), kind=errors.SERVER, code="out_of_memory")
            case EngineLost():
                return ApiError(500, str(error), kind=errors.SERVER, code="engine_restarted")
            case EncodingFailed():
                return ApiError(500, str(error), kind=errors.SERVER, code="encoding_failed")
            case _:
                return ApiError(500, str(error), kind=errors.SERVER, code="generation_failed")
