"""The server's side of an engine: one object per model, whose process is started, watched and started again here."""

import asyncio
import itertools
import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from inferno_runtime.backends import load_tokenizer
from inferno_runtime.backends.base import ModelError, ModelInfo, Tokenizer
from inferno_runtime.config import ServedModel, Task
from inferno_runtime.engine.constraint import Constraint, token_bytes
from inferno_runtime.engine.request import EmbeddingRequest, Priority, Request, Sampling
from inferno_runtime.models.adapters import AdapterFile, locate_adapters
from inferno_runtime.models.identity import fingerprint, identity
from inferno_runtime.models.source import hold, locate
from inferno_runtime.worker.depth import Depth
from inferno_runtime.worker.draft import check_vocabulary, draft_path
from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.errors import EngineLost, EngineUnavailable, Overloaded
from inferno_runtime.worker.frames import (
    Cancel,
    Counters,
    Embed,
    Encoded,
    Failed,
    FromEngine,
    Load,
    Log,
    Pause,
    Ready,
    Resume,
    Step,
    Submit,
)
from inferno_runtime.worker.generation import Generation
from inferno_runtime.worker.grammars import GrammarChecker, Vocabulary
from inferno_runtime.worker.process import EngineProcess

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
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(slots=True)
class EngineStats:
    """What the engine reported last, and what its processes have counted since the server started."""

    active: int = 0
    queued: int = 0
    paused: int = 0  # of all, those whose clients take too little; known here, and not reported
    queued_by_priority: dict[Priority, int] = field(default_factory=dict)
    kv_usage: float = 0.0  # share of all cells
    steps: int = 0
    restarts: int = 0
    preemptions: int = 0
    drafted: int = 0  # tokens
    accepted: int = 0  # of these
    store_bytes: int = 0  # of prefixes that are kept in host memory
    depth: Depth = field(default_factory=Depth)  # of the queue


