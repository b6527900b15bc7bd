"""The server's side of an engine: one object per model, whose process is started, watched and started again here."""

import asyncio
import itertools
import logging
from array import array
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, cast

from inferno_runtime.backends.base import Layout, ModelError, ModelInfo, Tokenizer
from inferno_runtime.config import ServedModel
from inferno_runtime.engine.constraint import Constraint, token_bytes
from inferno_runtime.engine.images import Chunk
from inferno_runtime.engine.request import EmbeddingRequest, Priority, Request, Sampling
from inferno_runtime.models.identity import fingerprint
from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.errors import EngineLost, EngineUnavailable, ImageRefused, Overloaded, ServerEnding
from inferno_runtime.worker.files import ModelFiles, look_at
from inferno_runtime.worker.flight import Flight, Work
from inferno_runtime.worker.frames import (
    Cancel,
    Embed,
    Encoded,
    Failed,
    FromEngine,
    Load,
    Log,
    Measure,
    Measured,
    Pause,
    Ready,
    Resume,
    Step,
    Submit,
)
from inferno_runtime.worker.generation import Generation
from inferno_runtime.worker.grammars import GrammarChecker, Vocabulary
from inferno_runtime.worker.images import ImageReader, Shown
from inferno_runtime.worker.process import EngineProcess
from inferno_runtime.worker.stats import EngineStats

logger = logging.getLogger(__name__)

_RESTART_DELAYS = (0.0, 1.0, 5.0, 15.0, 60.0)  # seconds; the last one for all further attempts
_RESTART_PATIENCE = 30.0  # seconds that a request waits for an engine that is being started again
_NO_MATTER = frozenset({"threads", "rates", "measurements", "seconds"})  # of a tuning, to what is said
_HOPELESS_AFTER = 3  # restarts in a row without a token


