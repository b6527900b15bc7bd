"""An ONNX decoder on onnxruntime: sequences of different lengths decode together, on a cache that stays where it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, MemoryTraits, ModelError, OutOfMemory, Saved, Span
from inferno_runtime.backends.onnx.cache import Block, Cache
from inferno_runtime.backends.onnx.graph import DecoderGraph
from inferno_runtime.backends.onnx.pieces import vocabulary
from inferno_runtime.backends.onnx.session import Session, model_info
from inferno_runtime.backends.onnx.vocabulary import logit_count, read_spec
from inferno_runtime.config import EngineConfig
from inferno_runtime.memory import memory_available
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.onnx import Description, describe

_DEFAULT_CONTEXT = 8192  # tokens
_DEFAULT_MICRO_BATCH = 512  # tokens
_LOGITS_BYTES = 64 << 20  # that a piece of a prompt may take: a graph gives logits for each of its tokens
_SPARE_LOGITS = 32  # rows beside one for each slot, for drafts
_LEAST_CELLS = 64  # that there must be memory for
# How far logits may differ, as a share of their length, where they should be the same: by the order in which they are
# summed, and by the scales that a quantised graph takes from whatever else is in the batch.
_TOLERANCES = {"F32": 1e-3, "F64": 1e-3, "F16": 0.02, "BF16": 0.05}
_COARSE = 0.15

Alignment = Literal["right", "left"]  # of the sequences of a batch; see `cache`


class OnnxBackend:
    """`Backend` over onnxruntime."""

    def __init__(self, path: Path, config: EngineConfig) -> None:
        """Load the model, and find out what its graph can do. Raises `ModelError`."""
        layout = Layout.find(path)
        description = describe(layout.model)
        session = Session(layout, config)
        self._model = layout.model
        self._graph = DecoderGraph(layout, session)
        self._cache = Cache(self._graph.planes)
        self._check_cells()
        self._check_vocabulary(layout, description)
        self.info = model_info(
            layout, description, task="generate", context=layout.positions, vocabulary=self._graph.vocabulary
        )
        self.slots = config.slots
        self.context = self._choose_context(config)
        self._unified = config.kv_layout == "unified"
        self.cells = self.context if self._unified else self.context * self.slots
        fitting = _LOGITS_BYTES // (4 * self.info.vocab_size)
        self.max_batch = max(config.micro_batch or min(_DEFAULT_MICRO_BATCH, fitting), self.slots)
        self.max_logits = min(self.slots + _SPARE_LOGITS, self.max_batch)
        self.threads = 0  # as many as the session was opened with
        self.settings = session.settings
        self.memory = MemoryTraits(
            copy=True,
            cut=True,
            save=True,
            shift=False,
            shared=self._unified,
            dense=False,
            cell_bytes=self._cache.cell_bytes,
        )
        self._pieces = True
        self._aligned: Alignment | None = None
        self._learn(_TOLERANCES.get(description.quantization, _COARSE))
        self.description = session.description
        if not self._aligned:
            self.description += ", one sequence at a time, since the graph gives others their own positions only so"

    def evaluate(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        count = sum(len(span.tokens) for span in spans)
        if self._unified and self._cache.used + count > self.cells:
            raise OutOfMemory("the pool is full")
        for span in spans:
            self._check(span)
        together = [index for index, span in enumerate(spans) if self._fits_batch(span)]
        if len(together) < 2 or len({span.slot for span in spans}) < len(spans):
            together = []
        if len(together) == len(spans):
            return self._evaluate_together(spans)
        if len(spans) == 1:
            return self._evaluate_alone(spans[0])
        parts: dict[int, NDArray[np.float32]] = {}
        if together:
            logits = self._evaluate_together([spans[index] for index in together]).copy()
            ends = np.cumsum([spans[index].logits for index in together])
            parts = dict(zip(together, np.split(logits, ends[:-1]), strict=True))
        for index, span in enumerate(spans):
            if index not in parts:
                parts[index] = self._evaluate_alone(span).copy()  # the next run writes to the same place
        return np.concatenate([parts[index] for index in range(len(spans))])

    def clear(self, slot: int) -> None:
        self._cache.clear(slot)

    def cut(self, slot: int, length: int) -> None:
        self._cache.cut(slot, length)

    def copy(self, source: int, target: int) -> bool:
        data = self._cache.save(source)
        self._cache.clear(target)
        return data is None or self.restore(target, data)

    def save(self, slot: int) -> Saved | None:
        return self._cache.save(slot)

    def restore(self, slot: int, data: Saved) -> bool:
        self._cache.clear(slot)
        if self._unified and self._cache.used + len(data) // self._cache.cell_bytes > self.cells:
            return False
        self._cache.restore(slot, data)
        return True

    def set_threads(self, count: int) -> None:
        """Their number is fixed when a session is opened."""

    def close(self) -> None:
        del self._graph, self._cache

    def _check(self, span: Span) -> None:
        if span.start != (held := self._cache.length(span.slot)):
            raise BackendError(f"slot {span.slot} holds {held} cells, not {span.start}")
        if span.start + len(span.tokens) > self.context:
            raise BackendError(f"slot {span.slot} has no room for {len(span.tokens)} tokens behind {held}")

    def _fits_batch(self, span: Span) -> bool:
        """Whether a span may be evaluated beside others; a slot without cells would see nothing but padding."""
        if self._aligned is None or not span.start or (self._graph.last_only and span.logits > 1):
            return False
        return self._aligned == "right" or len(span.tokens) == 1

    def _evaluate_together(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        block, rows = self._cache.together([span.slot for span in spans])
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

    def _evaluate_alone(self, span: Span) -> NDArray[np.float32]:
        block = self._cache.alone(span.slot, dense=self._aligned != "right")
        in_one = (self._pieces or not span.start) and not (self._graph.last_only and span.logits > 1)
        if in_one or len(span.tokens) == 1:
            return self._run_alone(block, span.start, span.tokens, span.logits)
        rows = []
        for number, token in enumerate(span.tokens):
            wanted = number >= len(span.tokens) - span.logits
            rows.append(self._run_alone(block, span.start + number, [token], int(wanted)).copy())
        return np.concatenate(rows)

    def _run_alone(self, block: Block, start: int, tokens: Sequence[int], wanted: int) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._graph.run(
            block, np.array([tokens], dtype=np.int64), [start], [len(tokens)], wanted
        )[0]
        return logits[len(logits) - wanted :]

    def _choose_context(self, config: EngineConfig) -> int:
        trained, asked = self.info.context_train, config.context_length
        if asked and trained and asked > trained:
            # Positions are a table in many graphs, and there is nothing behind its end.
            raise ModelError(f"{self._model}: contextLength is {asked}, and the model has only {trained} positions")
        return asked or min(trained or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)

    def _check_cells(self) -> None:
        """Refuse a cache whose claimed shape no memory could hold."""
        needed, left = self._cache.cell_bytes * _LEAST_CELLS, memory_available()
        if needed > left:
            plane = max(self._graph.planes, key=lambda plane: plane.cell_bytes)
            raise ModelError(
                f"{self._model}: input '{plane.past[0]}' and its like have {plane.heads} heads of {plane.size} numbers: "
                f"{_LEAST_CELLS} tokens would take {needed >> 20} MiB, and {left >> 20} MiB are left"
            )

    def _check_vocabulary(self, layout: Layout, description: Description) -> None:
        """The tokenizer must know no token that the model does not, nor may the model say any that it cannot be known for."""
        size, last = self._graph.vocabulary, max(vocabulary(read_spec(layout.tokenizer)), default=0)
        if last >= size:
            raise ModelError(
                f"{layout.tokenizer}: it has a token {last}, and the model's output 'logits' has only {size} of them"
            )
        if size > max(last + 1, logit_count(layout, description)):
            raise ModelError(f"{self._model}: output 'logits' has {size} tokens; say so as vocab_size in config.json")

    def _learn(self, tolerance: float) -> None:
        """Find out by trying whether the graph goes on behind a past with several tokens, and with several sequences.

        Exports do not say, and some of them go on with wrong positions instead of failing.
        """
        tokens = [(number * 31 + 7) % self.info.vocab_size for number in range(7)]
        whole, shorter = (self._try([Span(0, 0, tokens[:count], 1)], fresh=True)[0] for count in (7, 6))
        if not np.isfinite(whole).any():
            raise ModelError(f"{self._model}: output 'logits' is not a number")

        def alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
            finite = np.isfinite(other)  # graphs may rule tokens out
            with np.errstate(all="ignore"):
                difference, length = np.linalg.norm((one - other)[finite]), np.linalg.norm(other[finite])
            return bool(difference <= tolerance * length)

        def goes_on() -> bool:
            self._try([Span(0, 0, tokens[:3], 0)], fresh=True)
            return alike(self._try([Span(0, 3, tokens[3:], 1)])[0], whole)

        def goes_together() -> bool:
            """With sequences of different lengths, a hole, and different numbers of tokens: all that there is to a batch."""
            try:
                self._try([Span(0, 0, tokens[:4], 0)], fresh=True)
                self._try([Span(1, 0, [*tokens[:2], tokens[5]], 0)])
                self._cache.cut(1, 2)
                self._try([Span(0, 4, tokens[4:5], 1), Span(1, 2, tokens[2:4], 1)])
                self._try([Span(0, 5, tokens[5:6], 1), Span(1, 4, tokens[4:5], 1)])
                rows = self._try([Span(0, 6, tokens[6:7], 1), Span(1, 5, tokens[5:6], 1)])
            except ModelError:
                return False
            return alike(rows[0], whole) and alike(rows[1], shorter)

        if not goes_on():
            self._pieces = False
            if not goes_on() and tolerance < _COARSE:
                raise ModelError(f"{self._model}: behind 'past_key_values.*' tokens get other logits than all at once")
        if self._pieces and self._graph.masked:
            self._aligned = "right"
            if not goes_together():
                self._aligned = "left"
                if not goes_together():
                    self._aligned = None
        self._empty()

    def _empty(self) -> None:
        self._cache = Cache(self._graph.planes, left=self._aligned == "left")

    def _try(self, spans: Sequence[Span], *, fresh: bool = False) -> NDArray[np.float32]:
        """fresh: on an empty cache."""
        if fresh:
            self._empty()
        try:
            return self.evaluate(spans).copy()
        except BackendError as error:
            raise ModelError(f"{self._model}: {error}") from None
