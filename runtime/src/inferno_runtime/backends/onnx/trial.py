"""Finds out by trying how a graph can be stepped through, or given several texts at once.

Exports do not say whether they go on behind a past with several tokens, or with several sequences of different lengths, and
some of them go on with wrong positions instead of failing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, ModelError, Span
from inferno_runtime.backends.onnx.encoder_graph import EncoderGraph
from inferno_runtime.backends.onnx.graph import DecoderGraph
from inferno_runtime.backends.onnx.stepping import Alignment, BlockStepper, RowStepper

# How far logits or vectors may differ, as a share of their length, where they should be the same: by the order in which they
# are summed, and by the scales that a quantised graph takes from whatever else is in the batch.
_TOLERANCES = {"F32": 1e-3, "F64": 1e-3, "F16": 0.02, "BF16": 0.05}
_COARSE = 0.15

Stepper = RowStepper | BlockStepper


def encodes_together(graph: EncoderGraph, vocabulary: int, quantization: str) -> bool:
    """Whether texts of different lengths are given the vectors that they have alone."""
    texts = [[(number * 31 + 7) % vocabulary for number in range(count)] for count in (7, 3, 5)]
    try:
        together = graph.encode(texts)
        alone = np.concatenate([graph.encode([text]) for text in texts])
    except BackendError:
        return False
    return _alike(together, alone, _TOLERANCES.get(quantization, _COARSE))


def choose(
    graph: DecoderGraph, model: Path, *, quantization: str, in_place: bool, slots: int, context: int
) -> tuple[Stepper, bool]:
    """The fastest way that gives the logits of a text evaluated whole, and whether sequences go together in it.

    model: for messages; in_place: whether the graph may be given rows; slots, context: that the stepper is made for.
    Raises `ModelError` for a graph that does not even go on by one token.
    """
    trial = _Trial(graph, model, _TOLERANCES.get(quantization, _COARSE))
    if in_place and trial.passes(partial(RowStepper, graph, 2, len(trial.tokens))):
        return RowStepper(graph, slots, context), True
    pieces = trial.goes_on(partial(BlockStepper, graph, None, pieces=True))
    if not pieces and not trial.goes_on(partial(BlockStepper, graph, None, pieces=False)) and trial.tolerance < _COARSE:
        raise ModelError(f"{model}: behind 'past_key_values.*' tokens get other logits than all at once")
    if pieces and graph.masked:
        ways: tuple[Alignment, ...] = ("right", "left")
        for way in ways:
            if trial.goes_together(partial(BlockStepper, graph, way, pieces=True)):
                return BlockStepper(graph, way, pieces=True), True
    return BlockStepper(graph, None, pieces=pieces), False


class _Trial:
    def __init__(self, graph: DecoderGraph, model: Path, tolerance: float) -> None:
        self.tolerance = tolerance
        self.tokens = [(number * 31 + 7) % graph.vocabulary for number in range(7)]
        whole = BlockStepper(graph, None, pieces=True)
        try:
            self._whole, self._shorter = (
                whole.evaluate([Span(slot, 0, self.tokens[:count], 1)])[0].copy() for slot, count in enumerate((7, 6))
            )
        except BackendError as error:
            raise ModelError(f"{model}: {error}") from None
        if not np.isfinite(self._whole).any():
            raise ModelError(f"{model}: output 'logits' is not a number")

    def passes(self, make: Callable[[], Stepper]) -> bool:
        """Both of what follows."""
        return self.goes_on(make) and self.goes_together(make)

    def goes_on(self, make: Callable[[], Stepper]) -> bool:
        """With several tokens behind a past."""
        rows = _evaluate(make(), [Span(0, 0, self.tokens[:3], 0)], [Span(0, 3, self.tokens[3:], 1)])
        return rows is not None and _alike(rows[0], self._whole, self.tolerance)

    def goes_together(self, make: Callable[[], Stepper]) -> bool:
        """With sequences of different lengths, a hole, and different numbers of tokens: all that there is to a batch."""
        tokens, stepper = self.tokens, make()
        begun = _evaluate(stepper, [Span(0, 0, tokens[:4], 0)], [Span(1, 0, [*tokens[:2], tokens[5]], 0)])
        if begun is None:
            return False
        stepper.cache.cut(1, 2)
        rows = _evaluate(
            stepper,
            [Span(0, 4, tokens[4:5], 1), Span(1, 2, tokens[2:4], 1)],
            [Span(0, 5, tokens[5:6], 1), Span(1, 4, tokens[4:5], 1)],
            [Span(0, 6, tokens[6:7], 1), Span(1, 5, tokens[5:6], 1)],
        )
        return (
            rows is not None
            and _alike(rows[0], self._whole, self.tolerance)
            and _alike(rows[1], self._shorter, self.tolerance)
        )


def _alike(one: NDArray[np.float32], other: NDArray[np.float32], tolerance: float) -> bool:
    finite = np.isfinite(other)  # graphs may rule tokens out
    with np.errstate(all="ignore"):
        difference, length = np.linalg.norm((one - other)[finite]), np.linalg.norm(other[finite])
    return bool(difference <= tolerance * length)


def _evaluate(stepper: Stepper, *steps: Sequence[Span]) -> NDArray[np.float32] | None:
    """The logits of the last step; None if one of them fails."""
    rows = None
    try:
        for spans in steps:
            rows = stepper.evaluate(spans).copy()
    except BackendError:
        return None
    return rows