class EngineClient:
    """Sends sequences to an engine's process and keeps the process alive.

    A death of the process, or a standstill while it has work, costs the sequences in flight an error; the process is
    started again, and requests that come meanwhile wait for it.
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
        self._path = ""
        self._identity: list[str] = []  # of the model, of the draft model if there is one, and of the adapters
        self._adapters: tuple[AdapterFile, ...] = ()
        self._task: Task = "generate"
        self._ids = itertools.count(1)
        self._generations: dict[int, Generation | Encoding] = {}  # one or the other, by the model's task
        self._paused: set[int] = set()  # of them, those that the engine is to leave alone
        self._cancelled: set[int] = set()  # that the engine has not answered yet
        self._process: EngineProcess | None = None
        self._grammars = GrammarChecker(self._vocabulary)
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._failures = 0
        self._last_frame = 0.0
        self._before = Counters()  # what the processes before this one had counted
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load the model and wait until it has answered a token. Raises `ModelError`."""
        process = await EngineProcess.spawn()  # its interpreter starts while we look at the files
        try:
            await self._look_at_files()
        except BaseException:
            process.kill_now()
            await process.kill()
            raise
        await self._launch(process)
        self._tasks = [
            asyncio.create_task(self._supervise(), name=f"engine {self.name}"),
            asyncio.create_task(self._watch(), name=f"watch {self.name}"),
        ]

    async def _look_at_files(self) -> None:
        """What the server itself has to know of the model. Raises `ModelError`."""
        source = await asyncio.to_thread(locate, self.served.model)
        hold(source)
        self._path = str(source)
        draft = await asyncio.to_thread(draft_path, self.served.engine)
        self._adapters = await asyncio.to_thread(locate_adapters, self.served.model)
        adapters = [Path(adapter.path) for adapter in self._adapters]
        for adapter in adapters:
            hold(adapter)
        paths = [path for path in (source, draft, *adapters) if path is not None]
        self._identity = [await asyncio.to_thread(identity, path) for path in paths]
        self.tokenizer = await asyncio.to_thread(load_tokenizer, self._path)
        self._task = self.served.model.task or self.tokenizer.task
        if self._adapters and self._task != "generate":
            raise ModelError(f"{self._path}: a model that {self._task}s takes no LoRA adapters (model.adapters)")
        if draft is not None and self._task != "generate":
            raise ModelError(f"{self._path}: a model that {self._task}s has no use for a draft model (engine.draft)")
        if draft is not None:
            await asyncio.to_thread(check_vocabulary, draft, self.tokenizer.pieces)
            self.draft = draft.name

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
    ) -> Generation:
        """Have a sequence generated; waits while the engine is being started again.

        prompt: 1 to `context` - 1 tokens; priority: beside others that wait; constraint: one that `check` has passed;
        pieces: the text of each token, where it is not the tokenizer's; deadline: on the loop's clock;
        token_timeout: seconds between two tokens; top_scores, score_prompt, adapter: as in `Request`.
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
        self._begin(generation)
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
        )
        self._send(Submit(request))
        return generation

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
        self._begin(encoding)
        tokens = [array("i", item).tobytes() for item in inputs]
        self._send(Embed(EmbeddingRequest(encoding.id, tokens, dimensions, priority, list(seconds))))
        return encoding

    async def drain(self, seconds: float) -> None:
        """Take no more requests and wait until the running ones have ended, or `seconds` at most."""
        self._draining = True
        self._set_state(EngineState.DRAINING, "the server is shutting down")
        try:
            await asyncio.wait_for(self._idle.wait(), timeout=seconds)
        except TimeoutError:
            logger.warning("%s: %d sequences did not end in time", self.name, len(self._generations))

    async def stop(self) -> None:
        """End the process; what still runs gets an error."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_all(EngineUnavailable("The server is shutting down."))
        if self._process is not None:
            await self._process.kill()
            self._process = None
        await self._grammars.stop()
        self._set_state(EngineState.STOPPED, "the server is shutting down")

    async def _admitted(self, deadline: float | None) -> None:
        """Returns once the engine takes a request. Raises `Overloaded` or `EngineUnavailable`."""
        self._admit()
        if not self._ready.is_set():
            await self._wait_until_ready(deadline)
            self._admit()

    def _admit(self) -> None:
        if self._draining:
            raise EngineUnavailable("The server is shutting down.")
        if not self.alive:
            raise EngineUnavailable(f"The model's engine could not be started again: {self.state_reason}")
        if len(self._generations) >= self.slots + self.served.engine.max_queue:
            raise Overloaded("The queue is full; try again later.")

    async def _wait_until_ready(self, deadline: float | None) -> None:
        left = _RESTART_PATIENCE
        if deadline is not None:
            left = min(left, deadline - asyncio.get_running_loop().time())
        try:
            await asyncio.wait_for(self._ready.wait(), left)
        except TimeoutError:
            raise EngineUnavailable(f"The model is not ready: {self.state_reason}.") from None

    def _send(self, frame: Submit | Embed | Cancel | Pause | Resume) -> None:
        if self._process is not None:
            self._process.send(frame)

    def _begin(self, generation: Generation | Encoding) -> None:
        self._begin_watch()
        self._generations[generation.id] = generation
        self._idle.clear()

    def _cancel(self, generation_id: int) -> None:
        """Called by a generation that ended of its own accord; the engine is told once, and answers in its next step."""
        self._forget(generation_id)
        self._cancelled.add(generation_id)
        self._send(Cancel(generation_id))

    def _pause(self, generation_id: int, paused: bool) -> None:
        """Called by a generation whose client can take no more, or can again."""
        if paused:
            self._paused.add(generation_id)
            self.stats.paused = len(self._paused)
            self._send(Pause(generation_id))
        else:
            self._begin_watch()
            self._paused.discard(generation_id)
            self.stats.paused = len(self._paused)
            self._send(Resume(generation_id))

    def _begin_watch(self) -> None:
        """Have the watch count from here, if the engine has had nothing to do."""
        if not self._working:
            self._last_frame = asyncio.get_running_loop().time()

    @property
    def _working(self) -> bool:
        """Whether the engine should make progress: it owes tokens, vectors, or the answer to a cancellation."""
        return len(self._generations) > len(self._paused) or bool(self._cancelled)

    def _forget(self, generation_id: int) -> Generation | Encoding | None:
        generation = self._generations.pop(generation_id, None)
        self._paused.discard(generation_id)
        self.stats.paused = len(self._paused)
        if not self._generations:
            self._idle.set()
        return generation

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
        tokens = vocabulary.tokens if self._task == "generate" else []
        engine = self.served.engine.wire()
        process.send(
            Load(self._path, engine, vocabulary.end_tokens, self._task, tokens, self._adapters, tuning=self.tuning)
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
        raise ModelError(f"{self._path}: the engine died while it loaded the model ({await process.kill()})")

    def _on_ready(self, frame: Ready) -> None:
        self.info, self.context, self.slots = frame.info, frame.context, frame.slots
        self.tuning = frame.tuning
        self.fingerprint = fingerprint(
            {
                "model": self._identity,
                "scales": [adapter.scale for adapter in self._adapters],
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
        if not self._draining:
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
        logger.error("%s: the engine's process ended (%s) with %d sequences", self.name, end, len(self._generations))
        self._fail_all(
            EngineLost("The model's engine ended unexpectedly and is being started again; retry the request.")
        )
        self._forget_process()
        reason = f"the engine ended unexpectedly ({end})"
        while True:
            if not self._draining:
                self._set_state(EngineState.RESTARTING, reason)
            self._failures += 1
            self.alive = self._failures <= _HOPELESS_AFTER
            self.stats.restarts += 1
            await asyncio.sleep(_RESTART_DELAYS[min(self._failures, len(_RESTART_DELAYS)) - 1])
            try:
                await self._launch(await EngineProcess.spawn())
                return
            except ModelError as error:
                reason = str(error)
                logger.error("%s: %s", self.name, reason)

    async def _watch(self) -> None:
        """End a process that has work and makes no progress; `_supervise` sees to the rest."""
        limit = self.served.engine.stall_seconds
        while True:
            await asyncio.sleep(limit / 10)
            silent = asyncio.get_running_loop().time() - self._last_frame
            if self._ready.is_set() and self._working and silent > limit and self._process is not None:
                logger.error("%s: the engine made no progress for %.0f seconds; ending it", self.name, silent)
                self._ready.clear()  # who comes from now on waits for the next process
                self._process.kill_now()

    def _on_frame(self, frame: FromEngine) -> None:
        if isinstance(frame, Step):
            self._on_step(frame)
        elif isinstance(frame, Encoded):
            self._on_encoded(frame)
        elif isinstance(frame, Log):
            logger.log(frame.level, "%s: %s", self.name, frame.message)

    def _on_step(self, step: Step) -> None:
        stats = self.stats
        self._on_load(step.active, step.queued)
        if step.counters is not None:
            self._on_counters(step.counters)
        stats.queued_by_priority = dict(zip(Priority, step.queued_by_priority, strict=False))
        stats.kv_usage = step.cells_used / (self.slots * self.context)
        generations = cast(dict[int, Generation], self._generations)
        for started in step.started:
            if generation := generations.get(started.id):
                generation.on_started(started)
        for scores in step.scores:  # before the tokens that they belong to
            if generation := generations.get(scores.id):
                generation.on_scores(scores)
        if step.ids:
            self._failures = 0
            self.alive = True
        for generation_id, token in zip(step.ids, step.tokens, strict=True):
            if generation := generations.get(generation_id):
                generation.on_tokens((token,))
        for finished in step.finished:
            self._cancelled.discard(finished.id)
            if isinstance(ended := self._forget(finished.id), Generation):
                ended.on_finished(finished)

    def _on_encoded(self, frame: Encoded) -> None:
        self._on_load(frame.active, frame.queued)
        self._failures = 0
        self.alive = True
        for answer in frame.answers:
            self._cancelled.discard(answer.id)
            if isinstance(encoding := self._forget(answer.id), Encoding):
                encoding.on_answer(answer)

    def _on_load(self, active: int, queued: int) -> None:
        """What the engine has to do after a step."""
        stats = self.stats
        stats.steps += 1
        if queued != stats.queued:
            stats.depth.set(queued, self._last_frame)
        stats.active, stats.queued = active, queued

    def _on_counters(self, counters: Counters) -> None:
        stats, before = self.stats, self._before
        stats.preemptions = before.preemptions + counters.preemptions
        stats.drafted = before.drafted + counters.drafted
        stats.accepted = before.accepted + counters.accepted
        stats.store_bytes = counters.store_bytes

    def _forget_process(self) -> None:
        """Nothing is evaluated or held any more; what was counted stays."""
        stats = self.stats
        stats.active = stats.queued = stats.store_bytes = 0
        stats.queued_by_priority = {}
        stats.kv_usage = 0.0
        self._before = Counters(stats.preemptions, stats.drafted, stats.accepted)

    def _fail_all(self, error: EngineLost | EngineUnavailable) -> None:
        generations = list(self._generations.values())
        self._generations.clear()
        self._paused.clear()
        self._cancelled.clear()
        self.stats.paused = 0
        self._idle.set()
        for generation in generations:
            generation.fail(error)
