"""A scheduler on a fake backend and a virtual clock, with a record of what it said."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from inferno_runtime.backends.base import BackendError, Span
from inferno_runtime.backends.fake import FakeBackend, cell, successor
from inferno_runtime.engine.masking import Masker
from inferno_runtime.engine.request import Finished, Request, Sampling, Started
from inferno_runtime.engine.scheduler import Scheduler

GREEDY = Sampling(temperature=0)
END = 0  # the fake model never chooses it by itself


class Rig:
    """A scheduler, what it was asked and what it said."""

    def __init__(
        self,
        budget: float = 0.05,
        store_bytes: int = 0,
        speculate: bool = False,
        draft: dict[str, Any] | None = None,
        adapters: int = 0,
        **backend: Any,
    ) -> None:
        """draft: of a draft model, in what it differs from the model, which has the shape `backend`."""
        self.now = 0.0
        self.token_seconds = 0.001
        self.batch_seconds = 0.0
        self.calls: list[list[Span]] = []
        self.fail_slots: set[int] = set()
        self.failed = False  # whether a batch has
        self.draft_calls: list[list[Span]] = []
        self.draft_error: BackendError | None = None  # raised by the draft model
        self.draft_token_seconds = 0.0001
        self.backend = FakeBackend(on_evaluate=self._on_evaluate, **backend)
        self.draft = None if draft is None else FakeBackend(on_evaluate=self._on_draft, **{**backend, **draft})
        self.scheduler = Scheduler(
            self.backend,
            end_tokens=[END],
            step_budget=budget,
            clock=lambda: self.now,
            store_bytes=store_bytes,
            speculate=speculate,
            draft=self.draft,
            masker=Masker(
                [bytes([token]) if END < token < 256 else b"" for token in range(self.backend.info.vocab_size)], [END]
            ),
            adapters=adapters,
        )
        self.prompts: dict[int, tuple[list[int], int]] = {}
        self.said: dict[int, list[int]] = defaultdict(list)
        self.finished: dict[int, Finished] = {}
        self.started: dict[int, Started] = {}

    def _on_evaluate(self, spans: Sequence[Span]) -> None:
        self.calls.append(list(spans))
        self.now += self.batch_seconds + self.token_seconds * sum(len(span.tokens) for span in spans)
        if self.fail_slots & {span.slot for span in spans}:
            self.failed = True
            raise BackendError("broken")

    def _on_draft(self, spans: Sequence[Span]) -> None:
        self.draft_calls.append(list(spans))
        self.now += self.draft_token_seconds * sum(len(span.tokens) for span in spans)
        if self.draft_error is not None:
            raise self.draft_error

    @property
    def evaluated(self) -> int:
        """Tokens that the backend has evaluated."""
        return sum(len(span.tokens) for call in self.calls for span in call)

    def submit(self, request_id: int, prompt: list[int], max_tokens: int = 8, **options: Any) -> None:
        """Ask for a sequence, greedily."""
        self.prompts[request_id] = (prompt, max_tokens)
        self.scheduler.submit(Request(request_id, prompt, max_tokens, GREEDY, **options))

    def step(self) -> None:
        """One step, whose outcome must make sense."""
        result = self.scheduler.step()
        for started in result.started:
            assert started.id not in self.started, "started twice"
            self.started[started.id] = started
        for request_id, token in zip(result.ids, result.tokens, strict=True):
            assert request_id in self.started, "a token before the start"
            assert request_id not in self.finished, "a token after the end"
            self.said[request_id].append(token)
        for finished in result.finished:
            assert finished.id not in self.finished, "ended twice"
            self.finished[finished.id] = finished

    def steps(self, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            self.step()

    def run(self) -> None:
        """Steps until there is nothing left to do."""
        for _ in range(20_000):
            if not self.scheduler.busy:
                return
            self.step()
        raise AssertionError("the scheduler does not come to an end")


def successor_in_circles(tokens: Sequence[int], vocab_size: int) -> int:
    """A model that mostly repeats itself, and now and then does not."""
    return successor(tokens if len(tokens) % 11 == 0 else tokens[-2:], min(vocab_size, 8))


def expected(
    prompt: Sequence[int],
    count: int,
    vocab_size: int = 128,
    choose: Callable[[Sequence[int], int], int] = successor,
    adapter: int = 0,
) -> list[int]:
    """What the fake model says after `prompt`."""
    said: list[int] = []
    cells = [cell(token, adapter, vocab_size) for token in prompt]
    for _ in range(count):
        said.append(choose(cells, vocab_size))
        cells.append(cell(said[-1], adapter, vocab_size))
    return said
