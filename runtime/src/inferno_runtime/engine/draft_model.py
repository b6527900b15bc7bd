"""Drafts by a second, smaller model of the same vocabulary.

It reads what a sequence says into the slot of the same number, and only when a draft is asked for: while drafts do not
pay it evaluates nothing. Nothing that it says can change a text, since every token is verified, and nothing that befalls
it a request: where it fails it is used no more.
"""

import logging
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import Backend, BackendError, OutOfMemory, Span
from inferno_runtime.engine.draft import Acceptance
from inferno_runtime.engine.prefix_tree import common
from inferno_runtime.engine.sequence import Sequence

logger = logging.getLogger(__name__)

_CONFIDENT = 0.4  # probability of its likeliest token, below which a draft ends
_FORGIVEN = 2  # drafts in a row of which nothing stands: a model errs now and then, and no pattern has ended
_PRIOR = (0.35, 0.9)  # least and most rate with which a sequence begins: what is never tried is never known
_FEW = 4  # tokens of a sequence that are read in passing; more are reading up, whose cost is another
_HORIZON = 128  # draft tokens that may pay for reading a sequence up
_WORTH_COPYING = 32  # tokens


@dataclass(slots=True, eq=False)
class _Slot:
    """A slot of the draft model: `held[:known]` are tokens of `owner`, and what is behind them was guessed."""

    number: int
    held: list[int] = field(default_factory=list)  # the tokens in the cells
    owner: Sequence | None = None
    known: int = 0

    def follow(self, seq: Sequence) -> int:
        """How many of the cells are a beginning of what `seq` says, its last token left out: that must be evaluated."""
        most = min(len(self.held), len(seq.tokens) - 1)
        start = min(self.known, most) if self.owner is seq else 0
        return common(self.held, seq.tokens, start, most)


