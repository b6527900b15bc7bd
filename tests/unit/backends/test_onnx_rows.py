"""Rows of slots that are evaluated in place: which go together, and what each holds."""

import random

import numpy as np
import pytest

from inferno_runtime.backends.base import BackendError, Span
from inferno_runtime.backends.onnx.cache import Plane
from inferno_runtime.backends.onnx.rows import Rows, Run, columns, runs

PLANES = (
    Plane(("a", "b"), ("c", "d"), heads=2, size=3, type=np.dtype(np.float32)),
    Plane(("e",), ("f",), heads=1, size=4, type=np.dtype(np.float16)),
)
SLOTS, CONTEXT = 5, 300


def span(slot: int, count: int = 1, start: int = 7) -> Span:
    return Span(slot, start, [1] * count, 1)


@pytest.mark.parametrize(
    ("spans", "full", "expected"),
    [
        ([span(0)], [], [Run(0, 1, (0,))]),
        ([span(0), span(1), span(2)], [], [Run(0, 3, (0, 1, 2))]),
        ([span(2), span(0)], [], [Run(0, 3, (1, 0))]),
        ([span(0), span(2)], [1], [Run(0, 1, (0,)), Run(2, 1, (1,))]),
        ([span(0), span(2)], [0, 2], [Run(0, 3, (0, 1))]),
        ([span(0), span(15)], [], [Run(0, 1, (0,)), Run(15, 1, (1,))]),
        ([span(0), span(1, 3), span(2)], [], [Run(0, 3, (0, 2)), Run(1, 1, (1,))]),
        ([span(0), span(1, start=0)], [], [Run(0, 1, (0,)), Run(1, 1, (1,))]),
        ([span(3), span(3)], [], [Run(3, 1, (0,)), Run(3, 1, (1,))]),
    ],
    ids=[
        "one",
        "side by side",
        "in any order",
        "a hole that is full",
        "full themselves, which is for others to check",
        "a hole that is too large",
        "several tokens are alone, and their slot a hole",
        "a first token is a prompt",
        "twice the same",
    ],
)
def test_what_is_evaluated_together(spans: list[Span], full: list[int], expected: list[Run]) -> None:
    assert runs(spans, [slot in full for slot in range(16)]) == expected


def write(rows: Rows, slot: int, tokens: list[int]) -> None:
    """What a step does: the graph writes behind a slot's cells, and past them whatever it likes."""
    start = rows.length(slot)
    rows.reserve(start + len(tokens))
    for array in rows.arrays:
        array[:, slot, :, start:] = -1
        array[:, slot, :, start : start + len(tokens)] = np.array(tokens)[:, None]
    rows.extend(slot, len(tokens))


def held(rows: Rows, slot: int) -> list[int]:
    """The tokens whose cells a slot has, which must be the same in all tensors."""
    cells = [array[:, slot, :, : rows.length(slot)] for array in rows.arrays]
    for part in cells:
        assert (part == part[0, 0, :, 0][None, None, :, None]).all()
    return [int(token) for token in cells[0][0, 0, :, 0]] if cells else []


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_done_every_slot_keeps_its_own(seed: int) -> None:
    chance = random.Random(seed)
    rows, texts = Rows(PLANES, SLOTS, CONTEXT), [list[int]() for _ in range(SLOTS)]
    for number in range(200):
        slot, other = chance.sample(range(SLOTS), 2)
        match chance.choice(["write", "write", "clear", "cut", "copy", "save"]):
            case "write":
                new = [number % 1000] * chance.randint(1, 40)
                if len(texts[slot]) + len(new) <= CONTEXT:
                    write(rows, slot, new)
                    texts[slot] += new
            case "clear":
                rows.clear(slot)
                texts[slot] = []
            case "cut":
                del texts[slot][chance.randint(0, len(texts[slot])) :]
                rows.cut(slot, len(texts[slot]))
            case "copy":
                rows.copy(slot, other)
                texts[other] = list(texts[slot])
            case "save":
                data = rows.save(slot)
                assert (data is None) == (not texts[slot])
                if data is not None:
                    rows.restore(other, data)
                    texts[other] = list(texts[slot])
        assert [held(rows, slot) for slot in range(SLOTS)] == texts
        assert rows.used == sum(map(len, texts))


def test_rows_grow_by_doubling_and_not_beyond_their_context() -> None:
    rows, widths = Rows(PLANES, SLOTS, CONTEXT), list[int]()
    for _ in range(CONTEXT):
        write(rows, 1, [1])
        widths.append(rows.width)
    assert sorted(set(widths)) == [64, 128, 256, CONTEXT]
    assert rows.full() == [False, True, False, False, False]


def test_no_more_is_kept_than_there_is() -> None:
    rows = Rows(PLANES, SLOTS, CONTEXT)
    write(rows, 0, [1, 2])
    with pytest.raises(BackendError):
        rows.cut(0, 3)


@pytest.mark.parametrize(("slots", "count"), [([4], 1), ([0, 1, 2], 3), ([0, 3], 4), ([0, 1, 30, 31], 4 + 8)], ids=str)
def test_what_a_batch_costs(slots: list[int], count: int) -> None:
    assert columns(slots) == count
