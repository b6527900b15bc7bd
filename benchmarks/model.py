"""Makes the model that every server is measured with: `python -m benchmarks.model SOURCE FOLDER`.

It has the shape of a small real one (135 million parameters: 30 layers of 576, 9 heads over 3, Q8_0) and a real
vocabulary of 49,152 tokens, but random weights, so nothing needs to be downloaded. How fast a model runs does not depend
on what its weights are. Three things are arranged all the same:

- It speaks in plain lower-case words, each one token, so that an answer that comes back as a part of the next prompt
  gives the same tokens again, as a real model's does.
- Its next word depends on the last one far more than on the rest. Greedy answers therefore run into a cycle, which is
  what a load about repetition needs; sampled ones have several likely words at each step, and do not.
- It never says that it has finished, so answers are as long as was asked for.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import encoder

NAME = "bench-135m-Q8_0.gguf"
WORDS = "words.json"
VERSION = 1  # goes up when the file's content changes

LAYERS, WIDTH, HEADS, KV_HEADS, FEED_FORWARD = 30, 576, 9, 3, 1536
CONTEXT = 8192
HEAD = WIDTH // HEADS
CACHE_BYTES_PER_TOKEN = LAYERS * 2 * KV_HEADS * HEAD * 2  # keys and values, f16

_SPOKEN = 1000  # words that the model may say
_SILENCE = 0.02  # length of the other tokens' embeddings beside those of the words
_LAYER_GAIN = 8.0  # what a layer adds to the residual stream, where a word's embedding has 1
_ATTENTION_GAIN = 0.0001
_SHARPNESS = 4.0  # standard deviation of the words' logits
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make(source: Path, folder: Path) -> Path:
    """Write the model and the words that it speaks to `folder`, unless they are there. `source` is llama.cpp's root."""
    path = folder / f"v{VERSION}" / NAME
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    gguf = _gguf(source)
    vocabulary = gguf.GGUFReader(source / "models" / "ggml-vocab-starcoder.gguf")
    pieces = [str(piece) for piece in vocabulary.fields["tokenizer.ggml.tokens"].contents()]
    spoken = spoken_tokens(pieces)
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    _write_shape(writer, gguf)
    _write_vocabulary(writer, vocabulary, pieces)
    quantized = gguf.GGMLQuantizationType.Q8_0
    for name, values in _tensors(len(pieces), spoken):
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    words = [pieces[token].removeprefix("Ġ") for token in spoken]
    (path.parent / WORDS).write_text(json.dumps(words))
    part.rename(path)
    return path


def make_encoder(source: Path, model: Path) -> Path:
    """Write the encoder beside the model that `make` has made, unless it is there; they know the same words."""
    path = model.parent / encoder.NAME
    if not path.exists():
        part = path.with_suffix(".part")
        encoder.write(_gguf(source), part, words_of(model))
        part.rename(path)
    return path


def words_of(model: Path) -> list[str]:
    """The words that a model made by `make` speaks; with a space before it, each is one token."""
    words: list[str] = json.loads((model.parent / WORDS).read_text())
    return words


def spoken_tokens(pieces: list[str]) -> list[int]:
    """The first tokens that are a space and then lower-case letters; Ġ stands for the space in vocabularies of this kind."""
    plain = [
        number
        for number, piece in enumerate(pieces)
        if len(piece) > 3 and piece[0] == "Ġ" and piece[1:].isascii() and piece[1:].isalpha() and piece[1:].islower()
    ]
    return plain[:_SPOKEN]


def _gguf(source: Path) -> Any:
    """The package `gguf`, as it lies in llama.cpp's own sources."""
    sys.path.insert(0, str(source / "gguf-py"))
    import gguf  # type: ignore[import-not-found, unused-ignore]

    return gguf


def _write_shape(writer: Any, gguf: Any) -> None:
    writer.add_name("bench-135m")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def _write_vocabulary(writer: Any, vocabulary: Any, pieces: list[str]) -> None:
    kinds = [int(kind) for kind in vocabulary.fields["tokenizer.ggml.token_type"].contents()]
    pieces = list(pieces)
    # Two control tokens that mark places in source code become ChatML's.
    start, end = pieces.index("<pr>"), pieces.index("<pr_status>")
    pieces[start], pieces[end] = "<|im_start|>", "<|im_end|>"
    control = 3
    for number, piece in enumerate(pieces):
        if piece.startswith("<") and piece.endswith(">") and number < 38:
            kinds[number] = control
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("starcoder")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_merges(vocabulary.fields["tokenizer.ggml.merges"].contents())
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)


def _tensors(vocabulary: int, spoken: list[int]) -> list[tuple[str, NDArray[np.float32]]]:
    """Name and values of each tensor; rows are outputs, as GGUF has them."""
    random = np.random.default_rng(135)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> NDArray[np.float32]:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(gain / columns**0.5)

    embedding = matrix(vocabulary, WIDTH, WIDTH**0.5)
    loudness = np.full(vocabulary, _SILENCE, dtype=np.float32)
    loudness[spoken] = 1.0
    embedding *= loudness[:, None]
    ones = np.ones(WIDTH, dtype=np.float32)
    tensors = [
        ("token_embd.weight", embedding),  # it is the output matrix as well
        ("output_norm.weight", ones * np.float32(_SHARPNESS / WIDTH**0.5)),
    ]
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        tensors += [
            (f"{at}attn_norm.weight", ones),
            (f"{at}attn_q.weight", matrix(WIDTH, WIDTH)),
            (f"{at}attn_k.weight", matrix(KV_HEADS * HEAD, WIDTH)),
            (f"{at}attn_v.weight", matrix(KV_HEADS * HEAD, WIDTH)),
            (f"{at}attn_output.weight", matrix(WIDTH, WIDTH, _ATTENTION_GAIN * _LAYER_GAIN)),
            (f"{at}ffn_norm.weight", ones),
            (f"{at}ffn_gate.weight", matrix(FEED_FORWARD, WIDTH)),
            (f"{at}ffn_up.weight", matrix(FEED_FORWARD, WIDTH)),
            (f"{at}ffn_down.weight", matrix(WIDTH, FEED_FORWARD, 2 * _LAYER_GAIN)),
        ]
    return tensors


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
