"""What goes into a step and what comes out of it: the rows that a batch is asked for, and what they say.

Pure functions of the sequences; who keeps these and evaluates is the scheduler.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import Span
from inferno_runtime.engine import scoring
from inferno_runtime.engine.request import Finished, Scores, Started
from inferno_runtime.engine.scoring import Scored
from inferno_runtime.engine.sequence import Sequence


@dataclass(slots=True)
class StepResult:
    """What a step brought forth. `ids` and `tokens` run in parallel, in the order of generation."""

    ids: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)  # of those tokens whose sequences want them, and of prompts


def scored(logits: NDArray[np.float32], batch: list[Sequence], drafts: list[list[int]]) -> Scored | None:
    """The rows of those sequences of a batch that want scores; None where none does."""
    if all(seq.request.top_scores is None for seq in batch):
        return None
    tops = [seq.request.top_scores for seq, draft in zip(batch, drafts, strict=True) for _ in range(len(draft) + 1)]
    return Scored(logits, [scoring.Row(index, top) for index, top in enumerate(tops) if top is not None])


def allowed(batch: list[Sequence], drafts: list[list[int]]) -> list[list[int]]:
    """The drafts, as far as their sequences' grammars allow them."""
    return [
        seq.matching.allowed(draft) if draft and seq.matching is not None else draft
        for seq, draft in zip(batch, drafts, strict=True)
    ]


def positions(batch: list[Sequence], drafts: list[list[int]]) -> Iterator[tuple[Sequence, list[int], int]]:
    """The rows of logits that a batch gives: the sequence, its draft, and how many tokens of it lie before."""
    for seq, draft in zip(batch, drafts, strict=True):
        for ahead in range(len(draft) + 1):
            yield seq, draft, ahead


def next_span(seq: Sequence, draft: list[int]) -> Span:
    """The evaluation of a sequence's last token and its draft, with a row of logits for each."""
    return seq.span([seq.tokens[-1], *draft], 1 + len(draft))


def prompt_scores(seq: Sequence, end: int, logits: NDArray[np.float32]) -> list[Scores]:
    """The scores of the prompt's tokens behind the cells up to `end`, of the last of which these are the logits."""
    tokens = seq.request.prompt[end - len(logits) + 1 : end + 1]
    if not tokens:
        return []
    rows = [scoring.Row(index, seq.request.top_scores or 0) for index in range(len(tokens))]
    return [Scored(logits, rows).scores(seq.id, 0, tokens, prompt=True)]
