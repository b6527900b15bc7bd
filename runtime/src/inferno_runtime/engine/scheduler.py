"""The engine's step: who is admitted, who decodes, and whose prompt is evaluated next.

Pure but for the backend and the clock that it is given; one thread drives it. A step gives free slots to the
sequences that are next in the queue, and evaluates one batch: the next token of every running sequence, or a piece of one
prompt. After each decode prompts have their turn for as long as a time budget lasts.

A sequence whose client cannot take more is paused: it is in no batch and keeps its slot, unless others wait for one. Then
it gives the slot up and keeps its text, like one that is preempted.

Decode and prefill are separate batches on purpose: a backend with a memory stream per sequence would cut a mixed batch
into slices of equal length for all of them. A batch has one adapter, so those of several take turns. The budget is time
and not tokens, since a token behind thousands of others costs many times what the first one does.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import Backend, BackendError, Embeddings, OutOfMemory, Span
from inferno_runtime.engine.draft import accept
from inferno_runtime.engine.evaluation import Evaluator
from inferno_runtime.engine.images import Chunk, Gallery, piece
from inferno_runtime.engine.masking import Masker, Masks, Row
from inferno_runtime.engine.prefill import PrefillBudget
from inferno_runtime.engine.prefix_tree import BLOCK
from inferno_runtime.engine.queue import rank
from inferno_runtime.engine.request import Finished, FinishReason, Request, Started
from inferno_runtime.engine.roster import Roster
from inferno_runtime.engine.sampling import Choice, SamplingError, sample
from inferno_runtime.engine.sequence import Sequence
from inferno_runtime.engine.slots import SlotTable
from inferno_runtime.engine.speculation import Speculation
from inferno_runtime.engine.step import StepResult, allowed, next_span, positions, prompt_scores, scored
from inferno_runtime.engine.store import PrefixStore
from inferno_runtime.engine.threads import ThreadGovernor
from inferno_runtime.engine.turns import Turns

logger = logging.getLogger(__name__)

_SMOOTHING = 0.2  # weight of the newest measurement
_PATIENCE = 0.01  # seconds that a step without anything to evaluate waits for a grammar to be compiled

_End = tuple[FinishReason, str | None]  # why a sequence ended, and a sentence where it was an error


class Scheduler:
    """Runs sequences on a backend."""

    def __init__(
        self,
        backend: Backend,
        *,
        end_tokens: Iterable[int],
        step_budget: float,
        clock: Callable[[], float],
        store_bytes: int = 0,
        speculate: bool = False,
        draft: Backend | None = None,
        governor: ThreadGovernor | None = None,
        masker: Masker | None = None,
        adapters: int = 0,
    ) -> None:
        """step_budget: seconds of prompt evaluation in a step; clock: seconds, monotonic; store_bytes: host memory for
        the prefixes that slots have no room for; speculate: draft from the text itself,
        and where that says nothing with the model `draft`, which has as many slots;
        governor: has the number of threads follow the steps' times, None if it is fixed;
        masker: for requests with a constraint, which need one; adapters: that the backend was loaded with."""
        self._backend = backend
        self._end_list = tuple(end_tokens)
        self._end_tokens = frozenset(self._end_list)
        self._clock = clock
        self._evaluator = Evaluator(backend, clock, governor)
        self._cost = self._evaluator.prefill_cost
        self._budget = PrefillBudget(self._cost, step_budget)
        self._slots = SlotTable(backend, self._cost, PrefixStore(store_bytes))
        self.speculation = Speculation(backend, enabled=speculate, clock=clock, draft=draft)
        self._gallery = Gallery(backend.vision)
        self._masker = masker
        self._masks: Masks | None = None  # of the latest batch
        self._turns = Turns() if adapters else None
        self._roster = Roster()
        self._answer_tokens = 64.0  # of a sequence, smoothed: what one is expected to need when it does not say
        self.preemptions = 0
        self._result = StepResult()

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do or to tell."""
        return self._roster.busy or bool(self._result.finished)

    @property
    def active(self) -> int:
        """Sequences that hold a slot."""
        return len(self._roster.holders)

    @property
    def queued(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._roster.waiting)

    @property
    def queued_by_priority(self) -> tuple[int, ...]:
        """The same, for each `Priority` in order."""
        return self._roster.waiting.lengths

    @property
    def cells_used(self) -> int:
        """Cells that the sequences with a slot hold."""
        return sum(seq.position for seq in self._roster.holders)

    @property
    def store_bytes(self) -> int:
        """Bytes of host memory that hold the prefixes of earlier sequences."""
        return self._slots.store_bytes

    def submit(self, request: Request) -> None:
        """Take a request; its prompt must leave room for at least one token."""
        seq = Sequence(request, arrived=self._clock())
        if request.constraint is not None:
            assert self._masker is not None
            seq.matching = self._masker.begin(request.constraint)
        self._roster.waiting.push(seq)

    def cancel(self, request_id: int) -> None:
        """End a sequence before the next step; one that is unknown or has ended is ignored."""
        if (seq := self._roster.find(request_id)) is not None:
            self._finish(seq, FinishReason.CANCELLED)

    def pause(self, request_id: int) -> None:
        """Evaluate nothing more for a sequence until `resume`; one that is unknown or has ended is ignored.

        A prompt that is just being evaluated is evaluated to its first token.
        """
        seq = self._roster.find(request_id)
        if seq is not None and not seq.paused:
            self._roster.pause(seq)

    def resume(self, request_id: int) -> None:
        """Go on with a sequence that was paused; any other is left as it is."""
        seq = self._roster.find(request_id)
        if seq is not None and seq.paused:
            self._roster.resume(seq)

    def step(self) -> StepResult:
        """Evaluate one batch: the next tokens of the running sequences, or a piece of a prompt."""
        self._admit()
        if not self._prefill():
            self._decode()
            if batches := 1 if self._turns is None else self._turns.round():
                self._budget.begin(self._clock(), running=True, turn=batches * self._evaluator.decode_seconds)
        result, self._result = self._result, StepResult()
        return result

    # Admission

    def _admit(self) -> None:
        waiting, now = self._roster.waiting, self._clock()
        passed: list[Sequence] = []  # they wait for another's prefix or their grammar, and hold up nobody
        while waiting and (self._slots.free or self._park()):
            seq = waiting.pop(now)
            if seq.matching is not None and not seq.matching.ready:
                passed.append(seq)
                continue
            if not self._make_way(seq):
                passed.append(seq)
                break
            if not self._slots.acquire(seq):
                passed.append(seq)
                continue
            if not seq.admitted:
                seq.admitted, seq.cached = self._clock(), seq.position
            self._roster.prefilling.append(seq)
        for seq in reversed(passed):
            waiting.put_back(seq, now)
        if passed and not self.active and (matching := passed[0].matching) is not None:
            matching.wait(_PATIENCE)

    def _make_way(self, seq: Sequence) -> bool:
        """Whether the pool has cells for this sequence, if need be without those that are paused."""
        while not self._has_room(seq):
            if not self._park():
                return False
        return True

    def _has_room(self, seq: Sequence) -> bool:
        """Whether the pool has cells for this sequence beside what is promised to those that run.

        A sequence is promised its tokens and what answers have needed lately, not what it may need at most: if all
        is used up none the less, the youngest of the lowest priority gives its cells back.
        """
        if not self._backend.memory.shared or not self.active:
            return True
        roster = self._roster
        promised = sum(self._expected_cells(other) for other in (*roster.prefilling, *roster.running))
        promised += sum(other.position for other in roster.paused)
        return promised + self._expected_cells(seq) <= self._backend.cells

    def _expected_cells(self, seq: Sequence) -> int:
        return len(seq.tokens) + min(seq.remaining, int(self._answer_tokens))

    # Decode

    def _decode(self) -> None:
        roster = self._roster
        if not roster.waiting:  # otherwise holes are filled as they come
            self._slots.compact(roster.running, self._evaluator.decode_seconds)
            roster.sort()
        while roster.running:
            batch = self._next_batch()
            self._settle_masks()
            drafts = allowed(batch, self.speculation.drafts(batch))
            self._begin_masks(batch, drafts)
            spans = [next_span(seq, draft) for seq, draft in zip(batch, drafts, strict=True)]
            try:
                logits = self._evaluator.decode(spans)
            except OutOfMemory:
                if not self._make_room():
                    return
            except BackendError as error:
                self._decode_apart(batch, error)
                return
            else:
                if self._turns is not None:
                    self._turns.observe(self._evaluator.last_seconds)
                if self._evaluator.typical:
                    self.speculation.observe_cost(sum(len(span.tokens) for span in spans), self._evaluator.last_seconds)
                self._take(batch, drafts, logits)
                return

    def _next_batch(self) -> list[Sequence]:
        """The running sequences, or those of the adapter whose turn it is."""
        running = self._roster.running
        if self._turns is None:
            return list(running)
        adapter = self._turns.next({seq.adapter for seq in running})
        return [seq for seq in running if seq.adapter == adapter]

    def _make_room(self) -> bool:
        """Free cells for the batch: what is kept for later or by the paused, else what the youngest of the lowest priority holds.

        Returns False if all is lost.
        """
        if self._slots.forget_retained() or (self._park() and self._slots.forget_retained()):
            return True
        evaluated = (*self._roster.prefilling, *self._roster.running)
        seqs = sorted(evaluated, key=lambda seq: (-seq.priority.weight, seq.arrived))
        if len(seqs) > 1:
            self._preempt(seqs[-1])
            return True
        self._finish(seqs[0], FinishReason.NO_MEMORY, "There is no memory for a request of this length.", sound=False)
        return False

    def _preempt(self, seq: Sequence) -> None:
        """Take the slot of a sequence; it goes on later from the text that it has."""
        self.preemptions += 1
        self._give_up_slot(seq)
        self._slots.forget_retained()

    def _park(self) -> bool:
        """Take the slot of a paused sequence, for one that can use it. False if there is none."""
        if not self._roster.paused:
            return False
        self._give_up_slot(self._roster.paused[0])
        return True

    def _give_up_slot(self, seq: Sequence) -> None:
        self._slots.set_aside(seq)
        self._leave(seq, sound=True)
        seq.slot, seq.position = -1, 0
        self._roster.wait_again(seq, self._clock())

    def _decode_apart(self, batch: list[Sequence], error: BackendError) -> None:
        """Find out whose token it was that failed the batch, so that its neighbours go on."""
        logger.warning("a batch of %d sequences failed (%s); evaluating them one by one", len(batch), error)
        began = self._clock()
        for seq in batch:
            try:
                self._rewind(seq)
                self._begin_masks([seq], [[]])
                logits = self._backend.evaluate([next_span(seq, [])])
            except BackendError as own:
                self._finish(seq, FinishReason.ERROR, f"The model could not be evaluated: {own}", sound=False)
            else:
                self._take([seq], [[]], logits)
        if self._turns is not None:
            self._turns.observe(self._clock() - began)

    def _rewind(self, seq: Sequence) -> None:
        """Bring a slot back to what the sequence knows of it, after a batch that failed part of the way."""
        if self._backend.memory.cut:
            self._backend.cut(seq.slot, seq.position)
            return
        self._backend.clear(seq.slot)
        start = 0
        while start < seq.position:
            most = min(seq.position - start, self._backend.max_batch)
            chunk, count = piece(start, most, seq.request.images)
            embeddings = None if chunk is None else self._gallery.find(chunk) or self._gallery.encode(chunk)
            offset = 0 if chunk is None else start - chunk.start
            tokens = seq.tokens[start : start + count]
            span = Span(seq.slot, start, tokens, 0, seq.adapter, embeddings=embeddings, offset=offset)
            self._backend.evaluate([span])
            start += count

    # Prefill

    def _prefill(self) -> bool:
        """Evaluate a piece of the most urgent prompt; False if there is none, or if the running sequences are due."""
        if not self._roster.prefilling:
            return False
        now = self._clock()
        if not self._roster.running:
            self._budget.begin(now, running=False, turn=0.0)
        seq = min(self._roster.prefilling, key=lambda seq: self._urgency(seq, now))
        count = self._budget.piece(seq.left, seq.position, now)
        if count:
            self._prefill_piece(seq, count)
        return count > 0

    def _urgency(self, seq: Sequence, now: float) -> tuple[int, float]:
        """The least goes first: by priority and age, and among equals by the seconds still to evaluate less those waited.

        So the short go before the long, until those have waited long.
        """
        return -rank(seq, now), self._cost.seconds(seq.left, seq.position) - (now - seq.arrived)

    def _prefill_piece(self, seq: Sequence, most: int) -> None:
        scoring = seq.scored < len(seq.request.prompt)
        count = min(seq.left, most, self._backend.max_logits if scoring else self._backend.max_batch)
        chunk, count = piece(seq.position, count, seq.request.images)
        embeddings = None
        if chunk is not None:
            embeddings = self._seen(seq, chunk)
            if embeddings is None:
                return
            if embeddings.whole:
                count = chunk.cells
        last, end = count == seq.left, seq.position + count
        unscored = max(end - max(seq.scored, seq.position), 0) if scoring else 0
        wanted = max(unscored, int(last))
        span = seq.span(seq.tokens[seq.position : end], wanted)
        if chunk is not None:
            span = replace(span, embeddings=embeddings, offset=seq.position - chunk.start)
        if last:
            self._begin_masks([seq], [[]])
        try:
            logits = self._evaluator.prefill(span)
        except OutOfMemory:
            self._make_room()
            return
        except BackendError as error:
            self._finish(seq, FinishReason.ERROR, f"The prompt could not be evaluated: {error}", sound=False)
            return
        if unscored:
            self._result.scores += prompt_scores(seq, end, logits)
            seq.scored = end
        if not last:
            seq.position += count
            self._slots.index(seq)
            return
        seq.embeddings = None
        seq.position += count - 1  # _take accounts for the last one, as in a decode
        if not self._roster.running:
            self._budget.end()  # it decodes at once: those that came together shall not end, and come again, together
        self._roster.prefilling.remove(seq)
        self._roster.run(seq)
        self._slots.prefilled(seq)
        if not seq.started:
            seq.started = True
            self._result.started.append(
                Started(seq.id, seq.cached, queued=seq.admitted - seq.arrived, prefill=self._clock() - seq.admitted)
            )
        self._take([seq], [[]], logits[-1:])

    def _seen(self, seq: Sequence, chunk: Chunk) -> Embeddings | None:
        """A chunk's embeddings, if they are at hand; otherwise it is encoded, which is all that is done then.

        That takes its time, and those that run are due.
        """
        if seq.embeddings is not None and seq.embeddings[0] == chunk:
            return seq.embeddings[1]
        found = self._gallery.find(chunk)
        if found is not None:
            seq.embeddings = chunk, found
            return found
        try:
            seq.embeddings = chunk, self._gallery.encode(chunk)
        except BackendError as error:
            self._finish(seq, FinishReason.ERROR, f"The image could not be evaluated: {error}")
        return None

    # What came of it

    def _begin_masks(self, batch: list[Sequence], drafts: list[list[int]]) -> None:
        """Begin to find out what the grammars allow in a batch that is just going to be evaluated."""
        self._settle_masks()
        if self._masker is not None and any(seq.matching is not None for seq in batch):
            self._masks = self._masker.fill([(seq.matching, draft) for seq, draft in zip(batch, drafts, strict=True)])

    def _settle_masks(self) -> None:
        """Have nothing read the grammars any more, as after a batch that came to nothing."""
        if self._masks is not None:
            self._masks.settle()
            self._masks = None

    def _take(self, batch: list[Sequence], drafts: list[list[int]], logits: NDArray[np.float32]) -> None:
        """Give each sequence of the batch, whose last token and draft were just evaluated, the next tokens."""
        masks: Iterable[Row] = repeat(None) if self._masks is None else self._masks.rows()
        choices = [
            Choice(seq.request.sampling, seq.history, draft[:ahead], self._banned(seq, ahead), mask)
            for (seq, draft, ahead), mask in zip(positions(batch, drafts), masks, strict=False)
        ]
        scores = scored(logits, batch, drafts)
        chosen = sample(logits, choices)
        start = 0
        for seq, draft in zip(batch, drafts, strict=True):
            sampled = chosen[start : start + len(draft) + 1]
            accepted, before = accept(draft, sampled), len(seq.tokens)
            end = self._say_all(seq, sampled[: accepted + 1])
            if scores is not None and seq.request.top_scores is not None and len(seq.tokens) > before:
                self._result.scores.append(scores.scores(seq.id, start, seq.tokens[before:]))
            start += len(sampled)
            if draft:
                self.speculation.observe(seq, len(draft), accepted)
                self._backend.cut(seq.slot, seq.position)
            if end is not None:
                self._finish(seq, *end)
            elif seq.position >= seq.indexed + BLOCK:
                self._slots.index(seq)

    def _banned(self, seq: Sequence, ahead: int) -> tuple[int, ...]:
        """The tokens that would end a text which is too short for that, also with so many more tokens.

        Where a grammar allows a text to end, one that is to ignore the end does not as long as it can go on.
        """
        request = seq.request
        if request.ignore_eos:
            return self._end_list if seq.matching is not None else ()
        return self._end_list if seq.generated + ahead < request.min_tokens else ()

    def _say_all(self, seq: Sequence, sampled: list[int | SamplingError]) -> _End | None:
        """Take tokens in order, each of which stands behind one more evaluated cell, up to the sequence's end."""
        matching = seq.matching
        for token in sampled:
            seq.position += 1
            if matching is not None and matching.error is not None:
                return FinishReason.ERROR, f"The text could not follow its grammar: {matching.error}."
            if isinstance(token, SamplingError):
                return FinishReason.ERROR, f"No token could be chosen: {token}"
            if token in self._end_tokens and not (seq.request.ignore_eos and matching is None):
                return FinishReason.STOP, None
            seq.tokens.append(token)
            self._result.ids.append(seq.id)
            self._result.tokens.append(token)
            if matching is not None and matching.advance(token) and matching.error is None:
                return FinishReason.STOP, None
            if seq.remaining <= 0 or len(seq.tokens) >= self._backend.context:
                return FinishReason.LENGTH, None
        return None

    def _finish(self, seq: Sequence, reason: FinishReason, error: str | None = None, *, sound: bool = True) -> None:
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            self._answer_tokens += _SMOOTHING * (seq.generated - self._answer_tokens)
        self._leave(seq, sound=sound)
        self._result.finished.append(Finished(seq.id, reason, error))

    def _leave(self, seq: Sequence, *, sound: bool) -> None:
        if self._roster.remove(seq):
            self._slots.release(seq, sound=sound)
        else:
            self._slots.forget_aside(seq)
