"""The bytes that each token of a tokenizer.json stands for.

`tokenizers` gives text for a whole sequence of tokens; a stream needs what each of them adds, be it half a code point.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # in whose place SentencePiece has a space
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Tokens that mark up an answer for its reader, though many tokenizers call them special, as they do with those that steer
# the model and that nobody wants to see.
_MARKUP = re.compile(r"</?(tool_call|tool_calls|tool_response|tools|think|function_call)>|\[/?(TOOL_CALLS|THINK)\]")


def vocabulary(spec: Mapping[str, Any]) -> dict[int, str]:
    """The spelling of every token of a tokenizer.json, added ones included. Raises `KeyError`, `TypeError` or `ValueError`."""
    own = spec["model"]["vocab"]
    spelled = {int(token): str(text) for text, token in own.items()} if isinstance(own, dict) else _ranked(own)
    return spelled | {int(token["id"]): str(token["content"]) for token in _added(spec)}


def special_spellings(spec: Mapping[str, Any]) -> dict[int, str]:
    """Those that `tokenizers` takes for control tokens."""
    return {int(token["id"]): str(token["content"]) for token in _added(spec) if token.get("special")}


def pieces(spec: Mapping[str, Any], size: int) -> list[bytes]:
    """What each token adds to a text; nothing for control tokens and for numbers that no token has.

    size: at least so many, for models that have room for more tokens than their tokenizer.
    """
    read = _reading(spec)
    texts = {token: read(text) for token, text in vocabulary(spec).items()}
    for token in _added(spec):
        hidden = token.get("special") and not _MARKUP.fullmatch(token["content"])
        texts[int(token["id"])] = b"" if hidden else str(token["content"]).encode()
    return [texts.get(token, b"") for token in range(max(size, max(texts, default=-1) + 1))]


def _added(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return spec.get("added_tokens") or []


def _ranked(vocab: list[tuple[str, float]]) -> dict[int, str]:
    """The vocabulary of a Unigram model: its tokens and their scores, by number."""
    return {number: str(text) for number, (text, _) in enumerate(vocab)}


def _reading(spec: Mapping[str, Any]) -> Callable[[str], bytes]:
    """How a token's spelling is read, by the tokenizer's decoder; where it has none, by what cut the words."""
    steps = list(_steps(spec.get("decoder"), "decoders")) or list(_steps(spec.get("pre_tokenizer"), "pretokenizers"))
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return _byte_level
    if "WordPiece" in kinds:
        (prefix,) = {str(step.get("prefix", "##")) for step in steps if step.get("type") == "WordPiece"}
        return lambda text: (text.removeprefix(prefix) if text.startswith(prefix) else f" {text}").encode()
    if "BPEDecoder" in kinds:
        suffix = next(str(step.get("suffix", "</w>")) for step in steps if step.get("type") == "BPEDecoder")
        return lambda text: text.replace(suffix, " ").encode()
    return _sentencepiece


def _steps(part: Mapping[str, Any] | None, inner: str) -> Iterator[Mapping[str, Any]]:
    """A decoder or pre-tokenizer, or the ones that it is a sequence of."""
    if part is None:
        return
    if part.get("type") == "Sequence":
        for step in part.get(inner, ()):
            yield from _steps(step, inner)
    else:
        yield part


def _sentencepiece(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(_SPACE, " ").encode()


def _byte_level(text: str) -> bytes:
    try:
        return bytes([_BYTES[char] for char in text])
    except KeyError:  # not written in these characters, so it stands for itself
        return text.encode()


def _byte_characters() -> dict[str, int]:
    """The printable characters that byte-level vocabularies write bytes in, as GPT-2 chose them."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = _byte_characters()
