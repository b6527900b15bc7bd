"""The keys and values of all slots, in arrays that onnxruntime reads and writes in place.

A *block* holds the cells of slots that are evaluated together: every tensor of the graph's cache with a row for each slot,
and so many columns as the longest of them needs. A step reads a block's front and has the graph write its back, which is
wider by the step's tokens; then the two change places. So nothing is copied from step to step but by the graph itself.

A row lists the columns of its slot's cells in their order, and all others are masked: what stands before a shorter
sequence, what was cut, and what a row was given while its slot had nothing to evaluate. A block is copied into a narrower
one when too much of it is that.

Graphs with a fused attention count a row's cells by its mask, and write the next one behind them. Their blocks are aligned
to the left: cells begin at the first column, and what stands behind a shorter sequence is overwritten in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, OutOfMemory, Saved
from inferno_runtime.memory import memory_available

Cells = list[NDArray[np.generic]]  # for each plane: shape (tensors, heads, cells, size)

_LEAST_COLUMNS = 64  # that memory is taken for
_SLACK = 32  # columns of a block that may be nobody's, or
_SLACK_SHARE = 0.25  # of what its longest row needs
_LARGE = 64 << 20  # bytes; less is taken without asking whether it is there


@dataclass(frozen=True, slots=True)
class Plane:
    """The tensors of a cache that have one shape: (rows, heads, columns, size) each."""

    past: tuple[str, ...]  # inputs, and
    present: tuple[str, ...]  # outputs, in the same order
    heads: int
    size: int
    type: np.dtype[np.generic]

    @property
    def cell_bytes(self) -> int:
        """What a token takes."""
        return len(self.past) * self.heads * self.size * self.type.itemsize

    def shape(self, rows: int, width: int) -> tuple[int, int, int, int, int]:
        """All tensors together, one behind the other."""
        return len(self.past), rows, self.heads, width, self.size


class Block:
    """Rows of one batch."""

    def __init__(
        self,
        planes: Sequence[Plane],
        rows: int,
        width: int,
        *,
        left: bool = False,
        front: list[NDArray[np.generic]] | None = None,
    ) -> None:
        """left: aligned so; then a step has one token for each row. front: cells that somebody else keeps, for as many rows
        and columns; they are read and never written."""
        self.slots: list[int | None] = [None] * rows
        self.width = width
        self._planes = planes
        self._left = left
        self._columns: list[list[int]] = [[] for _ in range(rows)]
        self._mask = np.zeros((rows, room(width)), dtype=np.bool_)
        self._lent = front is not None
        self._back: list[NDArray[np.generic]] | None = None
        self.front = front if front is not None else self._allocate(width)

    def length(self, row: int) -> int:
        """Cells of a row."""
        return len(self._columns[row])

    def loose(self, longest: int) -> bool:
        """Whether it is so much wider than rows of `longest` cells that a copy pays."""
        return self.width - longest > max(_SLACK, _SLACK_SHARE * longest)

    def cells(self, row: int) -> Cells:
        """A row's cells; perhaps views."""
        columns = self._columns[row]
        if columns and columns[-1] - columns[0] + 1 == len(columns):
            chosen: slice | list[int] = slice(columns[0], columns[-1] + 1)
        else:
            chosen = columns
        return [view[:, row][:, :, chosen] for view in self._views()]

    def put(self, row: int, slot: int, cells: Cells) -> None:
        """Give a row to a slot with these cells."""
        length = cells[0].shape[2]
        start = 0 if self._left else self.width - length
        for view, part in zip(self._views(), cells, strict=True):
            view[:, row, :, :start] = view[:, row, :, start + length :] = 0  # what is masked must be a number, too
            view[:, row, :, start : start + length] = part
        self.give(row, slot, range(start, start + length))

    def give(self, row: int, slot: int, columns: Sequence[int]) -> None:
        """Note that a slot's cells stand in these columns of a row."""
        self.slots[row] = slot
        self._columns[row] = list(columns)
        self._mask[row] = False
        self._mask[row, self._columns[row]] = True

    def drop(self, row: int) -> None:
        """Take a row from its slot."""
        self.slots[row] = None
        self._columns[row] = []
        self._mask[row] = False

    def cut(self, row: int, length: int) -> None:
        """Keep only the first cells of a row."""
        self._mask[row, self._columns[row][length:]] = False
        del self._columns[row][length:]

    def back(self, by: int) -> list[NDArray[np.generic]]:
        """Where a step of so many tokens writes. Raises `OutOfMemory`."""
        needed = [int(np.prod(plane.shape(len(self.slots), self.width + by))) for plane in self._planes]
        if self._back is None or any(len(flat) < size for flat, size in zip(self._back, needed, strict=True)):
            self._back = None  # before anything is taken for its successor
            self._back = self._allocate(self.width + by)
        return self._back

    def mask(self, by: int, counts: Sequence[int]) -> NDArray[np.bool_]:
        """What the tokens of a step may see: shape (rows, width + by). counts: of the tokens of each row, the last of `by`."""
        seen = np.zeros((len(counts), self.width + by), dtype=np.bool_)
        seen[:, : self.width] = self._mask[:, : self.width]
        for row, count in enumerate(counts):
            new = self._new(row, self.width + by, count or 1)  # a row that sees nothing at all is not a number
            seen[row, new.start : new.stop] = True
        return seen

    def advance(self, by: int, counts: Sequence[int]) -> None:
        """Take what a step has written."""
        assert self._back is not None
        self.front, self._back = self._back, None if self._lent else self.front
        self._lent = False
        self.width += by
        if self.width > self._mask.shape[1]:
            self._mask = np.pad(self._mask, ((0, 0), (0, room(self.width) - self._mask.shape[1])))
        for row, count in enumerate(counts):
            if count:
                new = self._new(row, self.width, count)
                self._mask[row, new.start : new.stop] = True
                self._columns[row].extend(new)

    def _new(self, row: int, width: int, count: int) -> range:
        """The columns of the tokens that a row is given by the step that brings the block to this width."""
        end = len(self._columns[row]) + count if self._left else width
        return range(end - count, end)

    def _views(self) -> list[NDArray[np.generic]]:
        shapes = [plane.shape(len(self.slots), self.width) for plane in self._planes]
        return [flat[: int(np.prod(shape))].reshape(shape) for flat, shape in zip(self.front, shapes, strict=True)]

    def _allocate(self, width: int) -> list[NDArray[np.generic]]:
        """Memory for a block of this width, with room to grow."""
        return allocate(self._planes, [plane.shape(len(self.slots), room(width)) for plane in self._planes])


