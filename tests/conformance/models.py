"""The models that the suite runs over, in each format that they are there in."""

from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins, random_models
from tests.runtime.process import MODEL

FORMATS = ["gguf", "onnx"]
LONG = 100_000  # positions: where a test wants an answer that does not end


@dataclass(frozen=True, slots=True)
class Model:
    """A model in one of its formats. `name` is what clients call it."""

    path: Path
    format: str
    name: str = MODEL
    flags: tuple[str, ...] = ()  # that every server over it is started with


def generator(format: str, folder: Path) -> Model:
    """The tiny model, which answers simple questions."""
    if format == "gguf":
        return Model(DEFAULT_MODEL, format)
    # No table of positions ends anywhere in its graph, so it may say that it has as many as a test wants; but an ONNX
    # model is not served beyond what it says. Servers have the context of the GGUF twin all the same.
    path = onnx_twins.decoder(DEFAULT_MODEL, folder, positions=LONG)
    return Model(path, format, flags=("--context-length", str(onnx_twins.Source(DEFAULT_MODEL).context)))


def encoder(format: str, folder: Path) -> Model:
    """A small encoder with random weights and a window of `ENCODER_CONTEXT` tokens."""
    path = random_models.encoder(folder / "encoder.gguf")
    return Model(path if format == "gguf" else onnx_twins.encoder(path, folder), format)


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
