"""Tiny models with random weights, for the kinds of memory that the built-in model has not, and for embeddings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from string import ascii_lowercase

import gguf
import numpy as np
from numpy.typing import NDArray

from inferno_runtime.models.source import DEFAULT_MODEL

WIDTH, LAYERS, CONTEXT = 64, 2, 512
ENCODER_CONTEXT = 64


def recurrent(path: Path) -> Path:
    """A Mamba model: its memory is a state that cannot be cut."""
    writer = _writer(path, "mamba")
    inner, state, rank, kernel = 2 * WIDTH, 16, 8, 4
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    for layer in range(LAYERS):
        shapes = {
            "ssm_in.weight": (2 * inner, WIDTH),
            "ssm_conv1d.weight": (inner, kernel),
            "ssm_conv1d.bias": (inner,),
            "ssm_x.weight": (rank + 2 * state, inner),
            "ssm_dt.weight": (inner, rank),
            "ssm_dt.bias": (inner,),
            "ssm_d": (inner,),
            "ssm_out.weight": (WIDTH, inner),
        }
        _add(writer, layer, shapes, norms=("attn_norm",))
        decay = -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1))
        writer.add_tensor(f"blk.{layer}.ssm_a", decay)
    return _write(writer, path)


def sliding_window(path: Path, window: int = 32) -> Path:
    """A Gemma 2 model whose every other layer sees the last `window` tokens only."""
    writer = _writer(path, "gemma2")
    heads, size, hidden = 4, 16, 128
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_sliding_window(window)
    for layer in range(LAYERS):
        shapes = {
            **{f"attn_{name}.weight": (heads * size, WIDTH) for name in "qkv"},
            "attn_output.weight": (WIDTH, heads * size),
            "ffn_gate.weight": (hidden, WIDTH),
            "ffn_up.weight": (hidden, WIDTH),
            "ffn_down.weight": (WIDTH, hidden),
        }
        _add(writer, layer, shapes, norms=("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"))
    return _write(writer, path)


def llama(path: Path, change: Callable[[list[str]], list[str]] = list) -> Path:
    """A Llama model; `change` makes its tokens from the built-in model's."""
    writer = _writer(path, "llama", change)
    heads, hidden = 4, 128
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_rope_dimension_count(WIDTH // heads)
    for layer in range(LAYERS):
        shapes = {
            **{f"attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
            "ffn_gate.weight": (hidden, WIDTH),
            "ffn_up.weight": (hidden, WIDTH),
            "ffn_down.weight": (WIDTH, hidden),
        }
        _add(writer, layer, shapes, norms=("attn_norm", "ffn_norm"))
    return _write(writer, path)


def qwen2vl(path: Path) -> Path:
    """A Qwen 2 VL model, whose positions have two dimensions for images."""
    writer = _writer(path, "qwen2vl")
    writer.add_chat_template(gguf.GGUFReader(DEFAULT_MODEL).fields["tokenizer.chat_template"].contents())
    heads, hidden = 4, 128
    size = WIDTH // heads
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_rope_dimension_count(size)
    writer.add_rope_dimension_sections([2, 3, 3, 0])
    for layer in range(LAYERS):
        shapes: dict[str, tuple[int, ...]] = {
            **{f"attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
            **{f"attn_{name}.bias": (WIDTH,) for name in "qkv"},
            "ffn_gate.weight": (hidden, WIDTH),
            "ffn_up.weight": (hidden, WIDTH),
            "ffn_down.weight": (WIDTH, hidden),
        }
        _add(writer, layer, shapes, norms=("attn_norm", "ffn_norm"))
    return _write(writer, path)


RERANK = "<|im_start|>Query: {query}\nDocument: {document}<|im_end|>\n<|im_start|>Answer:"


def qwen3(path: Path, *, ranks: bool) -> Path:
    """A Qwen 3 model that embeds, or the same with a head and a prompt to rank by."""
    writer = _writer(path, "qwen3")
    heads, hidden = 4, 128
    size = WIDTH // heads
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_pooling_type(gguf.PoolingType.RANK if ranks else gguf.PoolingType.LAST)
    for layer in range(LAYERS):
        shapes = {
            **{f"attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
            "ffn_gate.weight": (hidden, WIDTH),
            "ffn_up.weight": (hidden, WIDTH),
            "ffn_down.weight": (WIDTH, hidden),
        }
        _add(writer, layer, shapes, norms=("attn_norm", "ffn_norm"))
        for name in ("attn_q_norm", "attn_k_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(size, dtype=np.float32))
    if ranks:
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_string("tokenizer.chat_template.rerank", RERANK)
        writer.add_tensor("cls.output.weight", head())
    return _write(writer, path)


def head() -> NDArray[np.float32]:
    """The weights that the one above ranks by: rows for "yes" and "no"."""
    return _random(7, 2, WIDTH)


def encoder(path: Path, pooling: gguf.PoolingType = gguf.PoolingType.MEAN, labels: int = 1) -> Path:
    """A BERT model, whose words are its letters. labels: of one that ranks."""
    writer = gguf.GGUFWriter(path, "bert")
    heads, hidden = 4, 128
    writer.add_context_length(ENCODER_CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    tokens = _add_letters(writer)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (tokens, WIDTH),
        "position_embd.weight": (ENCODER_CONTEXT, WIDTH),
        "token_types.weight": (2, WIDTH),
        **_norm("token_embd_norm"),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        shapes |= _norm(f"{block}.attn_output_norm") | _norm(f"{block}.layer_output_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes |= {f"{block}.{name}.weight": (WIDTH, WIDTH), f"{block}.{name}.bias": (WIDTH,)}
        shapes |= {f"{block}.ffn_up.weight": (hidden, WIDTH), f"{block}.ffn_up.bias": (hidden,)}
        shapes |= {f"{block}.ffn_down.weight": (WIDTH, hidden), f"{block}.ffn_down.bias": (WIDTH,)}
    if pooling is gguf.PoolingType.RANK:
        shapes |= {"cls.weight": (WIDTH, WIDTH), "cls.bias": (WIDTH,)}
        shapes |= {"cls.output.weight": (labels, WIDTH), "cls.output.bias": (labels,)}
        writer.add_classifier_output_labels([str(label) for label in range(labels)])
    for number, (name, shape) in enumerate(shapes.items()):
        writer.add_tensor(name, _random(1000 + number, *shape) + np.float32(name.endswith("norm.weight")))
    return _write(writer, path)


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def _add_letters(writer: gguf.GGUFWriter) -> int:
    """Add a vocabulary of letters, at a word's beginning and within. Returns the number of its tokens."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *(mark + letter for mark in ("\N{LOWER ONE EIGHTH BLOCK}", "") for letter in ascii_lowercase)]
    normal = len(tokens) - len(special)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * normal)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)
    return len(tokens)


def _writer(path: Path, architecture: str, change: Callable[[list[str]], list[str]] = list) -> gguf.GGUFWriter:
    """A writer with the built-in model's vocabulary, but for what `change` makes of its tokens."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_layer_norm_rms_eps(1e-5)
    source = gguf.GGUFReader(DEFAULT_MODEL)
    tokens = change(source.fields["tokenizer.ggml.tokens"].contents())
    for field in source.fields.values():
        if field.name.startswith("tokenizer.") and not field.name.endswith("chat_template"):
            kinds, value = field.types, field.contents()
            if field.name == "tokenizer.ggml.tokens":
                value = tokens
            elif field.name == "tokenizer.ggml.token_type":
                value = [*value, *[gguf.TokenType.NORMAL] * len(tokens)][: len(tokens)]
            writer.add_key_value(field.name, value, kinds[0], kinds[-1] if len(kinds) > 1 else None)
    writer.add_tensor("token_embd.weight", _random(0, len(tokens), WIDTH) * np.float32(WIDTH**0.5))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    return writer


def _add(writer: gguf.GGUFWriter, layer: int, shapes: Mapping[str, tuple[int, ...]], norms: tuple[str, ...]) -> None:
    for name in norms:
        writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, dtype=np.float32))
    for number, (name, shape) in enumerate(shapes.items()):
        writer.add_tensor(f"blk.{layer}.{name}", _random(1 + layer * 100 + number, *shape))


def _random(seed: int, *shape: int) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.default_rng(seed).normal(0, shape[-1] ** -0.5, shape).astype(np.float32)
    return values


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
