"""Which tokens end an answer of an ONNX model."""

from pathlib import Path

import pytest

from inferno_runtime.backends.onnx.vocabulary import end_tokens
from inferno_runtime.models.layout import Layout


@pytest.mark.parametrize(
    ("spellings", "ends"),
    [
        (["<|im_start|>", "<|im_end|>"], {1}),
        (["<|user|>", "<|end|>"], {1}),
        # With these, it ends one of several messages of an answer.
        (["<|end|>", "<|return|>", "<|call|>"], {1, 2}),
    ],
    ids=str,
)
def test_ends_by_their_spellings(tmp_path: Path, spellings: list[str], ends: set[int]) -> None:
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert end_tokens(Layout.find(tmp_path), dict(enumerate(spellings)), "") == ends
