"""From what the engine asks for to runs of the graph: over blocks that are copied from step to step, or rows in place."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import Span
from inferno_runtime.backends.onnx.cache import Block, Cache
from inferno_runtime.backends.onnx.graph import DecoderGraph
from inferno_runtime.backends.onnx.rows import Rows, columns, runs

Alignment = Literal["right", "left"]  # of the sequences of a batch; see `cache`
Logits = NDArray[np.float32]


class RowStepper:
    """Steps of a graph that keeps its cache where it is."""

    def __init__(self, graph: DecoderGraph, slots: int, context: int) -> None:
        """context: most cells of a slot."""
        self.cache = Rows(graph.planes, slots, context)
        self._graph = graph

    def columns(self, slots: Sequence[int]) -> int:
        """As `Backend.columns` says."""
        return columns(slots)

    def evaluate(self, spans: Sequence[Span]) -> Logits:
        """As `Backend.evaluate` does, for spans that fit."""
        planned = runs(spans, self.cache.full())
        if len(planned) == 1 and len(spans) == planned[0].count and planned[0].spans == tuple(range(len(spans))):
            wanted = {span.logits for span in spans}
            if len(wanted) == 1:  # what a step of decoding is: nothing has to be put in order
                logits = self._run(spans, planned[0].spans)
                return logits[:, logits.shape[1] - wanted.pop() :].reshape(-1, logits.shape[2])
        parts: dict[int, Logits] = {}
        for run in planned:
            logits = self._run(spans, run.spans)
            kept = logits.shape[1]
            for index in run.spans:
                row = logits[spans[index].slot - run.first]
                parts[index] = row[kept - spans[index].logits :].copy()  # the next run writes to the same place
        return np.concatenate([parts[index] for index in range(len(spans))])

    def _run(self, spans: Sequence[Span], chosen: Sequence[int]) -> Logits:
        own = [spans[index] for index in chosen]
        first, by = own[0].slot, len(own[0].tokens)
        tokens = np.zeros((own[-1].slot - first + 1, by), dtype=np.int64)
        for span in own:
            tokens[span.slot - first] = span.tokens
        if self._graph.last_only and own[0].logits > 1:
            return np.concatenate(
                [self._step(first, tokens[:, at : at + 1], own, 1).copy() for at in range(by)], axis=1
            )
        return self._step(first, tokens, own, max(span.logits for span in own))

    def _step(self, first: int, tokens: NDArray[np.int64], own: Sequence[Span], wanted: int) -> Logits:
        logits = self._graph.run_rows(self.cache, first, tokens, wanted)
        for span in own:
            self.cache.extend(span.slot, tokens.shape[1])
        return logits


class BlockStepper:
    """Steps of any other graph."""

    def __init__(self, graph: DecoderGraph, aligned: Alignment | None, *, pieces: bool) -> None:
        """aligned: how sequences of different lengths go together, None if they do not; pieces: whether the graph goes on
        behind a past with several tokens."""
        self.cache = Cache(graph.planes, left=aligned == "left")
        self._graph = graph
        self._aligned = aligned
        self._pieces = pieces

    def columns(self, slots: Sequence[int]) -> int:
        """As `Backend.columns` says: every batch is put together anew."""
        return len(slots)

    def evaluate(self, spans: Sequence[Span]) -> Logits:
        """As `Backend.evaluate` does, for spans that fit."""
        together = [index for index, span in enumerate(spans) if self._fits_batch(span)]
        if len(together) < 2 or len({span.slot for span in spans}) < len(spans):
            together = []
        if len(together) == len(spans):
            return self._evaluate_together(spans)
        if len(spans) == 1:
            return self._evaluate_alone(spans[0])
        parts: dict[int, Logits] = {}
        if together:
            logits = self._evaluate_together([spans[index] for index in together]).copy()
            ends = np.cumsum([spans[index].logits for index in together])
            parts = dict(zip(together, np.split(logits, ends[:-1]), strict=True))
        for index, span in enumerate(spans):
            if index not in parts:
                parts[index] = self._evaluate_alone(span).copy()  # the next run writes to the same place
        return np.concatenate([parts[index] for index in range(len(spans))])

    def _fits_batch(self, span: Span) -> bool:
        """Whether a span may be evaluated beside others; a slot without cells would see nothing but padding."""
        if self._aligned is None or not span.start or (self._graph.last_only and span.logits > 1):
            return False
        return self._aligned == "right" or len(span.tokens) == 1

    def _evaluate_together(self, spans: Sequence[Span]) -> Logits:
        block, rows = self.cache.together([span.slot for span in spans])
        by = max(len(span.tokens) for span in spans)
        tokens = np.zeros((len(block.slots), by), dtype=np.int64)
        starts, counts = [0] * len(tokens), [0] * len(tokens)
        for span, row in zip(spans, rows, strict=True):
            tokens[row, by - len(span.tokens) :] = span.tokens
            starts[row], counts[row] = span.start, len(span.tokens)
        logits = self._graph.run(block, tokens, starts, counts, max(span.logits for span in spans))
        if by == 1 and rows == list(range(len(tokens))) and all(span.logits for span in spans):
            return logits[:, -1]
        kept = logits.shape[1]
        return np.concatenate([logits[row, kept - span.logits :] for span, row in zip(spans, rows, strict=True)])

    def _evaluate_alone(self, span: Span) -> Logits:
        block = self.cache.alone(span.slot, dense=self._aligned != "right")
        in_one = (self._pieces or not span.start) and not (self._graph.last_only and span.logits > 1)
        if in_one or len(span.tokens) == 1:
            return self._run_alone(block, span.start, span.tokens, span.logits)
        rows = []
        for number, token in enumerate(span.tokens):
            wanted = number >= len(span.tokens) - span.logits
            rows.append(self._run_alone(block, span.start + number, [token], int(wanted)).copy())
        return np.concatenate(rows)

    def _run_alone(self, block: Block, start: int, tokens: Sequence[int], wanted: int) -> Logits:
        logits: Logits = self._graph.run(block, np.array([tokens], dtype=np.int64), [start], [len(tokens)], wanted)[0]
        return logits[len(logits) - wanted :]