class _Pace:
    """Seconds of a token, learnt from what passes took; newer ones count more, and so do larger ones."""

    _FADING = 0.8  # of what a pass counts, with each pass after it
    _OUTLIER = 2.0  # a pass counts as at most so many times what was expected: somebody else had the processor

    def __init__(self) -> None:
        self._tokens = 0.0  # faded sums
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Of a token; 0 before anything was measured."""
        return self._seconds / max(self._tokens, 1.0)

    def observe(self, tokens: int, seconds: float) -> None:
        """Take what a pass of so many tokens took."""
        if self._tokens:
            seconds = min(seconds, self._OUTLIER * self.seconds * tokens)
        self._tokens = self._tokens * self._FADING + tokens
        self._seconds = self._seconds * self._FADING + seconds


@dataclass(slots=True)
class _Draft:
    """A draft in the making."""

    seq: Sequence
    slot: _Slot
    count: int  # tokens that are asked for
    unread: list[int]  # tokens to evaluate for the next one
    tokens: list[int] = field(default_factory=list)
    unsure: bool = False  # it ended before `count`, for want of a likely token

    @property
    def open(self) -> bool:
        return not self.unsure and len(self.tokens) < self.count


class ModelDrafter:
    """`Drafter` over a backend whose memory can be cut and which has the slots of the model's."""

    def __init__(self, backend: Backend, model: Backend, clock: Callable[[], float]) -> None:
        """model: the backend that is drafted for; clock: seconds, monotonic."""
        self._backend = backend
        self._model = model
        self._clock = clock
        self._slots = [_Slot(number) for number in range(backend.slots)]
        self._unsure: set[Sequence] = set()  # whose latest draft ended early
        self._overall = Acceptance()
        self._drafting = _Pace()
        self._reading = _Pace()
        self._broken = False

    def offers(self, batch: Items[Sequence], most: Items[int]) -> list[int]:
        if self._broken:
            return [0] * len(batch)
        context = self._backend.context
        return [
            0 if seq.request.images else max(min(count, context - len(seq.tokens)), 0)  # it has no eyes
            for seq, count in zip(batch, most, strict=True)
        ]

    def acceptance(self, seq: Sequence) -> Acceptance:
        if seq.model_acceptance is None:
            rate = min(max(self._overall.rate, _PRIOR[0]), _PRIOR[1])
            seq.model_acceptance = Acceptance(2 * rate, 2 * (1 - rate), forgiven=_FORGIVEN)
        return seq.model_acceptance

    def seconds(self, seq: Sequence) -> float:
        slot = self._slots[seq.slot]
        unread = len(seq.tokens) - (slot.known if slot.owner is seq else 0)
        if unread <= _FEW:
            return self._drafting.seconds
        return self._drafting.seconds + self._reading.seconds * unread / max(min(seq.remaining, _HORIZON), 1)

    def drafts(self, batch: Items[Sequence], counts: Items[int]) -> list[list[int]]:
        none: list[list[int]] = [[] for _ in batch]
        if not any(counts):
            return none
        try:
            drafts = self._draft(batch, counts)
        except OutOfMemory:
            self._forget()  # the pool is full, mostly of what has ended
            return none
        except BackendError as error:
            self._give_up(error)
            return none
        for draft in drafts:
            if draft.unsure:
                self._unsure.add(draft.seq)
                if not draft.tokens:
                    self._judge(draft.seq, 0, 0)
        said = {draft.seq: draft.tokens for draft in drafts}
        return [said.get(seq, []) for seq in batch]

    def observe(self, seq: Sequence, drafted: int, accepted: int) -> None:
        self._judge(seq, drafted, accepted)
        if self._broken:
            return
        try:
            self._settle(self._slots[seq.slot], seq)
        except BackendError as error:
            self._give_up(error)

    def _give_up(self, error: BackendError) -> None:
        self._broken = True
        logger.warning("the draft model failed and is used no more: %s", error)

    def _judge(self, seq: Sequence, drafted: int, accepted: int) -> None:
        """Account for a draft. One that ended early failed at the token that it did not dare to say."""
        asked = drafted + (seq in self._unsure)
        self._unsure.discard(seq)
        self.acceptance(seq).observe(asked, accepted)
        self._overall.observe(asked, accepted)

    def _draft(self, batch: Items[Sequence], counts: Items[int]) -> list[_Draft]:
        if self._backend.threads != self._model.threads:
            self._backend.set_threads(self._model.threads)
        self._unsure.clear()
        drafts = []
        for seq, count in zip(batch, counts, strict=True):
            if count:
                slot = self._adopt(seq)
                drafts.append(_Draft(seq, slot, count, seq.tokens[slot.known :]))
        while going := [draft for draft in drafts if draft.open]:
            self._extend(going)
        for draft in drafts:
            draft.slot.known = len(draft.seq.tokens)
        return drafts

    def _adopt(self, seq: Sequence) -> _Slot:
        """The sequence's slot, with as much of its text as any slot of this model holds."""
        slot = self._slots[seq.slot]
        if slot.owner is not seq and self._backend.memory.copy:  # it is new, or has moved
            best = max(self._slots, key=lambda other: other.follow(seq))
            if best.follow(seq) >= slot.follow(seq) + _WORTH_COPYING:
                slot.held, slot.owner, slot.known = [], None, 0
                if self._backend.copy(best.number, slot.number):
                    slot.held = best.held.copy()
                else:
                    self._backend.clear(slot.number)
        self._settle(slot, seq)
        return slot

    def _settle(self, slot: _Slot, seq: Sequence) -> None:
        """Cut what the sequence does not say."""
        known = slot.follow(seq)
        if known < len(slot.held):
            self._backend.cut(slot.number, known)
            del slot.held[known:]
        slot.owner, slot.known = seq, known

    def _extend(self, drafts: Items[_Draft]) -> None:
        """Give each draft one more token, or end it."""
        unread = sum(len(draft.unread) for draft in drafts)
        began = self._clock()
        guesses = self._read(drafts)
        seconds = self._clock() - began
        if unread > _FEW * len(drafts):
            self._reading.observe(unread, seconds)
        else:
            self._drafting.observe(len(drafts), seconds)
        for draft, (token, probability) in zip(drafts, guesses, strict=True):
            if probability >= _CONFIDENT:
                draft.tokens.append(token)
                draft.unread = [token]
            else:
                draft.unsure = True

    def _read(self, drafts: Items[_Draft]) -> list[tuple[int, float]]:
        """Evaluate what is unread, in as few batches as it takes.

        Returns by draft the likeliest token behind it and its probability.
        """
        guesses: list[tuple[int, float]] = []
        spans: list[Span] = []
        room = self._backend.max_batch
        for draft in drafts:
            slot, unread = draft.slot, draft.unread
            while unread:
                piece, unread = unread[:room], unread[room:]
                spans.append(Span(slot.number, len(slot.held), piece, logits=0 if unread else 1))
                slot.held += piece
                room -= len(piece)
                if not room:
                    guesses += _likeliest(self._backend.evaluate(spans))
                    spans, room = [], self._backend.max_batch
        if spans:
            guesses += _likeliest(self._backend.evaluate(spans))
        return guesses

    def _forget(self) -> None:
        """Empty every slot."""
        for slot in self._slots:
            self._backend.clear(slot.number)
            slot.held, slot.owner, slot.known = [], None, 0


def _likeliest(logits: NDArray[np.float32]) -> list[tuple[int, float]]:
    """By row the likeliest token and its probability."""
    tokens = logits.argmax(axis=-1)
    return [
        (int(token), 1.0 / float(np.exp(row - row[token]).sum())) for row, token in zip(logits, tokens, strict=True)
    ]
