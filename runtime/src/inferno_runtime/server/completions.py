"""`/v1/chat/completions` and `/v1/completions`: one flow, in which only the wire types differ."""

from typing import ClassVar

from inferno_runtime.chat.events import TextDelta
from inferno_runtime.openai import requests
from inferno_runtime.openai.convert import Job
from inferno_runtime.openai.requests import GenerationRequest
from inferno_runtime.openai.responses import DONE, Answer, ChatAnswer, CompletionAnswer
from inferno_runtime.server.base import require_json
from inferno_runtime.server.generate import Run
from inferno_runtime.server.handlers import RunHandler, StreamedAnswer
from inferno_runtime.server.hearing import Piece
from inferno_runtime.server.stream import EventStream


class Chunks(StreamedAnswer):
    """OpenAI's events."""

    def __init__(self, answer: Answer, job: Job, run: Run) -> None:
        self._answer = answer
        self._run = run
        self._include_usage = job.include_usage
        self._events = [answer.events(index) for index in range(len(job.prompts))]
        self._unopened = set(range(len(job.prompts)))

    def piece(self, index: int, piece: Piece) -> bytes:
        events = self._events[index]
        written = b""
        if index in self._unopened and (piece.events or piece.finish or piece.delta.scores):
            self._unopened.remove(index)
            first = piece.events[0] if piece.events else None
            known = self._run.generations[index].prompt_scores
            written = events.opening(first, self._run.logprobs.of_echo(index, known))
        scores = piece.delta.scores
        logprobs = self._run.logprobs.of_text(index, scores) if scores else None
        for event in piece.events:
            if chunk := events.event(event, logprobs):
                written, logprobs = written + chunk, None
        if logprobs is not None:  # of tokens that show nothing, or not yet
            written += events.event(TextDelta(""), logprobs)
        if piece.finish is not None:
            written += events.closing(piece.finish)
        return written

    def end(self, run: Run) -> bytes:
        return (self._answer.usage_event(run.usage) if self._include_usage else b"") + DONE


class CompletionsHandler(RunHandler):
    """Takes a request, has its sequences generated, and writes them whole or as they come."""

    answer_type: ClassVar[type[Answer]]
    request_type: ClassVar[type[GenerationRequest]]

    async def answer(self, run: Run) -> None:
        require_json(self.request)
        body = self.body
        job = await run.take(lambda: requests.decode(body, self.request_type), len(body))
        answer = self.answer_type(run.model, job.include_usage, job.echoes, run.fingerprint)
        if job.stream:
            await self.stream(run, EventStream(self), Chunks(answer, job, run))
        else:
            await run.submit()
            results = await run.whole()
            with run.writing():
                await self.finish(answer.whole(results, run.usage))
            run.done()


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
