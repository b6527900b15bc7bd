"""LoRA adapters for the built-in model with random weights, and models that have such an adapter merged into theirs."""

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from inferno_runtime.models.source import DEFAULT_MODEL

Weights = Mapping[str, NDArray[np.float32]]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]  # A of (rank, inputs) and B of (outputs, rank)

RANK, ALPHA = 4, 8.0
_ADAPTED = ("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_down.weight")


def weights(path: Path = DEFAULT_MODEL) -> dict[str, NDArray[np.float32]]:
    """The tensors of a model, in full precision."""
    reader = gguf.GGUFReader(path)
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape[::-1])
        for tensor in reader.tensors
    }


def pairs(seed: int, strength: float = 6.0) -> dict[str, Pair]:
    """The matrices of an adapter, which change what the built-in model says."""
    random = np.random.default_rng(seed)

    def pair(weight: NDArray[np.float32]) -> Pair:
        outputs, inputs = weight.shape
        a = random.normal(0, inputs**-0.5, (RANK, inputs))
        b = random.normal(0, strength * float(weight.std()), (outputs, RANK))
        return a.astype(np.float32), b.astype(np.float32)

    return {name: pair(weight) for name, weight in weights().items() if name.endswith(_ADAPTED)}


def adapter(path: Path, matrices: Mapping[str, Pair], architecture: str = "llama", kind: str = "adapter") -> Path:
    """An adapter's file."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, ALPHA)
    for name, (a, b) in matrices.items():
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    return _write(writer, path)


def merged(path: Path, matrices: Mapping[str, Pair], scale: float = 1.0) -> Path:
    """The built-in model in full precision, with an adapter's change in its own weights."""

    def change(name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        if name not in matrices:
            return weight
        a, b = matrices[name]
        return weight + np.float32(scale * ALPHA / RANK) * (b @ a)

    return _rewritten(path, change)


def plain(path: Path) -> Path:
    """The built-in model in full precision."""
    return _rewritten(path, lambda name, weight: weight)


def _rewritten(path: Path, change: Callable[[str, NDArray[np.float32]], NDArray[np.float32]]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for field in gguf.GGUFReader(DEFAULT_MODEL).fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            writer.add_key_value(
                field.name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for name, weight in weights().items():
        writer.add_tensor(name, change(name, weight))
    return _write(writer, path)


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