class EngineState(StrEnum):
    """Where an engine stands in its life."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class EngineClient:
    """Sends sequences to an engine's process and keeps the process alive.

    After a death of the process, or a standstill while it has work, it is started again, and requests that come meanwhile
    wait for it. Those that had no token yet are given to the new process, once; the others end with an error.
    """

    tokenizer: Tokenizer
    info: ModelInfo

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self.name = served.name
        self.context = 0  # tokens per sequence
        self.tuning: dict[str, Any] = {}  # what it is evaluated with, and what the hardware was found to prefer
        self.draft: str | None = None  # name of the draft model's file
        self.fingerprint = ""  # of what decides what it says: the model, its settings and the builds that evaluate it
        self.slots = served.engine.slots
        self.stats = EngineStats()
        self.state = EngineState.STARTING
        self.state_reason = "the model is being loaded"
        self.alive = True  # False when starting again no longer helps
        self._files: ModelFiles  # once they were looked at
        self._ids = itertools.count(1)
        self._flight = Flight()
        self._process: EngineProcess | None = None
        self._grammars = GrammarChecker(self._vocabulary)
        self._images = ImageReader()
        self._measuring: dict[int, asyncio.Future[Layout]] = {}
        self._ready = asyncio.Event()  # and once it never will be again
        self._stopped = False
        self._failures = 0
        self._last_frame = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load the model and wait until it has answered a token. Raises `ModelError`."""
        process = await EngineProcess.spawn()  # its interpreter starts while we look at the files
        try:
            self._files = files = await asyncio.to_thread(look_at, self.served)
        except BaseException:
            process.kill_now()
            await process.kill()
            raise
        self.tokenizer, self.draft = files.tokenizer, files.draft.name if files.draft else None
        await self._launch(process)
        self._tasks = [
            asyncio.create_task(self._supervise(), name=f"engine {self.name}"),
            asyncio.create_task(self._watch(), name=f"watch {self.name}"),
        ]

    async def submit(
        self,
        prompt: list[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        min_tokens: int = 0,
        priority: Priority = Priority.NORMAL,
        constraint: Constraint | None = None,
        pieces: Sequence[bytes] | None = None,
        deadline: float | None = None,
        token_timeout: float | None = None,
        top_scores: int | None = None,
        score_prompt: bool = False,
        adapter: int = 0,
        images: Sequence[Chunk] = (),
    ) -> Generation:
        """Have a sequence generated; waits while the engine is being started again.

        prompt: 1 to `context` - 1 tokens; priority: beside others that wait; constraint: one that `check` has passed;
        pieces: the text of each token, where it is not the tokenizer's; deadline: on the loop's clock;
        token_timeout: seconds between two tokens; top_scores, score_prompt, adapter, images: as in `Request`.
        Raises `Overloaded` or `EngineUnavailable`.
        """
        await self._admitted(deadline)
        generation = Generation(
            next(self._ids),
            len(prompt),
            self.tokenizer.pieces if pieces is None else pieces,
            stop,
            self._cancel,
            deadline,
            pause=self._pause,
            token_timeout=token_timeout,
            scored=top_scores is not None,
        )
        request = Request(
            generation.id,
            prompt,
            max_tokens,
            sampling,
            ignore_eos,
            priority,
            min_tokens,
            constraint,
            top_scores,
            score_prompt,
            adapter,
            tuple(images),
        )
        self._begin(generation, Submit(request))
        return generation

    async def look(self, data: bytes, most_pixels: int) -> Shown:
        """Decode an image and find out what stands for it in a prompt; the caller gives it back by `overlook`.

        most_pixels: that it may have. Raises `ImageRefused`, `Overloaded`, `EngineUnavailable` or `EngineLost`.
        """
        await self._admitted(None)
        pixels = await self._images.read(data, most_pixels)
        try:
            return Shown(pixels, await self._measure(pixels.image.width, pixels.image.height))
        except BaseException:
            self._images.release(pixels)
            raise

    def overlook(self, shown: Shown) -> None:
        """Forget an image, whose sequences have ended."""
        self._images.release(shown.pixels)

    async def _measure(self, width: int, height: int) -> Layout:
        await self._admitted(None)  # the engine may have ended meanwhile
        number = next(self._ids)
        answer: asyncio.Future[Layout] = asyncio.get_running_loop().create_future()
        self._measuring[number] = answer
        self._send(Measure(number, width, height))
        try:
            return await answer
        finally:
            self._measuring.pop(number, None)

    def _on_measured(self, frame: Measured) -> None:
        answer = self._measuring.get(frame.id)
        if answer is None or answer.done():
            return
        if frame.layout is None:
            answer.set_exception(ImageRefused(frame.error))
        else:
            answer.set_result(frame.layout)

    async def check(self, constraint: Constraint) -> None:
        """See whether a grammar compiles within its bounds. Raises `GrammarRefused`."""
        await self._grammars.check(constraint)

    async def embed(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        dimensions: int,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        seconds: Sequence[int] = (),
    ) -> Encoding:
        """Have texts turned into vectors, or pairs into scores; waits while the engine is being started again.

        inputs: of 1 to `context` tokens each; dimensions: how many of a vector's numbers are wanted; priority: beside
        others that wait; deadline: on the loop's clock; seconds: of pairs, where the second text of each begins.
        Raises `Overloaded` or `EngineUnavailable`.
        """
        await self._admitted(deadline)
        encoding = Encoding(next(self._ids), self._cancel, deadline)
        tokens = [array("i", item).tobytes() for item in inputs]
        self._begin(encoding, Embed(EmbeddingRequest(encoding.id, tokens, dimensions, priority, list(seconds))))
        return encoding

    async def stop(self) -> None:
        """End the process; what still runs, or waits for it, gets an error."""
        self._stopped = True
        self._ready.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(self._flight.clear(), ServerEnding())
        if self._process is not None:
            await self._process.kill()
            self._process = None
        await self._grammars.stop()
        await self._images.stop()
        self._set_state(EngineState.STOPPED, "the server is shutting down")

    async def _admitted(self, deadline: float | None) -> None:
        """Returns once the engine takes a request. Raises `Overloaded` or `EngineUnavailable`."""
        self._admit()
        if not self._ready.is_set():
            await self._wait_until_ready(deadline)
            self._admit()

    def _admit(self) -> None:
        if self._stopped:
            raise ServerEnding
        if not self.alive:
            raise EngineUnavailable(f"The model's engine could not be started again: {self.state_reason}")
        if len(self._flight) >= self.slots + self.served.engine.max_queue:
            raise Overloaded("The queue is full; try again later.")

    async def _wait_until_ready(self, deadline: float | None) -> None:
        left = _RESTART_PATIENCE
        if deadline is not None:
            left = min(left, deadline - asyncio.get_running_loop().time())
        try:
            await asyncio.wait_for(self._ready.wait(), left)
        except TimeoutError:
            raise EngineUnavailable(f"The model is not ready: {self.state_reason}.") from None

    def _send(self, frame: Submit | Embed | Cancel | Pause | Resume | Measure) -> None:
        if self._process is not None:
            self._process.send(frame)

    def _begin(self, work: Work, frame: Submit | Embed) -> None:
        self._begin_watch()
        self._flight.begin(work, frame)
        self._send(frame)

    def _cancel(self, number: int) -> None:
        """Called by what has ended of its own accord; the engine is told once, and answers in its next step."""
        self._flight.cancel(number)
        self.stats.paused = self._flight.paused
        self._send(Cancel(number))

    def _pause(self, number: int, paused: bool) -> None:
        """Called by a generation whose client can take no more, or can again."""
        if not paused:
            self._begin_watch()
        self._flight.pause(number, paused)
        self.stats.paused = self._flight.paused
        self._send(Pause(number) if paused else Resume(number))

    def _begin_watch(self) -> None:
        """Have the watch count from here, if the engine has had nothing to do."""
        if not self._flight.working:
            self._last_frame = asyncio.get_running_loop().time()

    def _answered(self, number: int) -> Work | None:
        work = self._flight.answered(number)
        self.stats.paused = self._flight.paused
        return work

    def _vocabulary(self) -> Vocabulary:
        """What the engine and the grammars' compiler know of the model's tokens."""
        tokenizer = self.tokenizer
        return Vocabulary(token_bytes(tokenizer.pieces, tokenizer.controls), sorted(tokenizer.end_tokens))

    def _set_state(self, state: EngineState, reason: str = "") -> None:
        self.state, self.state_reason = state, reason

    async def _launch(self, process: EngineProcess) -> None:
        """Have a process load the model, and wait until it is ready. Raises `ModelError`."""
        self._process = process
        vocabulary = self._vocabulary()
        files, engine = self._files, self.served.engine.wire()
        tokens = vocabulary.tokens if files.task == "generate" else []
        projector = str(files.projector) if files.projector else None
        process.send(
            Load(
                files.path,
                engine,
                vocabulary.end_tokens,
                files.task,
                tokens,
                files.adapters,
                projector,
                self.tuning,
            )
        )
        self._frames = process.frames()
        async for frames in self._frames:
            for frame in frames:
                if isinstance(frame, Ready):
                    self._on_ready(frame)
                    return
                if isinstance(frame, Failed):
                    await process.kill()
                    raise ModelError(frame.message)
                self._on_frame(frame)
        raise ModelError(f"{files.path}: the engine died while it loaded the model ({await process.kill()})")

    def _on_ready(self, frame: Ready) -> None:
        self.info, self.context, self.slots = frame.info, frame.context, frame.slots
        self.tuning = frame.tuning
        self.fingerprint = fingerprint(
            {
                "model": self._files.identity,
                "scales": [adapter.scale for adapter in self._files.adapters],
                "template": self.served.model.chat_template,
                "engine": self.served.engine.wire(),
                "settings": {name: value for name, value in frame.tuning.items() if name not in _NO_MATTER},
                "context": frame.context,
            }
        )
        self.stats.depth.set(0, asyncio.get_running_loop().time())
        if frame.info.task == "embed":
            shape = f"{frame.info.dimensions} dimensions, inputs of up to {frame.context} tokens"
        elif frame.info.task == "rerank":
            shape = f"pairs of up to {frame.context} tokens"
        else:
            shape = f"{frame.slots} slots of {frame.context} tokens"
        logger.info("%s: %s, %s", self.name, frame.description, shape)
        if self.draft:
            logger.info("%s: drafts come from %s", self.name, self.draft)
        self._set_state(EngineState.READY)
        self._ready.set()

    async def _supervise(self) -> None:
        """Read frames until the process ends, then start another, for ever."""
        while True:
            async for frames in self._frames:
                self._last_frame = asyncio.get_running_loop().time()
                for frame in frames:
                    self._on_frame(frame)
            await self._restart()

    async def _restart(self) -> None:
        self._ready.clear()
        end = await self._process.kill() if self._process is not None else "no process"
        logger.error("%s: the engine's process ended (%s) with %d requests", self.name, end, len(self._flight))
        again = "The model's engine ended unexpectedly and is being started again; retry the request."
        self._fail(self._flight.strand(), EngineLost(again))
        self.stats.forget_process()
        reason = f"the engine ended unexpectedly ({end})"
        while True:
            self._set_state(EngineState.RESTARTING, reason)
            self._failures += 1
            self.alive = self._failures <= _HOPELESS_AFTER
            self.stats.restarts += 1
            await asyncio.sleep(_RESTART_DELAYS[min(self._failures, len(_RESTART_DELAYS)) - 1])
            try:
                await self._launch(await EngineProcess.spawn())
            except ModelError as error:
                reason = str(error)
                logger.error("%s: %s", self.name, reason)
                self._fail(self._flight.clear(), EngineUnavailable(f"The engine could not be started again: {reason}"))
            else:
                self._resubmit()
                return

    def _resubmit(self) -> None:
        """Give a new process what the one before it has not begun."""
        if not len(self._flight):
            return
        logger.warning("%s: requests without a token that begin anew: %d", self.name, len(self._flight))
        self.stats.resubmitted += len(self._flight)
        self._last_frame = asyncio.get_running_loop().time()
        for frame in self._flight.frames():
            self._send(frame)

    async def _watch(self) -> None:
        """End a process that has work and makes no progress; `_supervise` sees to the rest."""
        limit = self.served.engine.stall_seconds
        while True:
            await asyncio.sleep(limit / 10)
            silent = asyncio.get_running_loop().time() - self._last_frame
            if self._ready.is_set() and self._flight.working and silent > limit and self._process is not None:
                logger.error("%s: the engine made no progress for %.0f seconds; ending it", self.name, silent)
                self._ready.clear()  # who comes from now on waits for the next process
                self._process.kill_now()

    def _on_frame(self, frame: FromEngine) -> None:
        if isinstance(frame, Step):
            self._on_step(frame)
        elif isinstance(frame, Encoded):
            self._on_encoded(frame)
        elif isinstance(frame, Measured):
            self._on_measured(frame)
        elif isinstance(frame, Log):
            logger.log(frame.level, "%s: %s", self.name, frame.message)

    def _on_step(self, step: Step) -> None:
        stats = self.stats
        stats.on_load(step.active, step.queued, self._last_frame)
        if step.counters is not None:
            stats.on_counters(step.counters)
        stats.queued_by_priority = dict(zip(Priority, step.queued_by_priority, strict=False))
        stats.kv_usage = step.cells_used / (self.slots * self.context)
        find = cast(Callable[[int], Generation | None], self._flight.find)
        for started in step.started:
            if generation := find(started.id):
                generation.on_started(started)
        for scores in step.scores:  # before the tokens that they belong to
            if generation := find(scores.id):
                generation.on_scores(scores)
        if step.ids:
            self._failures = 0
            self.alive = True
        for generation_id, token in zip(step.ids, step.tokens, strict=True):
            if generation := find(generation_id):
                generation.on_tokens((token,))
        for finished in step.finished:
            if isinstance(ended := self._answered(finished.id), Generation):
                ended.on_finished(finished)

    def _on_encoded(self, frame: Encoded) -> None:
        self.stats.on_load(frame.active, frame.queued, self._last_frame)
        self._failures = 0
        self.alive = True
        for answer in frame.answers:
            if isinstance(encoding := self._answered(answer.id), Encoding):
                encoding.on_answer(answer)

    def _fail(self, works: Sequence[Work], error: EngineLost | EngineUnavailable) -> None:
        self.stats.paused = self._flight.paused
        for work in works:
            work.fail(error)
        for answer in self._measuring.values():
            if not answer.done():
                answer.set_exception(error)
