"""What a BERT model says, in plain numpy from its weights: one text, one vector, nothing clever."""

import math
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


class Bert:
    """The weights of a GGUF file, in full precision."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self._tensors = {
            tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in reader.tensors
        }
        self._heads = int(reader.fields["bert.attention.head_count"].contents())
        self._layers = int(reader.fields["bert.block_count"].contents())
        self._epsilon = float(reader.fields["bert.attention.layer_norm_epsilon"].contents())

    def embed(self, tokens: Sequence[int], pooling: str = "mean") -> Array:
        """The vector of a text, of length 1."""
        states = self._states(tokens)
        vector: Array = {"mean": states.mean(axis=0), "cls": states[0], "last": states[-1]}[pooling]
        return vector / np.linalg.norm(vector)

    def score(self, tokens: Sequence[int]) -> float:
        """What the head of one that ranks says of a pair."""
        hidden = np.tanh(self._linear(self._states(tokens)[:1], "cls"))
        return float(self._linear(hidden, "cls.output")[0, 0])

    def _states(self, tokens: Sequence[int]) -> Array:
        words, places, types = (self._tensors[f"{n}.weight"] for n in ("token_embd", "position_embd", "token_types"))
        x = self._norm(words[list(tokens)] + places[: len(tokens)] + types[0], "token_embd_norm")
        for layer in range(self._layers):
            block = f"blk.{layer}"
            x = self._norm(x + self._attention(x, block), f"{block}.attn_output_norm")
            up = self._linear(x, f"{block}.ffn_up")
            hidden = up * 0.5 * (1 + _erf(up / math.sqrt(2)))
            x = self._norm(x + self._linear(hidden, f"{block}.ffn_down"), f"{block}.layer_output_norm")
        return x

    def _attention(self, x: Array, block: str) -> Array:
        q, k, v = (
            self._linear(x, f"{block}.attn_{name}").reshape(len(x), self._heads, -1).swapaxes(0, 1) for name in "qkv"
        )
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        return self._linear((weights @ v).swapaxes(0, 1).reshape(x.shape), f"{block}.attn_output")

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self._epsilon)
        normed: Array = scaled * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]
        return normed
