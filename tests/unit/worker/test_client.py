"""What the server keeps of an engine's reports."""

import asyncio

from inferno_runtime.config import ModelConfig, ServedModel
from inferno_runtime.worker.client import EngineClient
from inferno_runtime.worker.frames import Counters, Step


def step(queued: int = 0, counters: Counters | None = None) -> Step:
    return Step([], [], [], [], 0, queued, 0, (), counters)


async def test_counts_go_on_where_an_engine_was_started_again() -> None:
    client = EngineClient(ServedModel(name="m", model=ModelConfig(source="file:///m.gguf")))
    client.context = 1
    stats = client.stats
    client._on_step(step(counters=Counters(1, 10, 5, 4096)))
    client._on_step(step())
    assert (stats.steps, stats.preemptions, stats.drafted, stats.accepted, stats.store_bytes) == (2, 1, 10, 5, 4096)
    # As `_restart` does, without a process.
    client.stats.forget_process()
    assert (stats.preemptions, stats.drafted, stats.accepted, stats.store_bytes) == (1, 10, 5, 0)
    client._on_step(step(counters=Counters(0, 2, 1, 100)))
    assert (stats.preemptions, stats.drafted, stats.accepted, stats.store_bytes) == (1, 12, 6, 100)


async def test_the_depth_of_the_queue() -> None:
    client = EngineClient(ServedModel(name="m", model=ModelConfig(source="file:///m.gguf")))
    client.context = 1
    client._last_frame = asyncio.get_running_loop().time()
    for queued in (0, 3, 3, 1):
        client._on_step(step(queued))
    assert (client.stats.queued, client.stats.depth.value, client.stats.depth.most) == (1, 1, 3)
