"""The stages that change logits before any candidate is taken away: bans, logit bias, repetition penalties, DRY.

Each of them concerns a few tokens of a row. The tokens of all rows are gathered first and changed in one operation.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.engine.request import Sampling
from inferno_runtime.engine.sampling.choice import Choice

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]

_LARGEST_EXPONENT = math.log(np.finfo(np.float32).max)


def adjust(logits: Floats, choices: Sequence[Choice], rows: Sequence[int]) -> None:
    """Change `logits`, shape (rows, vocabulary), in place as the rows' parameters ask for; order as in libllama.

    rows: whose parameters ask for anything beside a ban or a grammar.
    """
    for row, choice in enumerate(choices):
        if choice.allowed is not None:
            keep(logits[row], choice.allowed, choice.banned)
        elif choice.banned:
            logits[row, list(choice.banned)] = -np.inf
    if not rows:
        return
    bias, repeat, count, dry = _Edits(), _Edits(), _Edits(), _Edits()
    for row in rows:
        choice = choices[row]
        params, history, ahead = choice.sampling, choice.history, choice.ahead
        if params.logit_bias:
            known = {token: change for token, change in params.logit_bias if 0 <= token < logits.shape[1]}
            bias.add(row, *_arrays(known))
        if params.repeat_penalty != 1 and params.repeat_last_n:
            recent = np.unique(history.last(params.repeat_last_n, ahead))
            repeat.add(row, recent, np.full(len(recent), params.repeat_penalty, dtype=np.float32))
        if params.penalizes:
            tokens, often = history.generated(ahead)
            count.add(row, tokens, often * np.float32(params.frequency_penalty) + np.float32(params.presence_penalty))
        if params.dry_multiplier:
            dry.add(row, *_arrays(dry_penalties(history.last(params.dry_penalty_last_n, ahead), params)))
    if bias.rows:
        logits[bias.where()] += bias.amounts()
    if repeat.rows:
        where, factors = repeat.where(), repeat.amounts()
        values = logits[where]
        # Dividing alone would make tokens with a negative logit likelier.
        logits[where] = np.where(values <= 0, values * factors, values / factors)
    for edits in (count, dry):
        if edits.rows:
            logits[edits.where()] -= edits.amounts()


def keep(logits: Floats, allowed: NDArray[np.uint8], banned: Sequence[int]) -> None:
    """Put out all but the allowed tokens of a row, in place, and of these the banned ones if others are left.

    logits: shape (vocabulary,); allowed: a bit for each token, the least significant first; missing ones are 0.
    """
    bits = np.unpackbits(allowed, count=len(logits), bitorder="little")
    left = bits.copy()
    left[list(banned)] = 0
    np.putmask(logits, (left if left.any() else bits) == 0, -np.inf)


def dry_penalties(tokens: NDArray[np.int32], params: Sampling) -> dict[int, float]:
    """What DRY takes from the logits of tokens that would prolong a repetition, by token.

    If the last n tokens occur earlier as well, the token that follows there is penalized by multiplier * base ** (n -
    allowed_length), from n = allowed_length on; of several occurrences the longest counts. There are no sequence breakers.
    """
    base, allowed = params.dry_base, max(params.dry_allowed_length, 0)
    if base < 1 or len(tokens) <= allowed:
        return {}
    largest = int(_LARGEST_EXPONENT / math.log(base)) if base > 1.000001 else 0  # what a float holds
    last = len(tokens) - 1
    ends = np.arange(last)  # where an earlier occurrence ends, of as many of the last tokens as were compared so far
    lengths: dict[int, int] = {}
    for length in range(allowed + largest + 1):
        if length >= allowed:
            lengths.update(dict.fromkeys(tokens[ends + 1].tolist(), length))
        ends = ends[ends >= length]
        ends = ends[tokens[ends - length] == tokens[last - length]]
        if not len(ends):
            break
    return {token: params.dry_multiplier * base ** (length - allowed) for token, length in lengths.items()}


class _Edits:
    """Changes to single logits of many rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._tokens: list[Ids] = []
        self._amounts: list[Floats] = []

    def add(self, row: int, tokens: NDArray[np.integer], amounts: Floats) -> None:
        """Take changes to distinct tokens of a row that had none yet."""
        self.rows.append(row)
        self._tokens.append(tokens.astype(np.intp, copy=False))
        self._amounts.append(amounts)

    def where(self) -> tuple[Ids, Ids]:
        """The places that change: rows and tokens."""
        return np.repeat(self.rows, [len(tokens) for tokens in self._tokens]), np.concatenate(self._tokens)

    def amounts(self) -> Floats:
        """What changes there, in the order of `where`."""
        return np.concatenate(self._amounts)


def _arrays(changes: dict[int, float]) -> tuple[Ids, Floats]:
    size = len(changes)
    return np.fromiter(changes.keys(), np.intp, size), np.fromiter(changes.values(), np.float32, size)
