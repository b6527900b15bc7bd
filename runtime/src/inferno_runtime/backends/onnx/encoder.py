"""An ONNX model that turns texts into vectors, or pairs of them into scores.

Texts are sorted by length, and those of similar lengths are evaluated together.
"""

import math
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import ModelError
from inferno_runtime.backends.onnx.encoder_graph import EncoderGraph
from inferno_runtime.backends.onnx.pieces import vocabulary
from inferno_runtime.backends.onnx.rewriting import readable
from inferno_runtime.backends.onnx.session import Session, model_info
from inferno_runtime.backends.onnx.trial import encodes_together
from inferno_runtime.backends.onnx.unpadding import unpad
from inferno_runtime.backends.onnx.vocabulary import read_spec
from inferno_runtime.config import EngineConfig, Task
from inferno_runtime.memory import memory_available
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.onnx import describe

_DEFAULT_CONTEXT = 8192  # tokens
_MAX_BATCH = 2048  # tokens; the time that a batch may take ends it sooner
_PASS = 512  # tokens that are evaluated at once: the states of more do not fit into a core's cache
_PASS_COST = 16  # tokens that take as long as a pass does beside its tokens
_MAX_SEQUENCES = 256


class Padding(Enum):
    """What of a graph is given padding, and what each place of it costs beside a token."""

    ATTENTION = 0.15
    ALL = 1.0
    NOTHING = math.inf  # where it changes what is said of texts


_TOLD = {
    Padding.ATTENTION: ", without padding",
    Padding.ALL: "",
    Padding.NOTHING: ", texts of one length at a time, since the graph gives others other vectors only so",
}


class OnnxEncoder:
    """`Encoder` over onnxruntime."""

    def __init__(self, path: Path, config: EngineConfig, task: Task = "embed") -> None:
        """Load the model, and find out what its graph can do. Raises `ModelError`."""
        self._layout = layout = Layout.find(path)
        self._config, self._task = config, task
        self._description = description = describe(layout.model)
        tokens = vocabulary(read_spec(layout.tokenizer))
        self._last_token = max(tokens, default=0)
        self._graph, self._padding = self._choose_graph()
        self.context = self._choose_context()
        self._check_memory()
        self.max_batch = config.micro_batch or _MAX_BATCH
        self.max_sequences = min(_MAX_SEQUENCES, self.max_batch)
        self.threads = 0  # as many as the session was opened with
        self.settings = self._graph.session.settings | {"unpadded": self._padding is Padding.ATTENTION}
        self.description = self._graph.session.description + _TOLD[self._padding]
        self.info = model_info(
            layout,
            description,
            task=task,
            context=layout.positions,
            vocabulary=len(tokens),
            dimensions=self._graph.dimensions,
        )

    def encode(self, sequences: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> NDArray[np.float32]:
        vectors = np.empty((len(sequences), self.info.dimensions), dtype=np.float32)
        lengths = [len(tokens) for tokens in sequences]
        for batch in batches(lengths, min(_PASS, self.max_batch), self._padding):
            behind = [seconds[index] for index in batch] if seconds else []
            vectors[batch] = self._graph.encode([sequences[index] for index in batch], behind)
        return vectors

    def set_threads(self, count: int) -> None:
        """Their number is fixed when a session is opened."""

    def close(self) -> None:
        del self._graph

    def _choose_graph(self) -> tuple[EncoderGraph, Padding]:
        """The fastest that gives each text the vector that it has alone."""
        graph = self._without_padding()
        if graph is not None:
            return graph, Padding.ATTENTION
        graph = self._loaded(None)
        return graph, Padding.ALL if self._goes_together(graph) else Padding.NOTHING

    def _without_padding(self) -> EncoderGraph | None:
        model = readable(self._layout, self._config) if self._config.onnx_fusion == "auto" else None
        try:
            if model is None or not unpad(model):
                return None
            graph = self._loaded(model.SerializeToString())
            return graph if self._goes_together(graph) else None
        except Exception:  # of a graph that contradicts itself; what is said of the file itself is better
            return None

    def _loaded(self, model: bytes | None) -> EncoderGraph:
        """model: what there is to load instead of the file. Raises `ModelError`."""
        session = Session(self._layout, self._config, model)
        return EncoderGraph(self._layout, session, self._task, self._config.pooling, self._last_token)

    def _goes_together(self, graph: EncoderGraph) -> bool:
        return encodes_together(graph, self._last_token + 1, self._description.quantization)

    def _choose_context(self) -> int:
        positions, asked = self._layout.positions, self._config.context_length
        if asked and positions and asked > positions:
            raise ModelError(
                f"{self._layout.model}: contextLength is {asked}, and the model has only {positions} positions"
            )
        return asked or min(self._layout.window or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)

    def _check_memory(self) -> None:
        """Refuse a window that there is no memory for: attention takes its square, and only when such an input comes."""
        heads = self._layout.config.get("num_attention_heads")
        needed = 2 * 4 * self.context**2 * (heads if isinstance(heads, int) else 1)
        left = memory_available()
        if needed > left:
            raise ModelError(
                f"{self._layout.model}: an input of {self.context} tokens takes {needed >> 20} MiB beside the model, "
                f"and {left >> 20} MiB are left; set a smaller engine.contextLength"
            )


def batches(lengths: Sequence[int], most: int, padding: Padding) -> Iterator[list[int]]:
    """Cut texts into batches of similar length, by their numbers. most: tokens in a batch of several."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        places = len(batch) * lengths[index]
        # What fills up the others costs more than another pass does.
        if batch and (
            tokens + lengths[index] > most or (places > tokens and (places - tokens) * padding.value > _PASS_COST)
        ):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch
