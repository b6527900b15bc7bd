"""What tokens of the kinds of tokenizers there are stand for."""

from typing import Any

import pytest

from inferno_runtime.backends.onnx.pieces import pieces, special_spellings, vocabulary
from inferno_runtime.engine.detokenizer import Detokenizer

BYTE_LEVEL = {"decoder": {"type": "ByteLevel"}}
BY_PRE_TOKENIZER = {
    "decoder": None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]},
}
LLAMA = {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}, {"type": "Fuse"}]}}
METASPACE = {"decoder": {"type": "Metaspace"}}
WORD_PIECE = {"decoder": {"type": "WordPiece", "prefix": "##"}}
CLIP = {"decoder": {"type": "BPEDecoder", "suffix": "</w>"}}


def spec(kind: dict[str, Any], *texts: str, added: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {**kind, "model": {"vocab": {text: number for number, text in enumerate(texts)}}, "added_tokens": added}


@pytest.mark.parametrize(
    ("kind", "text", "piece"),
    [
        (BYTE_LEVEL, "Ġword", b" word"),
        (BYTE_LEVEL, "Ċ", b"\n"),
        (BYTE_LEVEL, "Ã©", "é".encode()),
        (BYTE_LEVEL, "ðŁ", b"\xf0\x9f"),
        (BYTE_LEVEL, "漢", "漢".encode()),
        (BY_PRE_TOKENIZER, "Ġword", b" word"),
        (LLAMA, "▁word", b" word"),
        (LLAMA, "<0xF0>", b"\xf0"),
        (LLAMA, "漢", "漢".encode()),
        (METASPACE, "▁a▁b", b" a b"),
        (WORD_PIECE, "word", b" word"),
        (WORD_PIECE, "##ing", b"ing"),
        (CLIP, "word</w>", b"word "),
    ],
)
def test_a_piece(kind: dict[str, Any], text: str, piece: bytes) -> None:
    assert pieces(spec(kind, text), 0) == [piece]


def test_control_tokens_say_nothing_and_markup_does() -> None:
    added = (
        {"id": 1, "content": "<|im_end|>", "special": True},
        {"id": 2, "content": "<tool_call>", "special": True},
        {"id": 5, "content": "<fim>", "special": False},
    )
    made = spec(BYTE_LEVEL, "a", added=added)
    assert pieces(made, 8) == [b"a", b"", b"<tool_call>", b"", b"", b"<fim>", b"", b""]
    assert special_spellings(made) == {1: "<|im_end|>", 2: "<tool_call>"}
    assert vocabulary(made) == {0: "a", 1: "<|im_end|>", 2: "<tool_call>", 5: "<fim>"}


def test_a_unigram_vocabulary() -> None:
    made = {**METASPACE, "model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["▁a", -1.0]]}}
    assert pieces(made, 0) == [b"<unk>", b" a"]


@pytest.mark.parametrize(
    ("kind", "texts"),
    [(LLAMA, ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "▁漢"]), (BYTE_LEVEL, ["ð", "Ł", "ĺ", "Ģ", "Ġæ¼¢"])],
)
def test_a_stream_shows_whole_code_points_only(kind: dict[str, Any], texts: list[str]) -> None:
    detokenizer = Detokenizer(pieces(spec(kind, *texts), 0))
    said = [detokenizer.feed([token]) for token in range(5)]
    assert said[:4] == ["", "", "", "😀"]
    assert said[4] == " 漢"
