"""A decoder's graph with a cache: which of its inputs and outputs are what, and a step through it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, ModelError
from inferno_runtime.backends.onnx.cache import Block, Plane
from inferno_runtime.backends.onnx.session import Node, Session, failure
from inferno_runtime.models.layout import PAST_INPUT, Layout

_PRESENT = re.compile(r"present\w*\.(\d+)\.(key|value)")
_KEPT = ("num_logits_to_keep", "logits_to_keep")
_BRANCH = "use_cache_branch"  # of optimum's merged graphs: whether there is a past
_PLAIN = ("input_ids", "attention_mask", "position_ids", _BRANCH, *_KEPT)
_HOW_TO_EXPORT = "export it with a cache (optimum's text-generation-with-past)"


class DecoderGraph:
    """Runs a session over the cells of a block."""

    def __init__(self, layout: Layout, session: Session) -> None:
        """Raises `ModelError`."""
        self._model = layout.model
        self._session = session
        self._inputs = session.inputs
        self.planes = self._find_planes(layout)
        self._check_inputs()
        self._kept = next((self._inputs[name] for name in _KEPT if name in self._inputs), None)
        self._type = np.dtype(session.outputs["logits"].type)
        self._binding = session.inner.io_binding()
        self._logits: NDArray[Any] = np.empty(0, dtype=self._type)
        self.vocabulary, self.last_only = self._try_out()

    @property
    def masked(self) -> bool:
        """Whether columns can be hidden, as a batch of sequences of different lengths needs it."""
        return "attention_mask" in self._inputs

    def run(
        self, block: Block, tokens: NDArray[np.int64], starts: Sequence[int], counts: Sequence[int], wanted: int
    ) -> NDArray[np.float32]:
        """Evaluate tokens, and have the block hold their cells as well.

        tokens: shape (rows, tokens), each row's own at its end; starts: cells that stand before them; counts: of each row's
        own tokens, 0 for one that is only there; wanted: rows of logits, counted from the end.

        Returns logits of shape (rows, `wanted` or more, vocabulary), a view of memory that the next call writes to.
        Raises `OutOfMemory` or `BackendError`, and then nothing has changed.
        """
        rows, by = tokens.shape
        feeds = self._feeds(block, tokens, starts, counts, wanted)
        kept = 1 if self.last_only else max(wanted, 1) if self._kept else by
        shape = (rows, kept, self.vocabulary)
        size = rows * kept * self.vocabulary
        if len(self._logits) < size:
            self._logits = np.empty(size, dtype=self._type)
        back = block.back(by)
        binding = self._binding
        for name, value in feeds.items():
            binding.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        binding.bind_output("logits", "cpu", 0, self._type, shape, self._logits.ctypes.data)
        for plane, past, present in zip(self.planes, block.front, back, strict=True):
            _bind_plane(binding.bind_input, plane, plane.past, past, rows, block.width)
            _bind_plane(binding.bind_output, plane, plane.present, present, rows, block.width + by)
        try:
            self._session.inner.run_with_iobinding(self._binding)
        except Exception as error:
            raise failure(error) from error
        block.advance(by, counts)
        return self._logits[:size].reshape(shape).astype(np.float32, copy=False)

    def _feeds(
        self, block: Block, tokens: NDArray[np.int64], starts: Sequence[int], counts: Sequence[int], wanted: int
    ) -> dict[str, NDArray[Any]]:
        """All inputs but the cache."""
        by = tokens.shape[1]
        feeds: dict[str, NDArray[Any]] = {"input_ids": tokens}
        if "attention_mask" in self._inputs:
            feeds["attention_mask"] = block.mask(by, counts)
        if "position_ids" in self._inputs:
            firsts = np.array([start + count - by for start, count in zip(starts, counts, strict=True)])
            feeds["position_ids"] = np.maximum(firsts[:, None] + np.arange(by), 0)
        if _BRANCH in self._inputs:
            feeds[_BRANCH] = np.array([block.width > 0])
        if self._kept is not None:
            feeds[self._kept.name] = np.full((1,) * len(self._kept.shape), max(wanted, 1))
        return {name: np.asarray(value, dtype=self._inputs[name].type, order="C") for name, value in feeds.items()}

    def _try_out(self) -> tuple[int, bool]:
        """Evaluate two tokens. Returns the size of the vocabulary, and whether only the last token is given logits."""
        block = Block(self.planes, 1, 0)
        feeds = self._feeds(block, np.zeros((1, 2), dtype=np.int64), [0], [2], 2)
        for plane in self.planes:
            feeds |= {name: np.empty((1, plane.heads, 0, plane.size), dtype=plane.type) for name in plane.past}
        try:
            logits, *cells = self._session.run(["logits", *self._present], feeds)
        except BackendError as error:
            raise ModelError(
                f"{self._model}: two tokens behind an empty cache could not be evaluated: {error}"
            ) from None
        if logits.ndim != 3 or logits.shape[1] not in (1, 2):
            raise ModelError(
                f"{self._model}: output 'logits' has the shape {logits.shape}, not (1, tokens, vocabulary)"
            )
        planes = [plane for plane in self.planes for _ in plane.present]
        for name, plane, value in zip(self._present, planes, cells, strict=True):
            if value.shape != (1, plane.heads, 2, plane.size):
                raise ModelError(
                    f"{self._model}: output '{name}' has the shape {value.shape} after two tokens, "
                    f"not (1, {plane.heads}, 2, {plane.size})"
                )
        return logits.shape[2], logits.shape[1] == 1

    @property
    def _present(self) -> list[str]:
        return [name for plane in self.planes for name in plane.present]

    def _find_planes(self, layout: Layout) -> list[Plane]:
        """The cache's tensors by their shapes."""
        past = {match.groups(): node for name, node in self._inputs.items() if (match := PAST_INPUT.fullmatch(name))}
        present = {m.groups(): node for name, node in self._session.outputs.items() if (m := _PRESENT.fullmatch(name))}
        if not past:
            raise ModelError(f"{self._model}: it has no input 'past_key_values.0.key'; {_HOW_TO_EXPORT}")
        if "logits" not in self._session.outputs:
            raise ModelError(f"{self._model}: it has no output 'logits', and so cannot generate text")
        grouped: dict[tuple[int, int, Any], list[tuple[str, str]]] = {}
        for key, node in past.items():
            output = present.get(key)
            if output is None:
                raise ModelError(
                    f"{self._model}: it has an input '{node.name}', and no output 'present.{'.'.join(key)}'"
                )
            if output.type != node.type:
                raise ModelError(f"{self._model}: '{node.name}' and '{output.name}' are of different types")
            heads, size = self._cache_shape(node, layout)
            grouped.setdefault((heads, size, node.type), []).append((node.name, output.name))
        return [
            Plane(tuple(p for p, _ in names), tuple(o for _, o in names), heads, size, np.dtype(kind))
            for (heads, size, kind), names in grouped.items()
        ]

    def _cache_shape(self, node: Node, layout: Layout) -> tuple[int, int]:
        """Heads, and numbers of each, of a tensor of the cache."""
        if len(node.shape) != 4:
            raise ModelError(f"{self._model}: input '{node.name}' has {len(node.shape)} dimensions, not 4")
        config = layout.config
        heads = node.shape[1] or config.get("num_key_value_heads") or config.get("num_attention_heads")
        size = node.shape[3] or config.get("head_dim")
        if not size and config.get("hidden_size") and config.get("num_attention_heads"):
            size = config["hidden_size"] // config["num_attention_heads"]
        if not (isinstance(heads, int) and isinstance(size, int) and heads > 0 and size > 0):
            raise ModelError(
                f"{self._model}: neither input '{node.name}' nor config.json says how many heads the cache has, and how large"
            )
        return heads, size

    def _check_inputs(self) -> None:
        if "input_ids" not in self._inputs:
            raise ModelError(f"{self._model}: it has no input 'input_ids'")
        for name, node in self._inputs.items():
            if name not in _PLAIN and not PAST_INPUT.fullmatch(name):
                raise ModelError(f"{self._model}: nothing is known here to fill its input '{name}' with")
            if name in _PLAIN[:3] and len(node.shape) != 2:
                raise ModelError(f"{self._model}: input '{name}' has {len(node.shape)} dimensions, not 2")


def _bind_plane(bind: Any, plane: Plane, names: Sequence[str], flat: NDArray[Any], rows: int, width: int) -> None:
    """Tell the session where a plane's tensors lie, one behind the other."""
    shape = (rows, plane.heads, width, plane.size)
    size = rows * plane.heads * width * plane.size * plane.type.itemsize
    address = flat.ctypes.data
    for name in names:
        bind(name, "cpu", 0, plane.type, shape, address)
        address += size
