"""`/v1/chat/completions` and `/v1/completions`: one flow, in which only the wire types differ."""

import asyncio
import logging
from typing import ClassVar

from tornado.iostream import StreamClosedError

from inferno_runtime.openai import errors, requests
from inferno_runtime.openai.convert import Job
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.requests import GenerationRequest
from inferno_runtime.openai.responses import DONE, Answer, ChatAnswer, CompletionAnswer
from inferno_runtime.server.base import CLIENT_CLOSED, BaseHandler, Context, require_json
from inferno_runtime.server.generate import Run
from inferno_runtime.server.stream import EventStream
from inferno_runtime.worker.generation import Delta

_log = logging.getLogger(__name__)


class RunHandler(BaseHandler):
    """Has one `Run` for its request, which ends when the client goes away, wherever it stands."""

    takes_body = True

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        self.request_run = Run(context, self.began)
        self._work: asyncio.Task[None] | None = None
        self._gone = False

    async def work(self) -> None:
        """Take the request and answer it. Raises `ApiError`."""
        raise NotImplementedError

    async def run(self) -> None:
        self.context.enter(self)
        try:
            # A task of its own, so that a client that goes away can end it.
            self._work = asyncio.create_task(self.work())
            await self._work
        except StreamClosedError:
            self.on_connection_close()
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            self.request_run.cancel()
            self.context.leave(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone = True
        self.request_run.cancel()
        if self._work is not None:
            self._work.cancel()
        self.log_request(CLIENT_CLOSED)

    def log_request(self, status: int) -> None:
        self.model_label = self.request_run.model
        self.log_fields |= self.request_run.log_fields
        super().log_request(status)

    async def stream(self, stream: EventStream, answer: "StreamedAnswer") -> None:
        """Submit the run and write its text as it comes. Raises `ApiError` while nothing was written."""
        run = self.request_run

        async def write(index: int, delta: Delta) -> None:
            await stream.send(answer.piece(index, delta))

        try:
            await run.submit()
            await run.stream(write)
            await stream.end(answer.end(run))
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


class StreamedAnswer:
    """How the events of a stream are written."""

    def piece(self, index: int, delta: Delta) -> bytes:
        """The events for the next piece of a sequence; may be nothing."""
        raise NotImplementedError

    def end(self, run: Run) -> bytes:
        """What closes the stream, when all its sequences have ended."""
        raise NotImplementedError


class Chunks(StreamedAnswer):
    """OpenAI's events."""

    def __init__(self, answer: Answer, job: Job) -> None:
        self._answer = answer
        self._include_usage = job.include_usage
        self._events = [answer.events(index) for index in range(len(job.prompts))]
        self._unopened = set(range(len(job.prompts)))

    def piece(self, index: int, delta: Delta) -> bytes:
        events = self._events[index]
        written = b""
        if index in self._unopened:
            self._unopened.remove(index)
            written = events.opening()
        if delta.text:
            written += events.text(delta.text)
        if delta.finish_reason is not None:
            written += events.closing(delta.finish_reason)
        return written

    def end(self, run: Run) -> bytes:
        return (self._answer.usage_event(run.usage) if self._include_usage else b"") + DONE


class CompletionsHandler(RunHandler):
    """Takes a request, has its sequences generated, and writes them whole or as they come."""

    allow = "POST"
    answer_type: ClassVar[type[Answer]]
    request_type: ClassVar[type[GenerationRequest]]

    async def work(self) -> None:
        require_json(self.request)
        run, body = self.request_run, self.body
        job = await run.take(lambda: requests.decode(body, self.request_type), len(body))
        answer = self.answer_type(run.model, job.include_usage)
        if job.stream:
            await self.stream(EventStream(self), Chunks(answer, job))
        else:
            await run.submit()
            await self.finish(answer.whole(await run.whole(), run.usage))


class ChatHandler(CompletionsHandler):
    """`/v1/chat/completions`."""

    endpoint = "chat_completions"
    answer_type = ChatAnswer
    request_type = requests.ChatRequest


class CompletionHandler(CompletionsHandler):
    """`/v1/completions`."""

    endpoint = "completions"
    answer_type = CompletionAnswer
    request_type = requests.CompletionRequest
