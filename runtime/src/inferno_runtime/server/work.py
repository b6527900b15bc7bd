"""What an engine does for one request, whatever that is and whatever transport it came by.

A transport decodes a request and writes what comes of it. Everything between is in a `Work`, once: which model is asked, and
whether the caller may; at which priority, and whose account is charged; until when, and what a failure is called; and what
it all took.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from inferno_runtime.engine.request import Priority, Usage
from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server.access import Caller
from inferno_runtime.server.context import Context
from inferno_runtime.server.limits import Meter
from inferno_runtime.server.profiles import Profile, phases_of
from inferno_runtime.server.registry import Served
from inferno_runtime.server.tracing import Attribute
from inferno_runtime.worker.errors import (
    EncodingFailed,
    EngineError,
    EngineLost,
    EngineUnavailable,
    GenerationTimeout,
    OutOfMemory,
    Overloaded,
    TokenTimeout,
)

# What is larger than so many bytes is read, tokenized and written in a thread, so that the loop goes on serving others.
_LARGE = 64 * 1024

_Result = TypeVar("_Result")


async def aside(work: Callable[[], _Result], size: int) -> _Result:
    """The result of work on so many bytes, out of the loop's way where they are many."""
    return work() if size <= _LARGE else await asyncio.to_thread(work)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request when it came."""

    endpoint: str  # its name in the metrics
    request_id: str
    at: float  # on the loop's clock
    headers: Mapping[str, str]  # names in any case; a WebSocket's are those of its handshake
    caller: Caller
    meter: Meter


class Work(ABC):
    """A request's way through an engine. Whoever made it calls `done` when it went well, and `cancel` in the end."""

    def __init__(self, context: Context, arrival: Arrival) -> None:
        self.model = ""  # the name of the model that serves it, once that is known
        self.priority = Priority.NORMAL
        self._context = context
        self._config = context.config.server
        self._arrival = arrival
        self._meter = arrival.meter
        self._deadline = arrival.at + self._config.inference_timeout_seconds
        self._served: Served
        self._adapter = 0  # of the model's
        self._counted = False  # in the queue's statistics
        self._tokenize = 0.0  # seconds
        self._write = 0.0

    def cancel(self) -> None:
        """End what the engine does, if it still does, and charge what it has done."""
        self._stop()
        if self._counted:
            self._counted = False
            self._context.profiles.processed(self.model, self.priority)

    def done(self) -> None:
        """Note what the request took: it is answered."""
        usages = self._usages
        self._context.profiles.add(
            Profile(
                request_id=self._arrival.request_id,
                model=self.model,
                endpoint=self._arrival.endpoint,
                priority=self.priority,
                input_tokens=sum(usage.prompt_tokens for usage in usages),
                cached_tokens=sum(usage.cached_tokens for usage in usages),
                output_tokens=sum(usage.completion_tokens for usage in usages),
                phases=phases_of(usages, self._tokenize, self._write),
                first=self._first,
                total=self._elapsed(),
                ended=time.time(),
            )
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While the answer is written."""
        began = self._elapsed()
        try:
            yield
        finally:
            self._write += self._elapsed() - began

    # What is known of it, in the log and in a trace

    @property
    def log_fields(self) -> dict[str, object]:
        """What the access log says of it."""
        return {}

    @property
    @abstractmethod
    def span_name(self) -> str: ...

    @property
    @abstractmethod
    def span_attributes(self) -> dict[str, Attribute]: ...

    def span_events(self, offset: float) -> tuple[tuple[str, float], ...]:
        return ()

    # What kinds of work differ in

    @abstractmethod
    def _stop(self) -> None:
        """End what the engine does, if it still does."""

    @property
    @abstractmethod
    def _taken(self) -> bool:
        """Whether the engine has taken any of it."""

    @property
    @abstractmethod
    def _usages(self) -> Sequence[Usage]:
        """What its parts took; at least one, once it is answered."""

    @property
    def _first(self) -> float | None:
        """Seconds from its arrival to its first token, if it has tokens."""
        return None

    # What they share

    def _find(self, model: str, priority: Priority | None) -> Served:
        """The model of this name, and with it the priority, None where the request names none. Raises `ApiError`."""
        if self._context.registry.draining:
            raise errors.unavailable("The server is shutting down.")
        caller = self._arrival.caller
        offer = self._context.registry.find(model, caller)
        self._served, self._adapter, self.model = offer.served, offer.adapter, offer.name
        self.priority = caller.priority(priority, self._arrival.headers)
        return offer.served

    @asynccontextmanager
    async def _prompt(self, tokens: int) -> AsyncIterator[None]:
        """Charge a prompt of so many tokens, and give them back where the engine takes nothing. Raises `ApiError`."""
        await self._meter.prompt(tokens)
        try:
            yield
            self._counted = True
            self._context.profiles.queued(self.model, self.priority)
        except EngineError:
            if not self._taken:
                await self._meter.refund(tokens)
            raise

    async def _tokenized(self, work: Callable[[], _Result], size: int) -> _Result:
        """The result of turning a request of so many bytes into tokens."""
        began = self._elapsed()
        result = await aside(work, size)
        self._tokenize = self._elapsed() - began
        return result

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        """Ends what takes longer than a request may, and gives an engine's errors their names in the API."""
        try:
            async with asyncio.timeout_at(self._deadline):
                yield
        except (TimeoutError, EngineError) as error:
            raise self._api_error(error) from error

    def _elapsed(self) -> float:
        """Seconds since the request came."""
        return asyncio.get_running_loop().time() - self._arrival.at

    def _api_error(self, error: Exception) -> ApiError:
        match error:
            case TimeoutError() | GenerationTimeout():
                return errors.timed_out(self._config.inference_timeout_seconds)
            case TokenTimeout():
                return errors.token_timed_out(self._config.token_timeout_seconds)
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
