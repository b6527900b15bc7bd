"""What a step costs beside the model: `make bench-step`.

A backend that answers at once runs 32 sequences over a vocabulary of 49,152 tokens. Measured are both processes' shares
of a step: the engine's (schedule, lay out, sample, encode the frame) and the server's (decode the frame, hand the tokens
to their sequences, make text), with logging and metrics as in service. The model's own time is not in it.
"""

import argparse
import asyncio
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import MemoryTraits, ModelInfo, Saved, Span
from inferno_runtime.config import ModelConfig, ServedModel
from inferno_runtime.engine.request import Request, Sampling
from inferno_runtime.engine.scheduler import Scheduler
from inferno_runtime.worker.client import EngineClient
from inferno_runtime.worker.frames import FromEngine, Reader, Step, Submit, encode, from_engine
from inferno_runtime.worker.generation import Generation

VOCABULARY = 49_152
SAMPLING = {
    "greedy": Sampling(temperature=0.0),
    "default": Sampling(),
    "penalties": Sampling(presence_penalty=0.5, frequency_penalty=0.5),
}


class InstantBackend:
    """Gives the same random logits to everybody, at no cost."""

    def __init__(self, slots: int, context: int) -> None:
        self.info = ModelInfo("fake", "fake", "none", 0, 0, context, VOCABULARY)
        self.description = "instant"
        self.memory = MemoryTraits(copy=True, cut=True, save=True, shift=False)
        self.slots, self.context, self.cells = slots, context, slots * context
        self.max_batch, self.max_logits, self.threads = 512, slots, 0
        self.settings: dict[str, Any] = {}
        self.vision = None
        self._logits = np.random.default_rng(0).normal(0, 3, (slots, VOCABULARY)).astype(np.float32)

    def evaluate(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        return self._logits[: sum(span.logits for span in spans)]

    def columns(self, slots: Sequence[int]) -> int:
        return len(slots)

    def clear(self, slot: int) -> None:
        pass

    def cut(self, slot: int, length: int) -> None:
        pass

    def copy(self, source: int, target: int) -> bool:
        return False

    def save(self, slot: int) -> Saved | None:
        return None

    def restore(self, slot: int, data: Saved) -> bool:
        return False

    def set_threads(self, count: int) -> None:
        pass

    def close(self) -> None:
        pass


async def measure(sampling: Sampling, sequences: int, steps: int) -> tuple[list[float], list[float]]:
    """Seconds per step in the engine and in the server."""
    scheduler = Scheduler(InstantBackend(sequences, 1 << 20), end_tokens=[], step_budget=10.0, clock=time.monotonic)
    client = EngineClient(ServedModel(name="fake", model=ModelConfig(source="file:///fake")))
    client.context, client.slots = 1 << 20, sequences
    pieces = [b" word"] * VOCABULARY
    generations = []
    for number in range(1, sequences + 1):
        request = Request(number, [1] * 100, 1 << 19, sampling)
        scheduler.submit(request)
        generation = Generation(number, 100, pieces, ["\n\n"], lambda _: None, None)
        client._flight.begin(generation, Submit(request))
        generations.append(generation)
    started = 0
    while started < sequences:
        started += len(scheduler.step().started)
    reader: Reader[FromEngine] = Reader(from_engine)
    engine_times, server_times = [], []
    for _ in range(steps):
        began = time.perf_counter()
        result = scheduler.step()
        data = encode(
            Step(
                result.ids,
                result.tokens,
                result.started,
                result.finished,
                scheduler.active,
                scheduler.queued,
                scheduler.cells_used,
            )
        )
        middle = time.perf_counter()
        for frame in reader.feed(data):
            client._on_frame(frame)
        ended = time.perf_counter()
        engine_times.append(middle - began)
        server_times.append(ended - middle)
        assert len(result.ids) == sequences
        for generation in generations:
            await generation.read()
    return engine_times, server_times


def micros(times: list[float], pick: Callable[[list[float]], float]) -> str:
    return f"{pick(times) * 1e6:8.0f}"


def main() -> None:
    """Print a table; the exit code says nothing, since machines differ."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sequences", type=int, default=32)
    arguments.add_argument("--steps", type=int, default=500)
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO)
    print(f"{options.sequences} sequences, {VOCABULARY} tokens; microseconds a step, median (p95)")
    for name, sampling in SAMPLING.items():
        engine, server = asyncio.run(measure(sampling, options.sequences, options.steps))
        both = [a + b for a, b in zip(engine, server, strict=True)]
        columns = "  ".join(
            f"{label} {micros(times, statistics.median)} ({micros(times, lambda t: statistics.quantiles(t, n=20)[-1])})"
            for label, times in (("engine", engine), ("server", server), ("both", both))
        )
        print(f"{name:10} {columns}")


if __name__ == "__main__":
    main()
