"""`/v1/chat/completions` and `/v1/completions`: one flow, in which only the wire types differ."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar, TypeVar

from tornado.iostream import StreamClosedError

from inferno_runtime.engine.request import FinishReason
from inferno_runtime.openai import convert, errors, requests
from inferno_runtime.openai.convert import Job, Target
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.requests import GenerationRequest
from inferno_runtime.openai.responses import Answer, ChatAnswer, ChoiceEvents, CompletionAnswer, usage_object
from inferno_runtime.server.base import CLIENT_CLOSED, BaseHandler, Context, require_json
from inferno_runtime.server.registry import Served
from inferno_runtime.server.stream import EventStream
from inferno_runtime.worker.errors import (
    EngineError,
    EngineLost,
    EngineUnavailable,
    GenerationTimeout,
    OutOfMemory,
    Overloaded,
)
from inferno_runtime.worker.generation import Generation

# Bodies above this many bytes are parsed, rendered and tokenized in a thread, so that the loop goes on serving streams.
_LARGE_BODY = 64 * 1024

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class GenerationHandler(BaseHandler):
    """Takes a request, has its sequences generated, and writes them whole or as they come."""

    allow = "POST"
    takes_body = True
    answer_type: ClassVar[type[Answer]]

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        self._generations: list[Generation] = []
        self._work: asyncio.Task[None] | None = None
        self._gone = False
        self._deadline = self.began + context.config.server.inference_timeout_seconds

    def decode(self, body: bytes) -> GenerationRequest:
        """The request in the body. Raises `ApiError`."""
        raise NotImplementedError

    def convert(self, request: GenerationRequest, target: Target) -> Job:
        """What the engine is to do. Raises `ApiError`."""
        raise NotImplementedError

    async def run(self) -> None:
        require_json(self.request)
        if self.context.registry.draining:
            raise errors.unavailable("The server is shutting down.")
        self.context.enter(self)
        try:
            # A task of its own, so that a client that goes away can end it wherever it waits.
            self._work = asyncio.create_task(self._take_and_answer())
            await self._work
        except StreamClosedError:
            self.on_connection_close()
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            self._cancel_all()
            self.context.leave(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True
        self._cancel_all()
        if self._work is not None:
            self._work.cancel()
        self.log_request(CLIENT_CLOSED)

    def log_request(self, status: int) -> None:
        if self._generations:
            self.log_fields["prompt_tokens"] = sum(g.prompt_tokens for g in self._generations)
            self.log_fields["completion_tokens"] = sum(g.completion_tokens for g in self._generations)
        super().log_request(status)

    async def _take_and_answer(self) -> None:
        request = await self._off_loop(lambda: self.decode(self.body))
        served = self.context.registry.find(request.model)
        self.model_label = served.name
        target = served.target
        job = await self._off_loop(lambda: self.convert(request, target))
        answer = self.answer_type(served.name, job.include_usage)
        if job.stream:
            await self._stream(job, served, answer)
        else:
            await self._whole(job, served, answer)

    async def _whole(self, job: Job, served: Served, answer: Answer) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._submit(job, served)
                results = await _all(self._read_whole(generation) for generation in self._generations)
        except (TimeoutError, EngineError) as error:
            raise self._engine_error(error) from error
        await self.finish(answer.whole(results, self._usage()))

    async def _stream(self, job: Job, served: Served, answer: Answer) -> None:
        stream = EventStream(self)
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._submit(job, served)
                await _all(
                    self._read_into(stream, answer.events(index), generation)
                    for index, generation in enumerate(self._generations)
                )
                await stream.send(answer.usage_event(self._usage()) if job.include_usage else b"")
        except (TimeoutError, EngineError) as error:
            await stream.fail(self._engine_error(error))
        except StreamClosedError:
            raise
        except Exception:
            if not stream.open:
                raise
            _log.exception("%s failed in mid-stream", self.request.path)
            await stream.fail(errors.internal())
        else:
            await stream.end()
        finally:
            stream.close()

    async def _off_loop(self, work: Callable[[], _Result]) -> _Result:
        if len(self._body) <= _LARGE_BODY:
            return work()
        return await asyncio.to_thread(work)

    async def _submit(self, job: Job, served: Served) -> None:
        for prompt in job.prompts:
            self._generations.append(
                await served.engine.submit(
                    prompt,
                    max_tokens=min(job.max_tokens, served.engine.context - len(prompt)),
                    sampling=job.sampling,
                    stop=job.stop,
                    ignore_eos=job.ignore_eos,
                    deadline=self._deadline,
                )
            )

    async def _read_whole(self, generation: Generation) -> tuple[str, FinishReason]:
        delta = await generation.read_all()
        reason = delta.finish_reason or FinishReason.STOP
        whole = self._elapsed()
        self.context.metrics.sequence(
            self.model_label, generation.usage, reason, whole - generation.usage.decode, whole
        )
        return delta.text, reason

    async def _read_into(self, stream: EventStream, events: ChoiceEvents, generation: Generation) -> None:
        server = self.context.config.server
        least, wait = server.token_batch_size, server.token_batch_ms / 1000
        first: float | None = None
        waiting = events.opening()
        while True:
            delta = await generation.read(least, wait)
            if first is None:
                first = self._elapsed()
            if delta.text:
                waiting += events.text(delta.text)
            if delta.finish_reason is not None:
                waiting += events.closing(delta.finish_reason)
            if waiting:
                await stream.send(waiting)
                waiting = b""
            if delta.finish_reason is not None:
                self.context.metrics.sequence(
                    self.model_label, generation.usage, delta.finish_reason, first, self._elapsed()
                )
                return

    def _elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    def _cancel_all(self) -> None:
        for generation in self._generations:
            generation.cancel()

    def _usage(self) -> dict[str, Any]:
        return usage_object(generation.usage for generation in self._generations)

    def _engine_error(self, error: Exception) -> ApiError:
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
            case _:
                return ApiError(500, str(error), kind=errors.SERVER, code="generation_failed")


class ChatHandler(GenerationHandler):
    """`/v1/chat/completions`."""

    endpoint = "chat_completions"
    answer_type = ChatAnswer

    def decode(self, body: bytes) -> requests.ChatRequest:
        return requests.decode(body, requests.ChatRequest)

    def convert(self, request: GenerationRequest, target: Target) -> Job:
        assert isinstance(request, requests.ChatRequest)
        return convert.chat_job(request, target)


class CompletionHandler(GenerationHandler):
    """`/v1/completions`."""

    endpoint = "completions"
    answer_type = CompletionAnswer

    def decode(self, body: bytes) -> requests.CompletionRequest:
        return requests.decode(body, requests.CompletionRequest)

    def convert(self, request: GenerationRequest, target: Target) -> Job:
        assert isinstance(request, requests.CompletionRequest)
        return convert.completion_job(request, target)


async def _all(work: Iterable[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """The results of coroutines that run together; the first error ends the others and is raised as it is."""
    first, *others = work
    if not others:
        return [await first]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in (first, *others)]
    except* (EngineError, StreamClosedError) as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
