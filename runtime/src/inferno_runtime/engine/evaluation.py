"""Evaluates batches and learns what they cost: the piece sizes and the number of threads follow from it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import Backend, Span
from inferno_runtime.engine.cost import PrefillCost

_LEAST_MEASURED = 16  # tokens; a smaller piece of a prompt says little about a larger one
_SMOOTHING = 0.2  # weight of the newest measurement


class Evaluator:
    """A backend, with a memory for what its batches took."""

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        """clock: seconds, monotonic."""
        self._backend = backend
        self._clock = clock
        self.prefill_cost = PrefillCost()
        self.decode_seconds = 0.0  # of a batch, smoothed
        self.last_seconds = 0.0  # of the latest batch

    def decode(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        """Evaluate the next tokens of running sequences. Raises as `Backend.evaluate` does."""
        logits = self._timed(spans)
        self.decode_seconds += _SMOOTHING * (self.last_seconds - self.decode_seconds)
        return logits

    def prefill(self, span: Span) -> NDArray[np.float32]:
        """Evaluate a piece of a prompt. Raises as `Backend.evaluate` does."""
        logits = self._timed([span])
        if len(span.tokens) >= _LEAST_MEASURED:
            self.prefill_cost.observe(len(span.tokens), span.start, self.last_seconds)
        return logits

    def _timed(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        began = self._clock()
        logits = self._backend.evaluate(spans)
        self.last_seconds = self._clock() - began
        return logits
