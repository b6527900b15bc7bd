"""A model's tokens without its computation: `/tokenize` and `/detokenize` in vLLM's shapes, `/apply-template` in llama-server's.

Everything here is a plain function of the request and the model, and safe to call in a thread.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from inferno_runtime.chat.template import Piece, encode_pieces
from inferno_runtime.chat.tools import Toolbox
from inferno_runtime.openai import errors
from inferno_runtime.openai.convert import chat_prompt
from inferno_runtime.openai.requests import Message
from inferno_runtime.openai.target import Target

MOST = 1_000_000  # characters of a text, and tokens


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/tokenize`: a raw prompt, or the messages of a chat."""

    model: str
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/detokenize`."""

    model: str
    tokens: Annotated[list[int], Meta(max_length=MOST)]


class ApplyTemplateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/apply-template`."""

    model: str
    messages: list[Message]


class Tokens(msgspec.Struct, frozen=True):
    """The answer of `/tokenize`; `token_strs` where they are asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Prompt(msgspec.Struct, frozen=True):
    """The answer of `/detokenize` and of `/apply-template`."""

    prompt: str


def tokenize(request: TokenizeRequest, target: Target) -> Tokens:
    """The tokens that a request with this prompt, or these messages, would be evaluated with. Raises `ApiError`."""
    tokens = _tokens(request, target)
    spelled = [_spelled(token, target).decode(errors="replace") for token in tokens]
    return Tokens(len(tokens), target.context, tokens, spelled if request.return_token_strs else None)


def detokenize(request: DetokenizeRequest, target: Target) -> Prompt:
    """The text of tokens, control tokens as they are spelled. Raises `ApiError`."""
    size = len(target.tokenizer.pieces)
    if any(not 0 <= token < size for token in request.tokens):
        raise errors.bad_request(f"'tokens' holds a token id outside the vocabulary of {size} tokens.", "tokens")
    return Prompt(b"".join(_spelled(token, target) for token in request.tokens).decode(errors="replace"))


def apply_template(request: ApplyTemplateRequest, target: Target) -> Prompt:
    """The text that the chat template makes of messages, up to where the answer begins. Raises `ApiError`."""
    return Prompt("".join(piece.text for piece in _pieces(request.messages, target)))


def _tokens(request: TokenizeRequest, target: Target) -> list[int]:
    if (request.prompt is None) == (request.messages is None):
        raise errors.bad_request("Send either 'prompt' or 'messages'.", "prompt")
    if request.messages is not None:
        pieces = _pieces(request.messages, target)
        _check_length(sum(len(piece.text) for piece in pieces), "messages")
        return encode_pieces(pieces, target.tokenizer)
    assert request.prompt is not None
    _check_length(len(request.prompt), "prompt")
    around = request.add_special_tokens is not False
    return target.tokenizer.encode(request.prompt, add_special=around, parse_special=True)


def _pieces(messages: list[Message], target: Target) -> list[Piece]:
    pieces = chat_prompt(messages, target, Toolbox())[1].pieces
    if any(piece.image is not None for piece in pieces):
        raise errors.unsupported("messages", "An image has neither a text nor tokens of the vocabulary's.")
    return pieces


def _check_length(characters: int, param: str) -> None:
    if characters > MOST:
        raise errors.bad_request(
            f"A text may have at most {MOST:,} characters, and '{param}' has {characters:,}.", param
        )


def _spelled(token: int, target: Target) -> bytes:
    return target.tokenizer.pieces[token] or target.tokenizer.spelling(token).encode()
