"""Drafts for a decode batch: which running sequences may add guessed tokens to it, and what became of them."""

from collections.abc import Callable
from collections.abc import Sequence as Items

from inferno_runtime.backends.base import Backend
from inferno_runtime.engine.draft import BatchCost, DraftPolicy
from inferno_runtime.engine.draft_model import ModelDrafter
from inferno_runtime.engine.drafter import Drafter, LookupDrafter
from inferno_runtime.engine.sequence import Sequence

_MAX_DRAFT = 15  # tokens that one sequence adds to a batch: kernels that compute sixteen columns take little longer than for eight
_MOST_SEQUENCES = 16  # a larger batch is bound by arithmetic, and guesses only add to it


class Speculation:
    """Proposes drafts while they pay: for each sequence those of the first drafter that has any worth evaluating."""

    def __init__(
        self, backend: Backend, *, enabled: bool, clock: Callable[[], float], draft: Backend | None = None
    ) -> None:
        """clock: seconds, monotonic; draft: a model of the same vocabulary that proposes where the text does not."""
        self._backend = backend
        self._cost = BatchCost()
        self._drafters: list[tuple[Drafter, DraftPolicy]] = []
        if enabled and backend.memory.cut:  # what was not accepted is cut off again
            self._add(LookupDrafter())
            if draft is not None:
                self._add(ModelDrafter(draft, backend, clock))
        self._authors: dict[Sequence, Drafter] = {}  # of the drafts in the latest batch
        self.drafted = 0  # tokens, in all
        self.accepted = 0

    def drafts(self, batch: Items[Sequence]) -> list[list[int]]:
        """For each sequence the tokens to evaluate behind its last one; mostly none."""
        drafts: list[list[int]] = [[] for _ in batch]
        self._authors.clear()
        if len(batch) > _MOST_SEQUENCES:
            return drafts
        room = max(min(self._backend.max_logits, self._backend.max_batch) - len(batch), 0)
        for drafter, policy in self._drafters:
            offers = drafter.offers(
                batch, [0 if draft else self._most(seq) for seq, draft in zip(batch, drafts, strict=True)]
            )
            if not any(offers):
                continue
            beside = sum(map(len, drafts))
            counts = policy.allot(
                [drafter.acceptance(seq) for seq in batch],
                offers,
                max(room - beside, 0),
                beside=beside,
                seconds=[drafter.seconds(seq) for seq in batch],
            )
            for index, draft in enumerate(drafter.drafts(batch, counts)):
                if draft:
                    drafts[index] = draft
                    self._authors[batch[index]] = drafter
        return drafts

    def observe_cost(self, tokens: int, seconds: float) -> None:
        """Take what a decode batch took."""
        self._cost.observe(tokens, seconds)

    def observe(self, seq: Sequence, drafted: int, accepted: int) -> None:
        """Take the fate of a sequence's draft, whose accepted tokens the sequence has by now."""
        self.drafted += drafted
        self.accepted += accepted
        self._authors[seq].observe(seq, drafted, accepted)

    def _add(self, drafter: Drafter) -> None:
        self._drafters.append((drafter, DraftPolicy(self._cost)))

    def _most(self, seq: Sequence) -> int:
        """Tokens that a draft may have: the one that is sampled behind it must still fit, too."""
        return max(min(_MAX_DRAFT, seq.remaining - 1, self._backend.context - len(seq.tokens) - 1), 0)
