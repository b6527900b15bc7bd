"""Batches of the real library: what is added to them for speed shows in no result."""

import random

import numpy as np
import pytest

from inferno_runtime.backends import load_backend
from inferno_runtime.backends.base import Backend, Span
from inferno_runtime.config import EngineConfig
from inferno_runtime.models.source import DEFAULT_MODEL

SLOTS = 12
LENGTHS = [9 + 3 * slot for slot in range(SLOTS)]
TOLERANCE = 0.05  # of logits whose largest are about 10: batches of another shape are summed in another order


def prompt(slot: int) -> list[int]:
    rng = random.Random(slot)
    return [rng.randrange(10, 1700) for _ in range(LENGTHS[slot] + 1)]


def filled() -> Backend:
    backend = load_backend(str(DEFAULT_MODEL), EngineConfig(threads=1, slots=SLOTS, context_length=64))
    for slot in range(SLOTS):
        backend.evaluate([Span(slot, 0, prompt(slot)[:-1], logits=0)])
    return backend


@pytest.mark.parametrize(
    "running", [[0, 1, 2, 4, 5, 6, 7], [0, 1, 2, 3, 4], [0, 3, 5, 8, 11], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]
)
def test_padded_batches_give_each_sequence_its_own_logits(running: list[int]) -> None:
    backend, alone = filled(), filled()
    try:
        for _ in range(2):  # what was added has been taken back, and the cells are as they were
            together = backend.evaluate([Span(slot, LENGTHS[slot], prompt(slot)[-1:], logits=1) for slot in running])
            assert together.shape == (len(running), backend.info.vocab_size)
            for row, slot in zip(together, running, strict=True):
                (own,) = alone.evaluate([Span(slot, LENGTHS[slot], prompt(slot)[-1:], logits=1)])
                assert np.abs(row - own).max() < TOLERANCE
                alone.cut(slot, LENGTHS[slot])
                backend.cut(slot, LENGTHS[slot])
        idle = next(slot for slot in range(SLOTS) if slot not in running)
        (after,) = backend.evaluate([Span(idle, LENGTHS[idle], prompt(idle)[-1:], logits=1)])
        (own,) = alone.evaluate([Span(idle, LENGTHS[idle], prompt(idle)[-1:], logits=1)])
        assert np.abs(after - own).max() < TOLERANCE
    finally:
        backend.close()
        alone.close()


def test_copies_that_share_a_buffer_are_each_of_their_own_source() -> None:
    backend = filled()
    copies = {2: 11, 3: 4, 5: 11, 6: 0, 7: 0}  # by target: a longer one, a shorter in its place, the longer again, …
    try:
        kept = backend.save(11)
        assert kept is not None
        before = bytes(kept)
        for target, source in copies.items():
            assert backend.copy(source, target)
        assert bytes(kept) == before
        for target, source in copies.items():
            (own,) = backend.evaluate([Span(source, LENGTHS[source], prompt(source)[-1:], logits=1)]).copy()
            backend.cut(source, LENGTHS[source])
            (copied,) = backend.evaluate([Span(target, LENGTHS[source], prompt(source)[-1:], logits=1)])
            assert np.abs(own - copied).max() < TOLERANCE
    finally:
        backend.close()
