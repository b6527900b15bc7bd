"""An engine that runs the real scheduler on the fake backend, in the test's own loop."""

import asyncio
from collections.abc import Sequence

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.backends.fake import FakeBackend
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.images import Chunk
from inferno_runtime.engine.request import Priority, Request, Sampling
from inferno_runtime.engine.scheduler import Scheduler
from inferno_runtime.worker.generation import Generation
from tests.unit.server.fakes import IM_END, FakeEngine

_POOL = MemoryTraits(copy=True, cut=True, save=False, shift=False, shared=True)


class SchedulerEngine(FakeEngine):
    """Its slots share a pool of `cells`, which need not be enough for what is asked."""

    def __init__(self, *, slots: int = 2, cells: int = 0) -> None:
        super().__init__()
        size = len(self.tokenizer.pieces)
        backend = FakeBackend(
            slots=slots, context=self.context, cells=cells, vocab_size=size, max_batch=self.context, memory=_POOL
        )
        clock = asyncio.get_running_loop().time
        self.scheduler = Scheduler(backend, end_tokens=[IM_END], step_budget=0.1, clock=clock)
        self.finished: list[int] = []  # in the order in which they ended
        self._generations: dict[int, Generation] = {}
        self._stepping: asyncio.Task[None] | None = None

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
        number = len(self.submitted) + 1
        self.submitted.append({"prompt": prompt, "priority": priority})
        generation = Generation(number, len(prompt), self.tokenizer.pieces, stop, self.scheduler.cancel, deadline)
        self._generations[number] = generation
        self.scheduler.submit(Request(number, prompt, max_tokens, sampling, ignore_eos, priority))
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step())
            self._tasks.add(self._stepping)
        return generation

    async def _step(self) -> None:
        await self.resume.wait()
        while self.scheduler.busy:
            result = self.scheduler.step()
            for started in result.started:
                self._generations[started.id].on_started(started)
            for number, token in zip(result.ids, result.tokens, strict=True):
                self._generations[number].on_tokens((token,))
            for finished in result.finished:
                self.finished.append(finished.id)
                self._generations[finished.id].on_finished(finished)
            await asyncio.sleep(0)
