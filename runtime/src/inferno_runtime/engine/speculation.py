"""Drafts for a decode batch: which running sequences may add guessed tokens to it, and what became of them."""

from collections.abc import Sequence as Items

from inferno_runtime.backends.base import Backend
from inferno_runtime.engine.draft import DraftPolicy
from inferno_runtime.engine.sequence import Sequence

_MAX_DRAFT = 8  # tokens that one sequence adds to a batch
_MOST_SEQUENCES = 16  # a larger batch is bound by arithmetic, and guesses only add to it


class Speculation:
    """Proposes drafts while they pay."""

    def __init__(self, backend: Backend, *, enabled: bool) -> None:
        self._backend = backend
        self._policy = DraftPolicy()
        self._enabled = enabled and backend.memory.cut  # what was not accepted is cut off again
        self.drafted = 0  # tokens, in all
        self.accepted = 0

    def drafts(self, batch: Items[Sequence]) -> list[list[int]]:
        """For each sequence the tokens to evaluate behind its last one; mostly none."""
        none: list[list[int]] = [[] for _ in batch]
        if not self._enabled or len(batch) > _MOST_SEQUENCES:
            return none
        room = min(self._backend.max_logits, self._backend.max_batch) - len(batch)
        proposals = [self._propose(seq) for seq in batch]
        if not any(proposals):
            return none
        lengths = [0 if seq.acceptance.pause else len(draft) for seq, draft in zip(batch, proposals, strict=True)]
        allotted = self._policy.allot([seq.acceptance for seq in batch], lengths, max(room, 0))
        for seq, draft, count in zip(batch, proposals, allotted, strict=True):
            if count:
                seq.rehearsal.drop()
            elif draft and not seq.rehearsal.under_way:
                seq.rehearsal.begin(len(seq.tokens), draft)
        return [draft[:count] for draft, count in zip(proposals, allotted, strict=True)]

    def observe_cost(self, tokens: int, seconds: float) -> None:
        """Take what a decode batch took."""
        if self._enabled:
            self._policy.observe_cost(tokens, seconds)

    def observe(self, seq: Sequence, drafted: int, accepted: int) -> None:
        """Take the fate of a sequence's draft."""
        self.drafted += drafted
        self.accepted += accepted
        seq.acceptance.observe(drafted, accepted)

    def _propose(self, seq: Sequence) -> list[int]:
        seq.rehearsal.judge(seq.tokens, seq.acceptance)
        if seq.acceptance.pause and seq.rehearsal.under_way:
            return []
        # The token that is sampled behind the draft must still fit, too.
        most = min(_MAX_DRAFT, seq.remaining - 1, self._backend.context - len(seq.tokens) - 1)
        return seq.lookup.propose(most) if most > 0 else []
