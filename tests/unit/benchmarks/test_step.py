"""The measurement of a step runs, with more sequences than one step admits."""

import asyncio

from benchmarks.step import SAMPLING, measure


def test_every_step_gives_every_sequence_a_token() -> None:
    engine, server = asyncio.run(measure(SAMPLING["default"], sequences=9, steps=3))
    assert len(engine) == len(server) == 3  # what it asserts itself, step by step, is the rest
