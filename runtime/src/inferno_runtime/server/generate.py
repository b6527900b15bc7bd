"""One request on its way through an engine, whatever transport it came by.

A transport decodes a request and writes what comes of it. Everything between is here, once: which model is asked, what
of the engine, with which limits, how fast the text is handed over, what is counted, and what a failure is called.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from inferno_runtime.engine.request import FinishReason
from inferno_runtime.openai import convert, errors
from inferno_runtime.openai.convert import Job
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.requests import GenerationRequest
from inferno_runtime.openai.responses import usage_object
from inferno_runtime.server.base import Context
from inferno_runtime.server.registry import Served
from inferno_runtime.worker.errors import (
    EngineError,
    EngineLost,
    EngineUnavailable,
    GenerationTimeout,
    OutOfMemory,
    Overloaded,
    TokenTimeout,
)
from inferno_runtime.worker.generation import Delta, Generation

# Requests above this many bytes are parsed, rendered and tokenized in a thread, so that the loop goes on serving streams.
_LARGE = 64 * 1024

Write = Callable[[int, Delta], Awaitable[None]]
"""Takes the next piece of the sequence of that index; may wait, and fail, for as long as the client does."""
Pace = Callable[[], tuple[int, float]]
"""How many tokens to hand over together, and how many seconds to wait for them."""

_Result = TypeVar("_Result")


class Run:
    """A request's way: `take`, `submit`, and then either `whole` or `stream`. Whoever made it calls `cancel` in the end."""

    def __init__(self, context: Context, began: float) -> None:
        """began: when the request arrived, on the loop's clock."""
        self.model = ""  # the name of the model that serves it, once that is known
        self.generations: list[Generation] = []
        self._context = context
        self._config = context.config.server
        self._began = began
        self._deadline = began + self._config.inference_timeout_seconds
        self._served: Served
        self._job: Job

    async def take(self, decode: Callable[[], GenerationRequest], size: int) -> Job:
        """Find out what the engine is to do. decode: reads the request; size: of what it reads, in bytes.

        Raises `ApiError`.
        """
        if self._context.registry.draining:
            raise errors.unavailable("The server is shutting down.")
        request = await _aside(decode, size)
        self._served = self._context.registry.find(request.model)
        self.model = self._served.name
        target = self._served.target
        self._job = await _aside(lambda: convert.job_of(request, target), size)
        return self._job

    async def submit(self) -> None:
        """Give the engine its sequences. Raises `ApiError`."""
        job, engine = self._job, self._served.engine
        async with self._limited():
            for prompt in job.prompts:
                self.generations.append(
                    await engine.submit(
                        prompt,
                        max_tokens=min(job.max_tokens, engine.context - len(prompt)),
                        sampling=job.sampling,
                        stop=job.stop,
                        ignore_eos=job.ignore_eos,
                        deadline=self._deadline,
                        token_timeout=self._config.token_timeout_seconds,
                    )
                )

    async def whole(self) -> list[tuple[str, FinishReason]]:
        """The texts, and why they ended. Raises `ApiError`."""
        async with self._limited():
            return await _all(self._read_whole(generation) for generation in self.generations)

    async def stream(self, write: Write, pace: Pace | None = None) -> None:
        """Hand over the texts as they come. Raises `ApiError`, and whatever `write` does."""
        async with self._limited():
            await _all(
                self._read_into(write, pace or self.pace, index, generation)
                for index, generation in enumerate(self.generations)
            )

    def cancel(self) -> None:
        """End what still runs."""
        for generation in self.generations:
            generation.cancel()

    def pace(self) -> tuple[int, float]:
        """The configured pace."""
        return self._config.token_batch_size, self._config.token_batch_ms / 1000

    @property
    def usage(self) -> dict[str, Any]:
        """What the sequences have taken so far."""
        return usage_object(generation.usage for generation in self.generations)

    @property
    def log_fields(self) -> dict[str, object]:
        """What the access log says of it."""
        if not self.generations:
            return {}
        return {
            "prompt_tokens": sum(generation.prompt_tokens for generation in self.generations),
            "completion_tokens": sum(generation.completion_tokens for generation in self.generations),
        }

    async def _read_whole(self, generation: Generation) -> tuple[str, FinishReason]:
        delta = await generation.read_all()
        reason = delta.finish_reason or FinishReason.STOP
        self._observe(generation, reason, self._elapsed() - generation.usage.decode)
        return delta.text, reason

    async def _read_into(self, write: Write, pace: Pace, index: int, generation: Generation) -> None:
        first: float | None = None
        while True:
            delta = await generation.read(*pace())
            if first is None:
                first = self._elapsed()
            await write(index, delta)
            if delta.finish_reason is not None:
                self._observe(generation, delta.finish_reason, first)
                return

    def _observe(self, generation: Generation, reason: FinishReason, first: float) -> None:
        self._context.metrics.sequence(self.model, generation.usage, reason, first, self._elapsed())

    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        """Ends what takes longer than a request may, and gives an engine's errors their names in the API."""
        try:
            async with asyncio.timeout_at(self._deadline):
                yield
        except (TimeoutError, EngineError) as error:
            raise self._api_error(error) from error

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
            case _:
                return ApiError(500, str(error), kind=errors.SERVER, code="generation_failed")


async def _aside(work: Callable[[], _Result], size: int) -> _Result:
    """Work on so many bytes, out of the loop's way where they are many."""
    return work() if size <= _LARGE else await asyncio.to_thread(work)


async def _all(work: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """The results of coroutines that run together; the first error ends the others and is raised as it is."""
    first, *others = work
    if not others:
        return [await first]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in (first, *others)]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
