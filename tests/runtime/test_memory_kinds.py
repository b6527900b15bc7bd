"""Every kind of model memory gives the text that a sequential run gives, whatever the engine reuses, moves and preempts.

The engine runs in this process over the real backend. What it says under load is given to a fresh backend, prompt by
prompt: each token must be the likeliest there too, or as good as that. The shape of a batch changes the order in which
floats are summed, so where two tokens are equally likely either may come.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inferno_runtime.backends import load_backend
from inferno_runtime.backends.base import Span
from inferno_runtime.config import EngineConfig
from inferno_runtime.engine.request import FinishReason, Request, Sampling
from inferno_runtime.engine.scheduler import Scheduler
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime.random_models import recurrent, sliding_window

GREEDY = Sampling(temperature=0.0)
ANSWER = 12
TOLERANCE = 0.05  # of logits whose largest are about 10


def built_in(_: Path) -> Path:
    return DEFAULT_MODEL


def prompts() -> list[list[int]]:
    """Prompts that share beginnings, repeat one another, and go on where others stop."""
    rng = random.Random(5)
    words = [rng.randrange(10, 1700) for _ in range(200)]
    fresh = [[rng.randrange(10, 1700) for _ in range(rng.randrange(1, 60))] for _ in range(4)]
    shared = [[*words[: rng.randrange(40, 200)], rng.randrange(10, 1700)] for _ in range(8)]
    return [*shared, *fresh, *shared[:3], *([*prompt, 11, 12, 13] for prompt in shared[:3])]


def run(scheduler: Scheduler, work: list[list[int]], first_id: int = 0) -> list[list[int]]:
    """What the model says to each prompt when all are asked together."""
    said: list[list[int]] = [[] for _ in work]
    for number, prompt in enumerate(work):
        scheduler.submit(Request(first_id + number, prompt, ANSWER, GREEDY, ignore_eos=True))
    while scheduler.busy:
        result = scheduler.step()
        for request_id, token in zip(result.ids, result.tokens, strict=True):
            said[request_id - first_id].append(token)
        assert all(finished.reason is FinishReason.LENGTH for finished in result.finished), result.finished
    return said


def shortfall(path: Path, prompt: list[int], said: list[int]) -> float:
    """By how much the logit of a token that was said is less than the largest one, at worst, in a run of its own."""
    backend = load_backend(str(path), EngineConfig(threads=1, slots=1, context_length=256))
    try:
        tokens = prompt + said[:-1]
        logits = backend.evaluate([Span(0, 0, tokens[: len(prompt)], logits=1)]).copy()
        worst = float(logits[0].max() - logits[0, said[0]])
        for position, token in enumerate(said[1:], start=len(prompt)):
            (row,) = backend.evaluate([Span(0, position, [tokens[position]], logits=1)])
            worst = max(worst, float(row.max() - row[token]))
        return worst
    finally:
        backend.close()


def scheduler(path: Path, **engine: object) -> Scheduler:
    backend = load_backend(str(path), EngineConfig(threads=1, **engine))  # type: ignore[arg-type]
    return Scheduler(backend, end_tokens=[], step_budget=0.01, clock=time.monotonic, store_bytes=1 << 24)


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("make", [built_in, recurrent, sliding_window], ids=lambda make: make.__name__)
def test_text_under_load_is_the_text_alone(make: Callable[[Path], Path], layout: str, tmp_path: Path) -> None:
    path = make(tmp_path / "model.gguf")
    work = prompts()
    loaded = scheduler(path, slots=3, context_length=256 if layout == "streams" else 512, kv_layout=layout)
    together = run(loaded, work)
    again = run(loaded, work, first_id=1000)
    for prompt, first, second in zip(work, together, again, strict=True):
        for said in (first, second):
            assert shortfall(path, prompt, said) <= TOLERANCE
