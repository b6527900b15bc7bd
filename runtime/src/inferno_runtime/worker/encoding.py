"""One request for vectors as the server sees it."""

import asyncio
from collections.abc import Callable

from inferno_runtime.engine.request import Embedded, FinishReason
from inferno_runtime.worker.errors import EncodingFailed, EngineError, GenerationTimeout, OutOfMemory


class Encoding:
    """A request that is under way. Belongs to the event loop that made it; one reader."""

    def __init__(self, request_id: int, cancel: Callable[[int], None], deadline: float | None) -> None:
        """cancel: tells the engine; deadline: on the loop's clock, None for none."""
        self.id = request_id
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._outcome: Embedded | EngineError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer = self._loop.call_at(deadline, self._time_out) if deadline is not None else None

    async def read(self) -> Embedded:
        """The vectors, once they are all there. Raises `EngineError`."""
        if self._outcome is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        assert self._outcome is not None
        if isinstance(self._outcome, EngineError):
            raise self._outcome
        return self._outcome

    def cancel(self) -> None:
        """End the request; what of it waits is not encoded any more."""
        if self._outcome is None:
            self._cancel(self.id)
            self._settle(EncodingFailed("The request was cancelled."))

    # What the engine says, by way of the client.

    def on_answer(self, answer: Embedded) -> None:
        """The engine has answered."""
        if answer.reason is FinishReason.NO_MEMORY:
            self.fail(OutOfMemory(answer.error or "There is no memory for this request."))
        elif answer.error is not None:
            self.fail(EncodingFailed(answer.error))
        elif self._outcome is None:
            self._settle(answer)

    def start_over(self) -> bool:
        """The engine has died. Another can begin anew, since of vectors there are all or none."""
        return True

    def fail(self, error: EngineError) -> None:
        """End the request with an error."""
        if self._outcome is None:
            self._settle(error)

    def _time_out(self) -> None:
        if self._outcome is None:
            self._cancel(self.id)
            self._settle(GenerationTimeout("The request took longer than the inference time limit."))

    def _settle(self, outcome: Embedded | EngineError) -> None:
        self._outcome = outcome
        if self._timer is not None:
            self._timer.cancel()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
