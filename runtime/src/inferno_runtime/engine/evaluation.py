"""Evaluates batches and learns what they cost: the piece sizes and the number of threads follow from it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import Backend, Span
from inferno_runtime.engine.cost import LEAST_PIECE, PrefillCost
from inferno_runtime.engine.threads import Kind, ThreadGovernor

_SMOOTHING = 0.2  # weight of the newest measurement


class Evaluator:
    """A backend, with a memory for what its batches took."""

    def __init__(self, backend: Backend, clock: Callable[[], float], governor: ThreadGovernor | None = None) -> None:
        """clock: seconds, monotonic; governor: says how many threads evaluate, None if their number is fixed."""
        self._backend = backend
        self._clock = clock
        self._governor = governor
        self.prefill_cost = PrefillCost()
        self.decode_seconds = 0.0  # of a batch, smoothed
        self.last_seconds = 0.0  # of the latest batch
        self.typical = (
            True  # whether it says what others of its kind will take, and was no trial of more or fewer threads
        )

    def decode(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        """Evaluate the next tokens of running sequences. Raises as `Backend.evaluate` does."""
        logits = self._timed("decode", spans)
        if self.typical:
            self.decode_seconds += _SMOOTHING * (self.last_seconds - self.decode_seconds)
        return logits

    def prefill(self, span: Span) -> NDArray[np.float32]:
        """Evaluate a piece of a prompt. Raises as `Backend.evaluate` does."""
        logits = self._timed("prefill", [span])
        if self.typical and len(span.tokens) >= LEAST_PIECE and span.logits <= 1:
            self.prefill_cost.observe(len(span.tokens), span.start, self.last_seconds)
        return logits

    def _timed(self, kind: Kind, spans: Sequence[Span]) -> NDArray[np.float32]:
        governor, backend = self._governor, self._backend
        if governor is not None and (threads := governor.threads(kind)) != backend.threads:
            backend.set_threads(threads)
        began = self._clock()
        logits = backend.evaluate(spans)
        self.last_seconds = self._clock() - began
        if governor is not None:
            self.typical = backend.threads == governor.settled(kind)
            tokens = sum(len(span.tokens) for span in spans)
            depth = sum(span.start for span in spans) // len(spans)
            governor.observe(kind, tokens, depth, self.last_seconds, backend.threads)
        return logits
