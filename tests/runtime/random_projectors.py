"""Tiny projectors with random weights, for the kinds of images that models take: one for each way to evaluate them."""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH, LAYERS, PATCH = 32, 2, 14


def width_of(model: Path) -> int:
    """What a model's embeddings are wide."""
    reader = gguf.GGUFReader(model)
    architecture = reader.fields["general.architecture"].contents()
    return int(reader.fields[f"{architecture}.embedding_length"].contents())


def llava(path: Path, width: int) -> Path:
    """Evaluated like text, 16 cells for an image of any size."""
    writer = _writer(path, "mlp", size=4 * PATCH)
    shapes = _encoder() | {"v.position_embd.weight": (16, WIDTH), "v.patch_embd.weight": (WIDTH, 3, PATCH, PATCH)}
    shapes |= {
        "mm.0.weight": (WIDTH, WIDTH),
        "mm.0.bias": (WIDTH,),
        "mm.2.weight": (width, WIDTH),
        "mm.2.bias": (width,),
    }
    return _write(writer, path, shapes)


def gemma3(path: Path, width: int) -> Path:
    """16 cells that see all of each other, between words of their own."""
    writer = _writer(path, "gemma3", size=8 * PATCH)
    writer.add_uint32("clip.vision.projector.scale_factor", 2)
    shapes = _encoder() | {"v.position_embd.weight": (64, WIDTH), "v.patch_embd.weight": (WIDTH, 3, PATCH, PATCH)}
    shapes |= {"v.patch_embd.bias": (WIDTH,)}
    shapes |= {"mm.input_projection.weight": (WIDTH, width), "mm.soft_emb_norm.weight": (WIDTH,)}
    return _write(writer, path, shapes)


def qwen2vl(path: Path, width: int) -> Path:
    """As many cells as an image is large, each with a row and a column for a position."""
    writer = _writer(path, "qwen2vl_merger", size=4 * PATCH)
    shapes = _encoder()
    shapes |= {f"v.patch_embd.weight{end}": (WIDTH, 3, PATCH, PATCH) for end in ("", ".1")}
    shapes |= {"mm.0.weight": (4 * WIDTH, 4 * WIDTH), "mm.0.bias": (4 * WIDTH,)}
    shapes |= {"mm.2.weight": (width, 4 * WIDTH), "mm.2.bias": (width,)}
    return _write(writer, path, shapes)


def _encoder() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"v.post_ln.weight": (WIDTH,), "v.post_ln.bias": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"v.blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
            shapes |= {f"{block}.{name}.weight": (WIDTH, WIDTH), f"{block}.{name}.bias": (WIDTH,)}
        for name in ("ln1", "ln2"):
            shapes |= {f"{block}.{name}.weight": (WIDTH,), f"{block}.{name}.bias": (WIDTH,)}
    return shapes


def _writer(path: Path, kind: str, *, size: int) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_uint32("clip.vision.image_size", size)
    writer.add_uint32("clip.vision.patch_size", PATCH)
    writer.add_uint32("clip.vision.embedding_length", WIDTH)
    writer.add_uint32("clip.vision.feed_forward_length", WIDTH)
    writer.add_uint32("clip.vision.projection_dim", WIDTH)
    writer.add_uint32("clip.vision.block_count", LAYERS)
    writer.add_uint32("clip.vision.attention.head_count", 2)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)
    return writer


def _write(writer: gguf.GGUFWriter, path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    for number, (name, shape) in enumerate(shapes.items()):
        scale = 1.0 if name.endswith("norm.weight") or ".ln" in name or "_ln" in name else 0.0
        writer.add_tensor(name, _random(number, *shape) + np.float32(scale))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _random(seed: int, *shape: int) -> NDArray[np.float32]:
    inner = int(np.prod(shape[1:])) or 1
    return np.random.default_rng(seed).normal(0, inner**-0.5, shape).astype(np.float32)
