"""The batch that libllama evaluates: arrays of our own, and what is added so that its kernels run at full speed."""

from collections.abc import Sequence
from itertools import islice, pairwise
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import Embeddings, Span

TILE = 4  # columns that the CPU kernels compute together; a remainder is another pass over the weights
_WORTH_A_TILE = 5  # tokens; fewer are cheaper as they are
_PASS = 8  # tokens beside others cost less than a pass over the weights


class Batch:
    """A `llama_batch` over arrays of our own, filled without a Python object per token."""

    def __init__(self, api: ModuleType, capacity: int) -> None:
        """capacity: in tokens."""
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._counts = np.ones(capacity, dtype=np.int32)  # every token belongs to one sequence
        self._slots = np.zeros(capacity, dtype=np.int32)
        self._slot_pointers = self._slots.ctypes.data + 4 * np.arange(capacity, dtype=np.uintp)
        self._wanted = np.zeros(capacity, dtype=np.int8)
        self.struct = api.llama_batch()
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._slot_pointers),
            ("logits", self._wanted),
        ):
            kind = dict(self.struct._fields_)[name]
            setattr(self.struct, name, array.ctypes.data_as(kind))

    def fill(self, spans: Sequence[Span], firsts: Sequence[int] | None = None) -> int:
        """Lay the spans out; returns how many rows of logits they want.

        firsts: the position of each span's first token, where it is not its cell.
        """
        at = wanted = 0
        for number, span in enumerate(spans):
            end = at + len(span.tokens)
            first = span.start if firsts is None else firsts[number]
            self._tokens[at:end] = span.tokens
            self._positions[at:end] = range(first, first + len(span.tokens))
            self._slots[at:end] = span.slot
            self._wanted[at:end] = 0
            if span.logits:
                self._wanted[end - span.logits : end] = 1
                wanted += span.logits
            at = end
        self.struct.n_tokens = at
        return wanted


class EmbeddingBatch:
    """A `llama_batch` of one span's embeddings, which stay where they are."""

    def __init__(self, api: ModuleType, capacity: int) -> None:
        """capacity: in tokens."""
        self._positions = np.zeros(4 * capacity, dtype=np.int32)
        self._counts = np.ones(capacity, dtype=np.int32)
        self._slot = np.zeros(1, dtype=np.int32)
        self._slot_pointers = np.full(capacity, self._slot.ctypes.data, dtype=np.uintp)
        self._wanted = np.zeros(capacity, dtype=np.int8)
        self.struct = api.llama_batch()
        for name, array in (
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._slot_pointers),
            ("logits", self._wanted),
        ):
            self._point(name, array)

    def fill(self, span: Span, embeddings: Embeddings, first: int) -> int:
        """Lay a span out; returns how many rows of logits it wants. first: the position of the chunk that it is a part of."""
        count = len(span.tokens)
        part = slice(span.offset, span.offset + count)
        self._slot[0] = span.slot
        if embeddings.grid is None:
            self._positions[:count] = range(first + span.offset, first + span.offset + count)
        else:
            self._positions[: 4 * count] = (embeddings.grid[:, part] + first).ravel()
        self._wanted[:count] = 0
        self._wanted[count - span.logits : count] = 1
        self._point("embd", embeddings.rows[part])
        self.struct.n_tokens = count
        return span.logits

    def _point(self, name: str, array: NDArray[Any]) -> None:
        setattr(self.struct, name, array.ctypes.data_as(dict(self.struct._fields_)[name]))


def padding(
    slots: Sequence[int], usable: Sequence[bool], shallow: Sequence[bool], *, steady: bool = False
) -> list[int]:
    """Slots to evaluate a token of no use in, beside one token for each of `slots`, since that is faster.

    libllama passes over the weights once for each run of consecutive slots, so small holes between them are filled; and
    its CPU kernels compute several columns at a time, so the run is brought to a multiple of that, where it costs less.

    slots: ascending; usable: for every slot there is, whether it has room for a token that is taken back afterwards;
    shallow: whether it holds no more cells than the slots of the batch, all of which that token attends to; steady: whether
    no token may be alone. For a lone one floats are added up by another kernel in another order, and for two or more
    always in the same.
    """
    if len(slots) < 2 and not steady:
        return []
    added: list[int] = []
    start = slots[0]
    for slot, following in zip(slots, [*slots[1:], len(usable)], strict=True):
        hole = range(slot + 1, following)
        if following < len(usable) and len(hole) <= _PASS and all(usable[number] for number in hole):
            added += hole
            continue
        length = slot + 1 - start
        if length >= _WORTH_A_TILE:
            tail = hole[: -length % TILE]
            if all(usable[number] and shallow[number] for number in tail):
                added += tail
        elif length == 1 and steady:
            beside = (number for number in (slot + 1, slot - 1) if 0 <= number < len(usable) and usable[number])
            added += islice(beside, 1)
        start = following
    return added


def columns(slots: Sequence[int], slots_there_are: int) -> int:
    """What a token for each of `slots` costs, padded, in tokens of consecutive slots. slots: ascending."""
    every = [True] * slots_there_are
    filled = sorted([*slots, *padding(slots, every, every)])
    return len(filled) + _PASS * sum(after > before + 1 for before, after in pairwise(filled))