class Cache:
    """Which block holds which slot's cells. A slot that nobody has written to is empty."""

    def __init__(self, planes: Sequence[Plane], *, left: bool = False) -> None:
        """left: how batches are aligned."""
        self._planes = planes
        self._left = left
        self.cell_bytes = sum(plane.cell_bytes for plane in planes)
        self._places: dict[int, tuple[Block, int]] = {}  # by slot: the block and the row
        self._batch: Block | None = None  # the only one that has several rows

    @property
    def used(self) -> int:
        """Cells of all slots."""
        return sum(block.length(row) for block, row in self._places.values())

    def length(self, slot: int) -> int:
        """Cells of a slot."""
        place = self._places.get(slot)
        return place[0].length(place[1]) if place else 0

    def clear(self, slot: int) -> None:
        """Forget a slot's cells."""
        place = self._places.pop(slot, None)
        if place is not None:
            place[0].drop(place[1])

    def cut(self, slot: int, length: int) -> None:
        """Keep only the first cells of a slot."""
        if length > self.length(slot):
            raise BackendError(f"slot {slot} holds {self.length(slot)} cells, not {length}")
        if not length:
            self.clear(slot)
        elif place := self._places.get(slot):
            place[0].cut(place[1], length)

    def copy(self, source: int, target: int) -> None:
        """Give a slot what another one holds."""
        data = self.save(source)
        self.clear(target)
        if data is not None:
            self.restore(target, data)

    def save(self, slot: int) -> Saved | None:
        """A copy of a slot's cells; None if it has none."""
        place = self._places.get(slot)
        if place is None:
            return None
        block, row = place
        length = block.length(row)
        data = np.empty(length * self.cell_bytes, dtype=np.uint8)
        for part, cells in zip(parts(self._planes, data, length), block.cells(row), strict=True):
            part.reshape(cells.shape)[...] = cells
        return data.data

    def restore(self, slot: int, data: Saved) -> None:
        """Give a slot cells that were saved, which it only refers to until it has some of its own."""
        length = len(data) // self.cell_bytes
        self.clear(slot)
        front = parts(self._planes, np.frombuffer(data, dtype=np.uint8), length)
        block = Block(self._planes, 1, length, front=front)
        block.give(0, slot, range(length))
        self._places[slot] = block, 0

    def alone(self, slot: int, *, dense: bool) -> Block:
        """The block that holds this slot and no other. dense: without a column that is masked."""
        place = self._places.get(slot)
        if place is None:
            block = Block(self._planes, 1, 0)
            block.give(0, slot, ())
            self._places[slot] = block, 0
            return block
        block, row = place
        wide = block.loose(block.length(row)) or (dense and block.width > block.length(row))
        return self._extract(block, row) if wide or len(block.slots) > 1 else block

    def together(self, slots: Sequence[int]) -> tuple[Block, list[int]]:
        """A block that holds these slots, of which each has some cells, and their rows in it."""
        batch = self._batch
        if batch is None or not self._joined(batch, slots):
            batch = self._gathered(slots)
        return batch, [self._places[slot][1] for slot in slots]

    def _joined(self, batch: Block, slots: Sequence[int]) -> bool:
        """Bring the slots that are elsewhere into rows that none of the others need; False if a new block is better."""
        wanted = set(slots)
        absent = [slot for slot in slots if self._places[slot][0] is not batch]
        rows = [row for row, slot in enumerate(batch.slots) if slot not in wanted]
        rows.sort(key=lambda row: batch.slots[row] is not None)  # first those that are nobody's
        idle = len(rows) - len(absent)
        longest = max(map(self.length, slots))
        if idle < 0 or idle > len(slots) // 2 or longest > batch.width or batch.loose(longest):
            return False
        for slot, row in zip(absent, rows, strict=False):
            block, own = self._places[slot]
            if batch.slots[row] is not None:
                self._extract(batch, row)
            batch.put(row, slot, block.cells(own))
            self._places[slot] = batch, row
        return True

    def _gathered(self, slots: Sequence[int]) -> Block:
        """A new batch; what else the old one held is put by itself."""
        old = self._batch
        batch = Block(self._planes, len(slots), max(map(self.length, slots)), left=self._left)
        for row, slot in enumerate(slots):
            block, own = self._places[slot]
            batch.put(row, slot, block.cells(own))
            block.drop(own)
            self._places[slot] = batch, row
        if old is not None:
            for row, left in enumerate(old.slots):
                if left is not None:
                    self._extract(old, row)
        self._batch = batch
        return batch

    def _extract(self, block: Block, row: int) -> Block:
        """Copy a row into a block of its own."""
        slot = block.slots[row]
        assert slot is not None
        own = Block(self._planes, 1, block.length(row))
        own.put(0, slot, block.cells(row))
        block.drop(row)
        self._places[slot] = own, 0
        return own


def parts(planes: Sequence[Plane], data: NDArray[np.uint8], length: int) -> list[NDArray[np.generic]]:
    """Of each plane what there is in so many saved cells."""
    found: list[NDArray[np.generic]] = []
    start = 0
    for plane in planes:
        end = start + length * plane.cell_bytes
        found.append(data[start:end].view(plane.type))
        start = end
    return found


def allocate(planes: Sequence[Plane], shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.generic]]:
    """Memory for a tensor of each plane's type. Raises `OutOfMemory`."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    total = sum(size * plane.type.itemsize for size, plane in zip(sizes, planes, strict=True))
    if total > _LARGE and total > memory_available():
        raise OutOfMemory(f"no {total >> 20} MiB for the cache")
    try:
        return [np.empty(size, dtype=plane.type) for size, plane in zip(sizes, planes, strict=True)]
    except MemoryError:
        raise OutOfMemory(f"no {total >> 20} MiB for the cache") from None


def room(width: int) -> int:
    """Columns that memory is taken for: doubled as they are needed."""
    return max(_LEAST_COLUMNS, 1 << max(width - 1, 0).bit_length())
