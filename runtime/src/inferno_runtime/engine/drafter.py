"""Who proposes drafts: the text itself, or a model (`engine.draft_model`)."""

from collections.abc import Sequence as Items
from itertools import takewhile
from typing import Protocol

from inferno_runtime.engine.draft import Acceptance
from inferno_runtime.engine.sequence import Sequence


class Drafter(Protocol):
    """Proposes tokens for the model to verify."""

    def offers(self, batch: Items[Sequence], most: Items[int]) -> list[int]:
        """How many tokens it could propose for each sequence, at most `most`; costs next to nothing."""

    def acceptance(self, seq: Sequence) -> Acceptance:
        """How well its drafts of a sequence did."""

    def seconds(self, seq: Sequence) -> float:
        """What a token is expected to cost to propose."""

    def drafts(self, batch: Items[Sequence], counts: Items[int]) -> list[list[int]]:
        """At most so many tokens for each sequence, within what it offered for the same batch."""

    def observe(self, seq: Sequence, drafted: int, accepted: int) -> None:
        """Take the fate of a sequence's draft, whose accepted tokens the sequence has by now."""


class LookupDrafter:
    """Proposes what followed the last tokens earlier in the text. Drafts that are not asked for are rehearsed."""

    def __init__(self) -> None:
        self._proposals: list[list[int]] = []

    def offers(self, batch: Items[Sequence], most: Items[int]) -> list[int]:
        self._proposals = [self._propose(seq, count) for seq, count in zip(batch, most, strict=True)]
        return [len(proposal) for proposal in self._proposals]

    def acceptance(self, seq: Sequence) -> Acceptance:
        return seq.acceptance

    def seconds(self, seq: Sequence) -> float:
        return 0.0

    def drafts(self, batch: Items[Sequence], counts: Items[int]) -> list[list[int]]:
        for seq, proposal, count in zip(batch, self._proposals, counts, strict=True):
            if count:
                seq.rehearsal.drop()
            elif proposal and not seq.rehearsal.under_way:
                seq.rehearsal.begin(len(seq.tokens), proposal)
        return [proposal[:count] for proposal, count in zip(self._proposals, counts, strict=True)]

    def observe(self, seq: Sequence, drafted: int, accepted: int) -> None:
        seq.acceptance.observe(drafted, accepted)

    def _propose(self, seq: Sequence, most: int) -> list[int]:
        seq.rehearsal.judge(seq.tokens, seq.acceptance)
        if seq.acceptance.pause and seq.rehearsal.under_way:
            return []
        proposal = seq.lookup.propose(most) if most > 0 else []
        return list(takewhile(_is_token, proposal)) if seq.request.images else proposal


def _is_token(number: int) -> bool:
    """Whether it is one, and does not stand for a part of an image."""
    return number >= 0
