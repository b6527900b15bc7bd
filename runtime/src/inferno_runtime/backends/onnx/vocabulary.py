"""An ONNX model's tokenizer, and what its folder says of the model; read without the weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from inferno_runtime.backends.base import ModelError, Pair
from inferno_runtime.backends.onnx.pieces import pieces, special_spellings, vocabulary
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.onnx import Description, describe

_MOST_TOKENS = 1 << 22  # that anybody has in a vocabulary
# Control tokens of these spellings end a turn, whether or not a model's files say so.
_ENDS = frozenset(
    {
        "<|im_end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|end_of_turn|>",
        "<end_of_turn>",
        "<EOT>",
    }
)


# The tokens before a prefix, before a suffix and before what is to stand between, in the families that have them.
_INFILL = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)
# With both of these, `<|end|>` ends a message, of which an answer may have several (gpt-oss).
_MESSAGES = frozenset({"<|return|>", "<|call|>"})


class OnnxVocabulary:
    """`Tokenizer` over the `tokenizers` package, which is thread-safe for a tokenizer that nobody changes."""

    def __init__(self, path: Path) -> None:
        """Raises `ModelError`."""
        layout = Layout.find(path)
        description = describe(layout.model)
        self.task = layout.task(description)
        self.context_train = layout.positions if self.task == "generate" else layout.window
        spec = read_spec(layout.tokenizer)
        try:
            self._spelled, special = vocabulary(spec), special_spellings(spec)
            self.pieces = pieces(spec, logit_count(layout, description))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{layout.tokenizer}: not a tokenizer that could be read: {error!r}") from None
        self.controls = special
        self.control_spellings = frozenset(special.values())
        self.bos = _spelling(layout, "bos", self._spelled)
        self.eos = _spelling(layout, "eos", self._spelled)
        self.infill = _infill(self._spelled)
        self.end_tokens = end_tokens(layout, special, self.eos)
        self.chat_template = layout.chat_template
        self._parsing = _open(layout.tokenizer)
        self._plain = _open(layout.tokenizer)
        self._plain.encode_special_tokens = True  # as the text that they are

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        tokenizer = self._parsing if parse_special else self._plain
        ids: list[int] = tokenizer.encode(text, add_special_tokens=add_special).ids
        return ids

    def spelling(self, token: int) -> str:
        return self._spelled.get(token, "")

    def encode_pair(self, query: str, document: str) -> Pair:
        encoding = self._plain.encode(query, document, add_special_tokens=True)
        ids: list[int] = encoding.ids
        kinds: list[int] = encoding.type_ids
        return Pair(ids, kinds.index(1) if 1 in kinds else len(ids))


def logit_count(layout: Layout, description: Description) -> int:
    """The tokens that the model can choose from, as far as that can be said without running it; else 0."""
    shape = None if description.classifies else description.outputs.get("logits")
    claimed = shape.dimensions[-1] if shape and shape.dimensions else None
    if claimed is not None and not 0 < claimed <= _MOST_TOKENS:
        raise ModelError(f"{layout.model}: output 'logits' claims a vocabulary of {claimed} tokens")
    stated = layout.config.get("vocab_size")
    return claimed or (stated if isinstance(stated, int) and 0 < stated <= _MOST_TOKENS else 0)


def read_spec(path: Path) -> dict[str, Any]:
    """The content of a tokenizer.json. Raises `ModelError`."""
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a tokenizer: {error}") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise ModelError(f"{path}: not a tokenizer (it has no model)")
    return spec


def _open(path: Path) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        # Many files carry how texts were cut and filled up when the model was trained.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode("a")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it raises nothing narrower, and what Rust panics at is no Exception
        raise ModelError(f"{path}: not a tokenizer: {' '.join(str(error).split())}") from None
    return tokenizer


def _spelling(layout: Layout, which: str, spelled: Mapping[int, str]) -> str:
    """The spelling of the token that begins or ends a text."""
    stated = layout.tokenizer_config.get(f"{which}_token")
    if isinstance(stated, dict):
        stated = stated.get("content")
    if isinstance(stated, str):
        return stated
    token = layout.config.get(f"{which}_token_id")
    return spelled.get(token, "") if isinstance(token, int) else ""


def _infill(spelled: Mapping[int, str]) -> tuple[int, int, int] | None:
    tokens = {text: token for token, text in spelled.items()}
    for prefix, suffix, middle in _INFILL:
        if prefix in tokens and suffix in tokens and middle in tokens:
            return tokens[prefix], tokens[suffix], tokens[middle]
    return None


def end_tokens(layout: Layout, special: Mapping[int, str], eos: str) -> frozenset[int]:
    """The tokens that end an answer, by their spellings and by what the files state. special: control tokens' spellings."""
    ends = {token for token, text in special.items() if text in _ENDS or text == eos}
    if set(special.values()) >= _MESSAGES:
        ends -= {token for token, text in special.items() if text == "<|end|>"}
    for source in (layout.config, layout.json("generation_config.json")):
        stated = source.get("eos_token_id")
        ends.update(token for token in (stated if isinstance(stated, list) else [stated]) if isinstance(token, int))
    return frozenset(ends)
