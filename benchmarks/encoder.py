"""Makes the model that embeddings are measured with: a BERT of the shape of all-MiniLM-L6-v2, with random weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "bench-encoder-22m-Q8_0.gguf"

LAYERS, WIDTH, HEADS, FEED_FORWARD = 6, 384, 12, 1536
CONTEXT = 512

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORD_BEGINS = "\N{LOWER ONE EIGHTH BLOCK}"


def write(gguf: Any, path: Path, words: list[str]) -> None:
    """Write the model, in whose vocabulary each of these words is a token. gguf: the package."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("bench-encoder-22m")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _write_vocabulary(writer, gguf, words)
    quantized = gguf.GGMLQuantizationType.Q8_0
    for name, values in _tensors(len(_SPECIAL) + len(words)):
        if values.ndim == 1 or name in ("position_embd.weight", "token_types.weight"):
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_vocabulary(writer: Any, gguf: Any, words: list[str]) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_token_list([*_SPECIAL, *(_WORD_BEGINS + word for word in words)])
    writer.add_token_types([gguf.TokenType.CONTROL] * len(_SPECIAL) + [gguf.TokenType.NORMAL] * len(words))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)


def _tensors(vocabulary: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and values of each tensor; rows are outputs, as GGUF has them."""
    random = np.random.default_rng(22)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)

    def bias(name: str, size: int) -> tuple[str, NDArray[np.float32]]:
        return f"{name}.bias", np.zeros(size, dtype=np.float32)

    def norm(name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", np.ones(WIDTH, dtype=np.float32)
        yield bias(name, WIDTH)

    yield "token_embd.weight", matrix(vocabulary, WIDTH)
    yield "position_embd.weight", matrix(CONTEXT, WIDTH)
    yield "token_types.weight", matrix(2, WIDTH)
    yield from norm("token_embd_norm")
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, WIDTH),
            ("attn_v", WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ):
            yield f"{at}.{name}.weight", matrix(rows, columns)
            yield bias(f"{at}.{name}", rows)
        yield from norm(f"{at}.attn_output_norm")
        yield from norm(f"{at}.layer_output_norm")
