"""The engine's step: who is admitted, who decodes, and whose prompt is evaluated next.

Pure but for the backend and the clock that it is given; one thread drives it. A step

1. gives free slots, lowest first, to the oldest waiting sequences,
2. decodes one token of every running sequence in one batch, and
3. evaluates prompts, a piece of one sequence at a time, for as long as the step's time budget lasts.

Decode and prefill are separate batches on purpose: a backend with a memory stream per sequence would cut a mixed batch
into slices of equal length for all of them. The budget is time and not tokens, since a token behind thousands of others
costs many times what the first one does.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from inferno_runtime.backends.base import Backend, BackendError, Span
from inferno_runtime.engine.cost import PrefillCost
from inferno_runtime.engine.request import Finished, FinishReason, Request, Sampling, Started
from inferno_runtime.engine.sampling import SamplingError, sample
from inferno_runtime.engine.sequence import Sequence

logger = logging.getLogger(__name__)

_LEAST_PIECE = 16  # tokens; a smaller piece costs nearly as much as this one


@dataclass(slots=True)
class StepResult:
    """What a step brought forth. `ids` and `tokens` run in parallel, in the order of generation."""

    ids: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)


class Scheduler:
    """Runs sequences on a backend."""

    def __init__(
        self,
        backend: Backend,
        *,
        end_tokens: Iterable[int],
        step_budget: float,
        clock: Callable[[], float],
    ) -> None:
        """step_budget: seconds of prompt evaluation in a step; clock: seconds, monotonic."""
        self._backend = backend
        self._end_tokens = frozenset(end_tokens)
        self._budget = step_budget
        self._clock = clock
        self._cost = PrefillCost()
        self._waiting: deque[Sequence] = deque()
        self._prefilling: list[Sequence] = []
        self._running: list[Sequence] = []  # by slot, as backends like it
        self._free = list(range(backend.slots))
        self._result = StepResult()

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do or to tell."""
        return bool(self._waiting or self._prefilling or self._running or self._result.finished)

    @property
    def active(self) -> int:
        """Sequences that hold a slot."""
        return len(self._prefilling) + len(self._running)

    @property
    def queued(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._waiting)

    @property
    def cells_used(self) -> int:
        """Cells of the backend's memory that hold a token."""
        return sum(seq.position for seq in self._prefilling) + sum(seq.position for seq in self._running)

    def submit(self, request: Request) -> None:
        """Take a request; its prompt must leave room for at least one token."""
        self._waiting.append(Sequence(request, arrived=self._clock()))

    def cancel(self, request_id: int) -> None:
        """End a sequence before the next step; one that is unknown or has ended is ignored."""
        for seq in self._waiting:
            if seq.id == request_id:
                self._waiting.remove(seq)
                self._result.finished.append(Finished(request_id, FinishReason.CANCELLED))
                return
        for seq in (*self._running, *self._prefilling):
            if seq.id == request_id:
                self._finish(seq, FinishReason.CANCELLED)
                return

    def step(self) -> StepResult:
        """Advance every sequence as far as one step goes."""
        self._admit()
        self._decode()
        self._prefill()
        result, self._result = self._result, StepResult()
        return result

    def _admit(self) -> None:
        while self._waiting and self._free:
            seq = self._waiting.popleft()
            seq.slot = min(self._free)  # dense numbers: a backend passes over runs of consecutive slots at once
            self._free.remove(seq.slot)
            seq.admitted = self._clock()
            self._backend.clear(seq.slot)
            self._prefilling.append(seq)

    def _decode(self) -> None:
        if not self._running:
            return
        batch = list(self._running)
        spans = [Span(seq.slot, seq.position, seq.tokens[-1:], logits=True) for seq in batch]
        try:
            logits = self._backend.evaluate(spans)
        except BackendError as error:
            self._decode_apart(batch, error)
            return
        self._take(batch, sample(logits, [self._choice(seq) for seq in batch]))

    def _decode_apart(self, batch: list[Sequence], error: BackendError) -> None:
        """Find out whose token it was that failed the batch, so that its neighbours go on."""
        logger.warning("a batch of %d sequences failed (%s); evaluating them one by one", len(batch), error)
        for seq in batch:
            try:
                self._rewind(seq)
                logits = self._backend.evaluate([Span(seq.slot, seq.position, seq.tokens[-1:], logits=True)])
            except BackendError as own:
                self._finish(seq, FinishReason.ERROR, f"The model could not be evaluated: {own}")
            else:
                self._take([seq], sample(logits, [self._choice(seq)]))

    def _rewind(self, seq: Sequence) -> None:
        """Bring a slot back to what the sequence knows of it, after a batch that failed part of the way."""
        if self._backend.memory.cut:
            self._backend.cut(seq.slot, seq.position)
            return
        self._backend.clear(seq.slot)
        head, start = seq.tokens[: seq.position], 0
        while start < len(head):
            piece = head[start : start + self._backend.max_batch]
            self._backend.evaluate([Span(seq.slot, start, piece, logits=False)])
            start += len(piece)

    def _prefill(self) -> None:
        deadline = self._clock() + self._budget
        first = True  # one piece is evaluated in any case, so that prompts get on however small the budget is
        while self._prefilling:
            now = self._clock()
            seq = min(self._prefilling, key=lambda seq: self._urgency(seq, now))
            fitting = self._cost.tokens(deadline - now, seq.position)
            if not first and fitting < min(seq.left, _LEAST_PIECE):
                return
            self._prefill_piece(seq, max(fitting, _LEAST_PIECE))
            first = False

    def _urgency(self, seq: Sequence, now: float) -> float:
        """Seconds still to evaluate less seconds waited: the short go first, and the long when they have waited long."""
        return self._cost.seconds(seq.left, seq.position) - (now - seq.arrived)

    def _prefill_piece(self, seq: Sequence, most: int) -> None:
        count = min(seq.left, most, self._backend.max_batch)
        last = count == seq.left
        span = Span(seq.slot, seq.position, seq.tokens[seq.position : seq.position + count], logits=last)
        began = self._clock()
        try:
            logits = self._backend.evaluate([span])
        except BackendError as error:
            self._finish(seq, FinishReason.ERROR, f"The prompt could not be evaluated: {error}")
            return
        now = self._clock()
        if count >= _LEAST_PIECE:
            self._cost.observe(count, seq.position, now - began)
        if not last:
            seq.position += count
            return
        seq.position += count - 1  # _take accounts for the last one, as in a decode
        self._prefilling.remove(seq)
        self._running.append(seq)
        self._running.sort(key=lambda seq: seq.slot)
        self._result.started.append(
            Started(seq.id, cached_tokens=0, queued=seq.admitted - seq.arrived, prefill=now - seq.admitted)
        )
        self._take([seq], sample(logits, [self._choice(seq)]))

    def _choice(self, seq: Sequence) -> tuple[Sampling, dict[int, int], int]:
        return seq.request.sampling, seq.counts, len(seq.tokens)

    def _take(self, batch: list[Sequence], chosen: list[int | SamplingError]) -> None:
        """Give each sequence of the batch, whose last token was just evaluated, the next one."""
        ids, tokens = self._result.ids, self._result.tokens
        for seq, token in zip(batch, chosen, strict=True):
            seq.position += 1
            if isinstance(token, SamplingError):
                self._finish(seq, FinishReason.ERROR, f"No token could be chosen: {token}")
                continue
            if token in self._end_tokens and not seq.request.ignore_eos:
                self._finish(seq, FinishReason.STOP)
                continue
            seq.append(token)
            ids.append(seq.id)
            tokens.append(token)
            if seq.generated >= seq.request.max_tokens or len(seq.tokens) >= self._backend.context:
                self._finish(seq, FinishReason.LENGTH)

    def _finish(self, seq: Sequence, reason: FinishReason, error: str | None = None) -> None:
        (self._running if seq in self._running else self._prefilling).remove(seq)
        self._free.append(seq.slot)
        self._result.finished.append(Finished(seq.id, reason, error))
