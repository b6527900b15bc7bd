"""The cache's bookkeeping, with a graph that only writes down whose token it was given."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from inferno_runtime.backends.base import BackendError
from inferno_runtime.backends.onnx.cache import Block, Cache, Plane

PLANES = (
    Plane(("a", "b"), ("c", "d"), heads=2, size=3, type=np.dtype(np.float32)),
    Plane(("e",), ("f",), heads=1, size=4, type=np.dtype(np.float16)),
)
SLOTS = 5


def step(block: Block, tokens: dict[int, list[int]], *, left: bool = False) -> None:
    """What a run of the graph does to a block: old cells first, then the tokens of each row, which its mask must show.

    left: a row's token goes where its mask says that its cells end, as fused operators have it.
    """
    by = max(map(len, tokens.values()))
    counts = [len(tokens.get(row, ())) for row in range(len(block.slots))]
    seen = block.mask(by, counts).sum(axis=1)
    assert [seen[row] for row in tokens] == [block.length(row) + len(own) for row, own in tokens.items()]
    assert block.mask(by, counts).any(axis=1).all()
    for plane, front, back in zip(PLANES, block.front, block.back(by), strict=True):
        old = front[: np.prod(plane.shape(len(counts), block.width))].reshape(plane.shape(len(counts), block.width))
        shape = plane.shape(len(counts), block.width + by)
        new = back[: np.prod(shape)].reshape(shape)
        assert np.isfinite(old).all(), "what is masked must be a number"
        new[..., : block.width, :] = old
        new[..., block.width :, :] = -1
        ends = seen if left else [block.width + by] * len(counts)
        for row, end in enumerate(ends):
            own = tokens.get(row, [-1])
            new[:, row, :, end - len(own) : end] = np.array(own)[:, None]
    block.advance(by, counts)


def held(cache: Cache, slot: int) -> list[int]:
    """The tokens whose cells a slot has, which must be the same in all tensors."""
    data = cache.save(slot)
    if data is None:
        return []
    other = Cache(PLANES)
    other.restore(0, data)
    cells = other.alone(0, dense=True).cells(0)
    for part in cells:
        assert (part == part[0, 0, :, 0][None, None, :, None]).all()
    return [int(token) for token in cells[0][0, 0, :, 0]]


class Model:
    """The cache, and beside it lists of tokens, which it must agree with."""

    def __init__(self, *, left: bool = False) -> None:
        self.left = left
        self.cache = Cache(PLANES, left=left)
        self.tokens: dict[int, list[int]] = {slot: [] for slot in range(SLOTS)}
        self.next = 0

    def new(self, count: int) -> list[int]:
        self.next += count
        return [number % 2000 for number in range(self.next - count, self.next)]

    def alone(self, slot: int, count: int, *, dense: bool) -> None:
        tokens = self.new(count)
        block = self.cache.alone(slot, dense=dense)
        assert not dense or block.width == block.length(0)
        step(block, {0: tokens})
        self.tokens[slot] += tokens

    def together(self, slots: Sequence[int], counts: Sequence[int]) -> None:
        block, rows = self.cache.together(slots)
        assert [block.slots[row] for row in rows] == list(slots)
        given = {row: self.new(count) for row, count in zip(rows, counts, strict=True)}
        step(block, given, left=self.left)
        for slot, row in zip(slots, rows, strict=True):
            self.tokens[slot] += given[row]

    def check(self) -> None:
        for slot, tokens in self.tokens.items():
            assert self.cache.length(slot) == len(tokens)
            assert held(self.cache, slot) == tokens, f"slot {slot}"
        assert self.cache.used == sum(map(len, self.tokens.values()))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("left", [False, True])
def test_every_slot_keeps_its_own_whatever_happens_to_the_others(left: bool, seed: int) -> None:
    rng, model = random.Random(seed), Model(left=left)
    saved: list[tuple[bytes, list[int]]] = []
    for _ in range(200):
        slot = rng.randrange(SLOTS)
        own = model.tokens[slot]
        match rng.choice(["alone", "together", "together", "together", "cut", "clear", "save", "restore"]):
            case "alone":
                model.alone(slot, rng.choice([1, 1, 3, 40]), dense=left or rng.random() < 0.3)
            case "together":
                usable = [number for number, tokens in model.tokens.items() if tokens]
                if len(usable) > 1:
                    slots = rng.sample(usable, rng.randrange(2, len(usable) + 1))
                    model.together(slots, [1 if left else rng.choice([1, 1, 1, 4]) for _ in slots])
            case "cut" if own:
                length = rng.randrange(len(own) + 1)
                model.cache.cut(slot, length)
                del own[length:]
            case "clear":
                model.cache.clear(slot)
                own.clear()
            case "save" if own:
                data = model.cache.save(slot)
                assert data is not None
                saved.append((bytes(data), list(own)))
            case "restore" if saved:
                data, tokens = rng.choice(saved)
                model.cache.restore(slot, data)
                model.tokens[slot] = list(tokens)
        model.check()


def test_a_batch_that_goes_on_is_not_copied() -> None:
    model = Model()
    for slot, count in enumerate((10, 20, 30)):
        model.alone(slot, count, dense=False)
    block, _ = model.cache.together([0, 1, 2])
    for _ in range(20):
        model.together([0, 1, 2], [1, 1, 1])
    model.together([0, 2], [1, 1])  # one has ended, and its row is kept for a while
    model.cache.clear(1)
    model.tokens[1].clear()
    model.alone(1, 5, dense=False)
    model.together([0, 1, 2], [1, 1, 1])  # another takes it
    assert model.cache.together([0, 1, 2])[0] is block
    model.check()


def test_what_was_cut_and_what_is_too_wide_goes_in_time() -> None:
    model = Model()
    model.alone(0, 300, dense=False)
    model.alone(1, 10, dense=False)
    model.together([0, 1], [1, 1])
    model.cache.cut(0, 20)
    del model.tokens[0][20:]
    model.together([0, 1], [1, 1])
    assert model.cache.together([0, 1])[0].width < 60
    model.check()


def test_a_slot_cannot_be_cut_to_more_than_it_holds() -> None:
    model = Model()
    model.alone(0, 3, dense=False)
    with pytest.raises(BackendError, match="holds 3 cells, not 4"):
        model.cache.cut(0, 4)


def test_saved_cells_stay_as_they_are() -> None:
    model = Model()
    model.alone(0, 4, dense=False)
    data = model.cache.save(0)
    assert data is not None
    before = bytes(data)
    model.cache.restore(1, data)
    model.tokens[1] = list(model.tokens[0])
    for _ in range(4):
        model.alone(1, 1, dense=False)
    assert bytes(data) == before
    model.check()
