"""The models that the suite runs over, in each format that they are there in."""

from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import random_models
from tests.runtime.process import MODEL

FORMATS = ["gguf"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model in one of its formats. `name` is what clients call it."""

    path: Path
    format: str
    name: str = MODEL


def generator(format: str) -> Model:
    """The tiny model, which answers simple questions."""
    return Model({"gguf": DEFAULT_MODEL}[format], format)


def encoder(format: str, folder: Path) -> Model:
    """A small encoder with random weights and a window of `ENCODER_CONTEXT` tokens."""
    make = {"gguf": random_models.encoder}[format]
    return Model(make(folder / f"encoder.{format}"), format)


def wide_encoder(folder: Path, width: int) -> Model:
    """The same with vectors of `width` numbers."""
    with patch.multiple(random_models, WIDTH=width, LAYERS=1):
        return Model(random_models.encoder(folder / "wide.gguf"), "gguf")


def experts(folder: Path) -> Model:
    """A small mixture of experts with random weights, laid out as Mixtral is."""
    path, count, heads, hidden, width = folder / "experts.gguf", 4, 4, 128, random_models.WIDTH
    writer = random_models._writer(path, "llama")
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_expert_count(count)
    writer.add_expert_used_count(2)
    for layer in range(random_models.LAYERS):
        shapes: dict[str, tuple[int, ...]] = {
            **{f"attn_{name}.weight": (width, width) for name in ("q", "k", "v", "output")},
            "ffn_gate_inp.weight": (count, width),
            "ffn_gate_exps.weight": (count, hidden, width),
            "ffn_up_exps.weight": (count, hidden, width),
            "ffn_down_exps.weight": (count, width, hidden),
        }
        random_models._add(writer, layer, shapes, norms=("attn_norm", "ffn_norm"))
    return Model(random_models._write(writer, path), "gguf")


def llama(folder: Path) -> Model:
    """A small Llama with random weights; Mistral's models are laid out in the same way."""
    return Model(random_models.llama(folder / "llama.gguf"), "gguf")
