"""A graph that makes vectors or scores of texts: which of its inputs and outputs are what, and a run of it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, ModelError
from inferno_runtime.backends.onnx.pooling import pool, stated_pooling
from inferno_runtime.backends.onnx.session import Node, Session
from inferno_runtime.config import Task
from inferno_runtime.models.layout import Layout

_INPUTS = frozenset({"input_ids", "attention_mask", "position_ids", "token_type_ids"})
_POOLED = ("sentence_embedding", "text_embeds", "pooled_embeddings")
_STATES = ("token_embeddings", "last_hidden_state", "hidden_states")
_KNOWN_MODULES = frozenset({"Transformer", "Pooling", "Normalize"})


class EncoderGraph:
    """Runs a session over texts, put together as rows with padding on their right."""

    def __init__(self, layout: Layout, session: Session, task: Task, pooling: str | None, last_token: int) -> None:
        """pooling: what is asked for in place of what the model states; last_token: the tokenizer's, which must be one of
        the model's. Raises `ModelError`."""
        self._layout = layout
        self.session = session
        self._feeds = self._choose_inputs()
        self._output, self._pooled = ("logits", True) if task == "rerank" else self._choose_output()
        self._pooling = (pooling,) if pooling else stated_pooling(layout) or ("mean",)
        if task == "rerank":
            self._check_head()
        self.dimensions = self._try_out(last_token)
        if task == "rerank" and self.dimensions != 1:
            raise ModelError(f"{layout.model}: a classifier of {self.dimensions} labels; a reranker has one")

    def encode(self, sequences: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> NDArray[np.float32]:
        """The vector of each sequence, shape (sequences, dimensions). seconds: as in `Encoder.encode`.

        Raises `OutOfMemory` or `BackendError`.
        """
        counts = np.array([len(tokens) for tokens in sequences])
        ids = np.zeros((len(sequences), counts.max()), dtype=np.int64)
        for row, tokens in zip(ids, sequences, strict=True):
            row[: len(tokens)] = tokens
        feeds = {node.name: self._feed(node, ids, counts, seconds) for node in self._feeds}
        (values,) = self.session.run([self._output], feeds)
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
            case "token_type_ids":
                value = np.zeros(ids.shape if len(node.shape) == 2 else len(ids), dtype=np.int64)
            case _:  # a decoder's cache, which has nothing in it
                _, heads, _, size = node.shape
                value = np.empty((len(ids), heads or 1, 0, size or 1))
        return value.astype(node.type, copy=False)

    def _choose_inputs(self) -> list[Node]:
        inputs = self.session.inputs
        if "input_ids" not in inputs:
            raise ModelError(f"{self._layout.model}: it has no input 'input_ids', only {_list(inputs)}")
        for name, node in inputs.items():
            cache = name.startswith("past_key_values.") and len(node.shape) == 4 and node.shape[1] and node.shape[3]
            if name not in _INPUTS and not cache:
                raise ModelError(f"{self._layout.model}: nothing is known here to fill its input '{name}' with")
        return list(inputs.values())

    def _choose_output(self) -> tuple[str, bool]:
        """The output to take vectors from, and whether it has one for each text rather than for each token."""
        outputs = self.session.outputs
        for rank, names in ((2, _POOLED), (3, _STATES)):
            for name in names:
                if name in outputs and len(outputs[name].shape) == rank:
                    self._check_modules(pooled=rank == 2)
                    return name, rank == 2
        raise ModelError(
            f"{self._layout.model}: it has none of the outputs {_list([*_POOLED, *_STATES])} that a vector could be made of, "
            f"only {_list(outputs)}"
        )

    def _check_head(self) -> None:
        node = self.session.outputs.get("logits")
        if node is None or len(node.shape) != 2:
            raise ModelError(
                f"{self._layout.model}: not a reranker: it has no output 'logits' with a score for each text"
            )

    def _check_modules(self, *, pooled: bool) -> None:
        """Refuse a model with more behind its states than is done here: its vectors would be others."""
        for name in self._layout.modules:
            if name not in _KNOWN_MODULES and not pooled:
                raise ModelError(
                    f"{self._layout.path('modules.json')}: the module {name} is not supported; "
                    "export the model with an output 'sentence_embedding'"
                )

    def _try_out(self, last_token: int) -> int:
        """Encode the tokenizer's last token. Returns the dimensions of a vector."""
        try:
            (vector,) = self.encode([[0, last_token]])
        except BackendError as error:
            raise ModelError(
                f"{self._layout.model}: it cannot be given tokens 0 and {last_token}, the last of "
                f"{self._layout.tokenizer.name}, in 'input_ids': {error}"
            ) from None
        except ValueError as error:
            raise ModelError(f"{self._layout.model}: output '{self._output}': {error}") from None
        return len(vector)


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in list(names)[:8])
