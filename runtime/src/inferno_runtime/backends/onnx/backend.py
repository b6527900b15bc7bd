"""An ONNX decoder on onnxruntime: sequences of different lengths decode together, on a cache that stays where it is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, MemoryTraits, ModelError, OutOfMemory, Saved, Span
from inferno_runtime.backends.onnx.fusion import prepare
from inferno_runtime.backends.onnx.graph import DecoderGraph
from inferno_runtime.backends.onnx.pieces import vocabulary
from inferno_runtime.backends.onnx.session import Session, model_info
from inferno_runtime.backends.onnx.trial import choose
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


class OnnxBackend:
    """`Backend` over onnxruntime."""

    def __init__(self, path: Path, config: EngineConfig) -> None:
        """Load the model, and find out what its graph can do. Raises `ModelError`."""
        layout = Layout.find(path)
        description = describe(layout.model)
        self._model = layout.model
        self._positions = layout.positions
        self.context = self._choose_context(config)
        prepared = prepare(layout, config, self.context)
        session = Session(layout, config, prepared.graph)
        self._graph = DecoderGraph(layout, session)
        self._check_cells()
        self._check_vocabulary(layout, description)
        self.info = model_info(
            layout, description, task="generate", context=layout.positions, vocabulary=self._graph.vocabulary
        )
        self.vision = None
        self.slots = config.slots
        self._unified = config.kv_layout == "unified"
        self.cells = self.context if self._unified else self.context * self.slots
        fitting = _LOGITS_BYTES // (4 * self.info.vocab_size)
        self.max_batch = max(config.micro_batch or min(_DEFAULT_MICRO_BATCH, fitting), self.slots)
        self.max_logits = min(self.slots + _SPARE_LOGITS, self.max_batch)
        self._stepper, together = choose(
            self._graph,
            layout.model,
            quantization=description.quantization,
            in_place=prepared.in_place and not self._unified,  # a pool is for a few that are long, and rows are for all
            slots=self.slots,
            context=self.context,
        )
        self._cache = self._stepper.cache
        self.threads = 0  # as many as the session was opened with
        self.settings = session.settings | {"fused": bool(prepared.graph)}
        self.memory = MemoryTraits(
            copy=True,
            cut=True,
            save=True,
            shift=False,
            shared=self._unified,
            cell_bytes=self._cache.cell_bytes,
        )
        self.description = session.description
        if prepared.graph:
            self.description += ", attention fused"
        if not together:
            self.description += ", one sequence at a time, since the graph gives others their own positions only so"

    def evaluate(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        count = sum(len(span.tokens) for span in spans)
        if self._unified and self._cache.used + count > self.cells:
            raise OutOfMemory("the pool is full")
        for span in spans:
            self._check(span)
        return self._stepper.evaluate(spans)

    def columns(self, slots: Sequence[int]) -> int:
        return self._stepper.columns(slots)

    def clear(self, slot: int) -> None:
        self._cache.clear(slot)

    def cut(self, slot: int, length: int) -> None:
        self._cache.cut(slot, length)

    def copy(self, source: int, target: int) -> bool:
        more = self._cache.length(source) - self._cache.length(target)
        if self._unified and self._cache.used + more > self.cells:
            return False
        self._cache.copy(source, target)
        return True

    def save(self, slot: int) -> Saved | None:
        return self._cache.save(slot)

    def restore(self, slot: int, data: Saved) -> bool:
        self._cache.clear(slot)
        if self._unified and self._cache.used + len(data) // self._cache.cell_bytes > self.cells:
            return False
        try:
            self._cache.restore(slot, data)
        except OutOfMemory:
            return False
        return True

    def set_threads(self, count: int) -> None:
        """Their number is fixed when a session is opened."""

    def close(self) -> None:
        del self._graph, self._cache, self._stepper

    def _check(self, span: Span) -> None:
        if span.start != (held := self._cache.length(span.slot)):
            raise BackendError(f"slot {span.slot} holds {held} cells, not {span.start}")
        if span.start + len(span.tokens) > self.context:
            raise BackendError(f"slot {span.slot} has no room for {len(span.tokens)} tokens behind {held}")

    def _choose_context(self, config: EngineConfig) -> int:
        trained, asked = self._positions, config.context_length
        if asked and trained and asked > trained:
            # Positions are a table in many graphs, and there is nothing behind its end.
            raise ModelError(f"{self._model}: contextLength is {asked}, and the model has only {trained} positions")
        return asked or min(trained or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)

    def _check_cells(self) -> None:
        """Refuse a cache whose claimed shape no memory could hold."""
        cell_bytes = sum(plane.cell_bytes for plane in self._graph.planes)
        needed, left = cell_bytes * _LEAST_CELLS, memory_available()
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
