"""An ONNX model that turns texts into vectors, or pairs of them into scores.

Sequences are sorted by length, into batches that hold little padding.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, ModelError
from inferno_runtime.backends.onnx.pieces import vocabulary
from inferno_runtime.backends.onnx.pooling import pool, stated_pooling
from inferno_runtime.backends.onnx.session import Node, Session, model_info
from inferno_runtime.backends.onnx.vocabulary import read_spec
from inferno_runtime.config import EngineConfig, Task
from inferno_runtime.memory import memory_available
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.onnx import describe

_DEFAULT_CONTEXT = 8192  # tokens
_MAX_BATCH = 2048  # tokens; the time that a batch may take ends it sooner
_PASS = 512  # tokens that are evaluated at once: the states of more do not fit into a core's cache
_MAX_SEQUENCES = 256
_PADDING = 0.125  # of a batch may be padding: more costs more than another pass over the weights
_SMALL = 128  # tokens of padding that any batch takes, for every pass has a cost of its own
_POOLED = ("sentence_embedding", "text_embeds", "pooled_embeddings")
_STATES = ("token_embeddings", "last_hidden_state", "hidden_states")
_KNOWN_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})


class OnnxEncoder:
    """`Encoder` over onnxruntime."""

    def __init__(self, path: Path, config: EngineConfig, task: Task = "embed") -> None:
        """Load the model. Raises `ModelError`."""
        self._layout = layout = Layout.find(path)
        description = describe(layout.model)
        self._session = session = Session(layout, config)
        self._feeds = self._choose_inputs()
        self._output, self._pooled = ("logits", True) if task == "rerank" else self._choose_output()
        self._pooling = self._choose_pooling(config)
        self.context = self._choose_context(config)
        self.max_batch = config.micro_batch or _MAX_BATCH
        self.max_sequences = min(_MAX_SEQUENCES, self.max_batch)
        self.threads = 0  # as many as the session was opened with
        self.description = session.description
        self.settings = session.settings
        self._check_memory()
        tokens = vocabulary(read_spec(layout.tokenizer))
        if task == "rerank":
            self._check_head()
        dimensions = self._try_out(max(tokens, default=0))
        if task == "rerank" and dimensions != 1:
            raise ModelError(f"{layout.model}: a classifier of {dimensions} labels; a reranker has one")
        self.info = model_info(
            layout,
            description,
            task=task,
            context=layout.positions,
            vocabulary=len(tokens),
            dimensions=dimensions,
        )

    def encode(self, sequences: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> NDArray[np.float32]:
        vectors = np.empty((len(sequences), self.info.dimensions), dtype=np.float32)
        for batch in batches([len(tokens) for tokens in sequences], min(_PASS, self.max_batch)):
            behind = [seconds[index] for index in batch] if seconds else []
            vectors[batch] = self._encode([sequences[index] for index in batch], behind)
        return vectors

    def set_threads(self, count: int) -> None:
        """Their number is fixed when a session is opened."""

    def close(self) -> None:
        del self._session

    def _encode(self, sequences: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> NDArray[np.float32]:
        counts = np.array([len(tokens) for tokens in sequences])
        ids = np.zeros((len(sequences), counts.max()), dtype=np.int64)
        for row, tokens in zip(ids, sequences, strict=True):
            row[: len(tokens)] = tokens
        (values,) = self._session.run(
            [self._output], {node.name: self._feed(node, ids, counts, seconds) for node in self._feeds}
        )
        values = values.astype(np.float32, copy=False)
        return values if self._pooled else pool(self._pooling, values, counts)

    def _feed(
        self, node: Node, ids: NDArray[np.int64], counts: NDArray[np.int64], seconds: Sequence[int]
    ) -> NDArray[Any]:
        """What an input is given for these texts."""
        places = np.arange(ids.shape[1])
        match node.name:
            case "input_ids":
                value: NDArray[Any] = ids
            case "attention_mask":
                value = places < counts[:, None]
            case "position_ids":
                value = np.broadcast_to(places, ids.shape)
            case "token_type_ids" if seconds:
                value = (places >= np.array(seconds)[:, None]) & (places < counts[:, None])
            case "token_type_ids" | "task_id":
                value = np.zeros(ids.shape if len(node.shape) == 2 else len(ids), dtype=np.int64)
            case _:  # a decoder's cache, which has nothing in it
                _, heads, _, size = node.shape
                value = np.empty((len(ids), heads or 1, 0, size or 1))
        return value.astype(node.type, copy=False)

    def _choose_inputs(self) -> list[Node]:
        known = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
        if "input_ids" not in self._session.inputs:
            raise ModelError(f"{self._layout.model}: it has no input 'input_ids', only {_list(self._session.inputs)}")
        for name, node in self._session.inputs.items():
            cache = name.startswith("past_key_values.") and len(node.shape) == 4 and node.shape[1] and node.shape[3]
            if name not in known and not cache:
                raise ModelError(f"{self._layout.model}: nothing is known here to fill its input '{name}' with")
        return list(self._session.inputs.values())

    def _choose_output(self) -> tuple[str, bool]:
        """The output to take vectors from, and whether it has one for each text rather than for each token."""
        outputs = self._session.outputs
        ranks = {2: [*_POOLED], 3: [*_STATES]}
        for rank, names in ranks.items():
            for name in names:
                if name in outputs and len(outputs[name].shape) == rank:
                    self._check_modules(pooled=rank == 2)
                    return name, rank == 2
        raise ModelError(
            f"{self._layout.model}: it has none of the outputs {_list([*_POOLED, *_STATES])} that a vector could be made of, "
            f"only {_list(outputs)}"
        )

    def _check_head(self) -> None:
        node = self._session.outputs.get("logits")
        if node is None or len(node.shape) != 2:
            raise ModelError(
                f"{self._layout.model}: not a reranker: it has no output 'logits' with a score for each text"
            )

    def _check_modules(self, *, pooled: bool) -> None:
        """Refuse a model with more behind its states than is done here: its vectors would be others."""
        for name in self._layout.modules:
            if name not in _KNOWN_MODULES and not pooled:
                raise ModelError(
                    f"{self._layout.path('modules.json')}: the module {name} is not supported; export the model with an output 'sentence_embedding'"
                )

    def _choose_pooling(self, config: EngineConfig) -> Sequence[str]:
        return (config.pooling,) if config.pooling else stated_pooling(self._layout) or ("mean",)

    def _choose_context(self, config: EngineConfig) -> int:
        positions, asked = self._layout.positions, config.context_length
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

    def _try_out(self, last_token: int) -> int:
        """Encode the tokenizer's last token, which must be one of the model's. Returns the dimensions of a vector."""
        try:
            (vector,) = self._encode([[0, last_token]])
        except BackendError as error:
            raise ModelError(
                f"{self._layout.model}: it cannot be given tokens 0 and {last_token}, the last of "
                f"{self._layout.tokenizer.name}, in 'input_ids': {error}"
            ) from None
        except ValueError as error:
            raise ModelError(f"{self._layout.model}: output '{self._output}': {error}") from None
        return len(vector)


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Cut texts into batches of similar length, by their numbers. most: tokens in a batch of several, padding included."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = (len(batch) + 1) * lengths[index]
        if batch and (padded > most or padded - tokens - lengths[index] > max(_PADDING * padded, _SMALL)):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def _list(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in list(names)[:8])
