"""The keys and values of all slots, each in a row of its own, where the graph reads them and writes what is new.

Only graphs whose attention is one operator can do that: it is told how many cells each row has, begins at the first column
and writes behind the last. So nothing is copied from step to step, whatever is cut or joins, and slots that lie side by side
are evaluated together, with those between them that have nothing to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, Saved, Span
from inferno_runtime.backends.onnx.cache import Plane, allocate, parts, room

_HOLE = 8  # slots; another pass over the weights costs more than so many tokens of no use


# A tensor's input, its output, the type, the shape and the address.
Bound = tuple[str, str, np.dtype[np.generic], tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class Run:
    """Slots that are evaluated together: `count` of them from `first` on. `spans` are the numbers of what is asked of them."""

    first: int
    count: int
    spans: tuple[int, ...]


def runs(spans: Sequence[Span], full: Sequence[bool]) -> list[Run]:
    """Put spans together that can be. full: for every slot, whether it has no room for a token of no use.

    Several tokens of one sequence are a batch of their own, and so is a sequence's first one: behind nothing, it is a prompt.
    """
    single = [index for index, span in enumerate(spans) if len(span.tokens) == 1 and span.start]
    single.sort(key=lambda index: spans[index].slot)
    found: list[list[int]] = []
    for index in single:
        slot = spans[index].slot
        last = spans[found[-1][-1]].slot if found else -1
        hole = range(last + 1, slot)
        if found and slot > last and len(hole) <= _HOLE and not any(full[number] for number in hole):
            found[-1].append(index)
        else:
            found.append([index])
    found += [[index] for index in range(len(spans)) if index not in set(single)]
    return [Run(spans[run[0]].slot, spans[run[-1]].slot - spans[run[0]].slot + 1, tuple(run)) for run in found]


def columns(slots: Sequence[int]) -> int:
    """What a token for each of `slots` costs, in tokens of consecutive slots. slots: ascending."""
    return 1 + sum(min(after - before, 1 + _HOLE) for before, after in pairwise(slots))


class Rows:
    """A row for each slot. A slot that nobody has written to is empty."""

    def __init__(self, planes: Sequence[Plane], slots: int, context: int) -> None:
        """context: most cells of a slot."""
        self._planes = planes
        self._slots = slots
        self._context = context
        self._lengths = [0] * slots
        self.cell_bytes = sum(plane.cell_bytes for plane in planes)
        self.width = 0  # columns that there is memory for
        self.arrays: list[NDArray[np.generic]] = []  # for each plane: shape (tensors, slots, heads, width, size)

    @property
    def used(self) -> int:
        """Cells of all slots."""
        return sum(self._lengths)

    def length(self, slot: int) -> int:
        """Cells of a slot."""
        return self._lengths[slot]

    def full(self) -> list[bool]:
        """Whether each slot has no cell left."""
        return [length >= self._context for length in self._lengths]

    def clear(self, slot: int) -> None:
        """Forget a slot's cells."""
        self._lengths[slot] = 0

    def cut(self, slot: int, length: int) -> None:
        """Keep only the first cells of a slot."""
        if length > self._lengths[slot]:
            raise BackendError(f"slot {slot} holds {self._lengths[slot]} cells, not {length}")
        self._lengths[slot] = length

    def copy(self, source: int, target: int) -> None:
        """Give a slot what another one holds."""
        length = self._lengths[source]
        for array in self.arrays:
            array[:, target, :, :length] = array[:, source, :, :length]
        self._lengths[target] = length

    def save(self, slot: int) -> Saved | None:
        """A copy of a slot's cells; None if it has none."""
        length = self._lengths[slot]
        if not length:
            return None
        data = np.empty(length * self.cell_bytes, dtype=np.uint8)
        for part, array in zip(parts(self._planes, data, length), self.arrays, strict=True):
            cells = array[:, slot, :, :length]
            part.reshape(cells.shape)[...] = cells
        return data.data

    def restore(self, slot: int, data: Saved) -> None:
        """Give a slot cells that were saved. Raises `OutOfMemory`."""
        length = len(data) // self.cell_bytes
        self._lengths[slot] = 0
        self.reserve(length)
        saved = parts(self._planes, np.frombuffer(data, dtype=np.uint8), length)
        for part, array in zip(saved, self.arrays, strict=True):
            cells = array[:, slot, :, :length]
            cells[...] = part.reshape(cells.shape)
        self._lengths[slot] = length

    def extend(self, slot: int, count: int) -> None:
        """Take note of cells that a step has written behind a slot's last."""
        self._lengths[slot] += count

    def reserve(self, length: int) -> None:
        """Have room for so many cells in every row: doubled as they are needed. Raises `OutOfMemory`."""
        if length <= self.width:
            return
        width = min(room(length), self._context)
        shapes = [plane.shape(self._slots, width) for plane in self._planes]
        made = [flat.reshape(shape) for flat, shape in zip(allocate(self._planes, shapes), shapes, strict=True)]
        for old, new in zip(self.arrays, made, strict=False):
            for slot, held in enumerate(self._lengths):
                new[:, slot, :, :held] = old[:, slot, :, :held]
        self.arrays, self.width = made, width

    def tensors(self, first: int, count: int) -> list[Bound]:
        """Where the tensors of some rows lie."""
        found: list[Bound] = []
        for plane, array in zip(self._planes, self.arrays, strict=True):
            shape = (count, plane.heads, self.width, plane.size)
            for number, (past, present) in enumerate(zip(plane.past, plane.present, strict=True)):
                found.append((past, present, plane.type, shape, array[number, first].ctypes.data))
        return found
