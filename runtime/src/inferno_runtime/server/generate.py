"""A request for text on its way through an engine: its sequences, and how fast their text is handed over."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from inferno_runtime.backends.base import Image, Layout
from inferno_runtime.chat.events import Said
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.request import FinishReason, Usage
from inferno_runtime.openai import convert, errors
from inferno_runtime.openai.convert import Job
from inferno_runtime.openai.images import sources_of
from inferno_runtime.openai.logprobs import Logprobs
from inferno_runtime.openai.requests import ChatRequest, GenerationRequest
from inferno_runtime.openai.responses import Result, usage_object
from inferno_runtime.server import spans
from inferno_runtime.server.context import Context
from inferno_runtime.server.hearing import Hearing, Piece
from inferno_runtime.server.images import Album
from inferno_runtime.server.tracing import Attribute
from inferno_runtime.server.work import Arrival, Work, aside
from inferno_runtime.worker.errors import GrammarRefused
from inferno_runtime.worker.generation import Generation

Write = Callable[[int, Piece], Awaitable[None]]
"""Takes the next piece of the sequence of that index; may wait, and fail, for as long as the client does."""
Pace = Callable[[], tuple[int, float]]
"""How many tokens to hand over together, and how many seconds to wait for them."""

_Result = TypeVar("_Result")


class Run(Work):
    """Its way: `take`, `submit`, and then either `whole` or `stream`."""

    def __init__(self, context: Context, arrival: Arrival) -> None:
        super().__init__(context, arrival)
        self.generations: list[Generation] = []
        self._hearings: list[Hearing] = []  # of the sequences
        self._charged = 0  # generated tokens
        self.logprobs: Logprobs  # once the request was taken
        self._request: GenerationRequest | None = None
        self._job: Job
        self._album = Album(self._config)

    async def take(self, decode: Callable[[], GenerationRequest], size: int) -> Job:
        """Find out what the engine is to do. decode: reads the request; size: of what it reads, in bytes.

        Raises `ApiError`.
        """
        self._request = request = await aside(decode, size)
        target = self._find(request.model, request.priority).target
        images = await self._look(request)
        self._job = job = await self._tokenized(lambda: convert.job_of(request, target, images), size)
        self.logprobs = Logprobs(job, target.tokenizer, chat=isinstance(request, ChatRequest))
        if job.constraint is not None:
            await self._check(job.constraint, job.constrained_by)
        return job

    async def submit(self) -> None:
        """Give the engine its sequences. Raises `ApiError`."""
        job, engine = self._job, self._served.engine
        async with self._limited(), self._prompt(self.prompt_tokens):
            for index, prompt in enumerate(job.prompts):
                self._hearings.append(
                    Hearing(job.reading.parser() if job.reading else None, scored=job.logprobs is not None)
                )
                self.generations.append(
                    await engine.submit(
                        prompt,
                        max_tokens=min(job.max_tokens, engine.context - len(prompt)),
                        sampling=job.sampling_of(index),
                        stop=job.stop,
                        ignore_eos=job.ignore_eos,
                        min_tokens=job.min_tokens,
                        priority=self.priority,
                        constraint=job.constraint,
                        pieces=job.reading.pieces if job.reading else None,
                        deadline=self._deadline,
                        token_timeout=self._config.token_timeout_seconds,
                        top_scores=job.top_scores,
                        score_prompt=job.score_prompt,
                        adapter=self._adapter,
                        images=job.images,
                    )
                )

    async def _look(self, request: GenerationRequest) -> list[tuple[Image, Layout]]:
        """Have the images of a request decoded. Raises `ApiError`."""
        if not isinstance(request, ChatRequest):
            return []
        async with self._limited():
            return await self._album.look(sources_of(request), self._served.engine)

    async def _check(self, constraint: Constraint, param: str) -> None:
        """Have a grammar compiled before anything is queued or charged. Raises `ApiError`, which quotes the compiler."""
        async with self._limited():
            try:
                await self._served.engine.check(constraint)
            except GrammarRefused as error:
                raise errors.invalid_grammar(param, str(error)) from error

    async def whole(self) -> list[Result]:
        """What became of the sequences, or of the best of each prompt's. Raises `ApiError`."""
        async with self._limited():
            results = await _all(self._read_whole(index) for index in range(len(self.generations)))
        await self._meter.settle()
        return [results[index] for index in self._best()]

    def _best(self) -> list[int]:
        """The sequences that are answers: of each prompt's as many as are asked for, the likeliest by the token first."""
        every, answers = range(len(self.generations)), self._job.answers
        if answers == self._job.choices:
            return list(every)
        prompts = [every[start : start + self._job.choices] for start in every[:: self._job.choices]]
        return [
            index
            for own in prompts
            for index in sorted(own, key=lambda index: -self.generations[index].mean_score)[:answers]
        ]

    async def stream(self, write: Write, pace: Pace | None = None) -> None:
        """Hand over what is said as it comes. Raises `ApiError`, and whatever `write` does."""
        async with self._limited():
            await _all(
                self._read_into(write, pace or self.pace, index, generation)
                for index, generation in enumerate(self.generations)
            )

    def pace(self) -> tuple[int, float]:
        """The configured pace."""
        return self._config.token_batch_size, self._config.token_batch_ms / 1000

    @property
    def fingerprint(self) -> str:
        """Of what makes the texts: the model, its settings and the engine's build."""
        return self._served.engine.fingerprint

    @property
    def usage(self) -> dict[str, Any]:
        """What the sequences have taken so far."""
        return usage_object(self._usages)

    @property
    def prompt_tokens(self) -> int:
        """Those of what was taken, whether or not it is submitted."""
        return sum(map(len, self._job.prompts[:: self._job.choices]))

    @property
    def room(self) -> int:
        """Tokens that what was taken leaves for an answer."""
        return self._served.engine.context - max(map(len, self._job.prompts))

    def count(self, text: str) -> int:
        """How many tokens a text is that the model has made."""
        return len(self._served.engine.tokenizer.encode(text, add_special=False, parse_special=False)) if text else 0

    @property
    def stop(self) -> str:
        """The stop string that ended the first sequence; empty if none did."""
        return self.generations[0].stop

    @property
    def log_fields(self) -> dict[str, object]:
        if not self.generations:
            return {}
        usages = self._usages
        return {
            "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
            "completion_tokens": sum(usage.completion_tokens for usage in usages),
        }

    @property
    def span_name(self) -> str:
        return f"{self._operation} {self.model}".rstrip()

    @property
    def span_attributes(self) -> dict[str, Attribute]:
        return spans.attributes(self._operation, self._request, self.model, self.generations)

    def span_events(self, offset: float) -> tuple[tuple[str, float], ...]:
        return spans.events(self.generations, offset)

    @property
    def _operation(self) -> str:
        """OpenTelemetry's name for it; of one that could not be read the endpoint tells."""
        chat = isinstance(self._request, ChatRequest) or self._arrival.endpoint == "chat_completions"
        return "chat" if chat else "text_completion"

    def _stop(self) -> None:
        for generation in self.generations:
            generation.cancel()
        self._album.close()
        self._charge(sum(generation.completion_tokens for generation in self.generations) - self._charged)

    @property
    def _taken(self) -> bool:
        return bool(self.generations)

    @property
    def _usages(self) -> Sequence[Usage]:
        """A prompt that is answered several times counts once."""
        usages = [generation.usage for generation in self.generations]
        return [
            replace(usage, prompt_tokens=0, cached_tokens=0) if index % self._job.choices else usage
            for index, usage in enumerate(usages)
        ]

    @property
    def _first(self) -> float | None:
        times = [generation.first_token_at for generation in self.generations]
        return min((at - self._arrival.at for at in times if at is not None), default=None)

    async def _read_whole(self, index: int) -> Result:
        generation = self.generations[index]
        delta = await generation.read_all(self._charge)
        reason = delta.finish_reason or FinishReason.STOP
        self._observe(generation, reason)
        piece = self._hearings[index].hear(delta)
        logprobs = self.logprobs.of_all(index, generation.prompt_scores, delta.scores)
        said = Said.of(piece.events)
        finish = piece.finish if said.calls and piece.finish else reason  # a call that was broken is text
        return Result(said, finish, logprobs, self.logprobs.of_spoken(piece.spoken))

    async def _read_into(self, write: Write, pace: Pace, index: int, generation: Generation) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            delta = await generation.read(*pace())
            self._charge(delta.tokens)
            began = clock()
            await write(index, self._hearings[index].hear(delta))
            self._write += clock() - began
            if delta.finish_reason is not None:
                self._observe(generation, delta.finish_reason)
                return

    def _charge(self, tokens: int) -> None:
        self._charged += tokens
        self._meter.output(tokens)

    def _observe(self, generation: Generation, reason: FinishReason) -> None:
        """Note a sequence that has ended."""
        first = None if generation.first_token_at is None else generation.first_token_at - self._arrival.at
        self._context.metrics.sequence(self.model, generation.usage, reason, first, self._elapsed())


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
