"""How likely tokens were, as each endpoint tells it.

They are the model's own probabilities, before temperature, penalties, biases and filters. A token that is no whole
character is told by its bytes, and a control token, which has no text, by its spelling.
"""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.openai.convert import Job
from inferno_runtime.worker.transcript import Score

Object = dict[str, Any]
Known = Sequence[tuple[float, Sequence[tuple[int, float]]]]
"""Of tokens in order their logarithms, and the likeliest tokens at their places with theirs."""


class Logprobs:
    """Writes those of one request."""

    def __init__(self, job: Job, tokenizer: Tokenizer, *, chat: bool) -> None:
        self._job = job
        self._tokenizer = tokenizer
        self._chat = chat

    def of_text(self, index: int, scores: Iterable[Score]) -> Object | None:
        """Those of a piece of the text of the sequence of that index; None where they are not asked for."""
        return None if self._job.logprobs is None else self._write(self._behind_echo(index, scores))

    def of_spoken(self, scores: Iterable[Score]) -> list[Object]:
        """Those of tokens that are text, as a chat has them; nothing where they are not asked for."""
        return [] if self._job.logprobs is None else _chat_tokens(scores, self._tokenizer)

    def of_echo(self, index: int, known: Known) -> Object | None:
        """Those of a prompt that is repeated. known: from its second token on."""
        return self._write(self._of_prompt(index, known)) if self._job.score_prompt else None

    def of_all(self, index: int, known: Known, scores: Iterable[Score]) -> Object | None:
        """Those of a whole answer."""
        if self._job.logprobs is None:
            return None
        prompt = self._of_prompt(index, known) if self._job.score_prompt else []
        return self._write([*prompt, *self._behind_echo(index, scores)])

    def _of_prompt(self, index: int, known: Known) -> list[Score]:
        tokens, text = self._job.prompts[index], self._job.echo_of(index)
        offsets = offsets_in(text, tokens, self._tokenizer)
        ends = [*offsets[1:], len(text)]
        told: list[tuple[float | None, Sequence[tuple[int, float]]]] = [(None, ()), *known]
        return [Score(*row) for row in zip(tokens, offsets, ends, *zip(*told, strict=True), strict=True)]

    def _behind_echo(self, index: int, scores: Iterable[Score]) -> Iterable[Score]:
        before = len(self._job.echo_of(index))
        return (
            (score._replace(offset=score.offset + before, end=score.end + before) for score in scores)
            if before
            else scores
        )

    def _write(self, scores: Iterable[Score]) -> Object:
        return (chat_logprobs if self._chat else completion_logprobs)(scores, self._tokenizer)


def chat_logprobs(scores: Iterable[Score], tokenizer: Tokenizer) -> Object:
    """The shape of `/v1/chat/completions`."""
    return {"content": _chat_tokens(scores, tokenizer), "refusal": None}


def completion_logprobs(scores: Iterable[Score], tokenizer: Tokenizer) -> Object:
    """The shape of `/v1/completions`. The token itself is always among the likeliest ones that are told."""
    tokens: list[str] = []
    logprobs: list[float | None] = []
    likeliest: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for score in scores:
        text = _completion_text(score.token, tokenizer)
        tokens.append(text)
        logprobs.append(score.logprob)
        offsets.append(score.offset)
        if score.logprob is None:
            likeliest.append(None)
            continue
        top: dict[str, float] = {}
        for token, logprob in (*score.top, (score.token, score.logprob)):
            top.setdefault(_completion_text(token, tokenizer), logprob)
        likeliest.append(top)
    return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": likeliest, "text_offset": offsets}


def offsets_in(text: str, tokens: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Where in `text`, of which they are the tokens, each of them begins, in characters.

    A tokenizer may put tokens and a space before a text, and spell some of it otherwise: what is not found takes no room.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        said = decoder.decode(tokenizer.pieces[token]) or tokenizer.spelling(token)
        if text.startswith(said, at):
            at += len(said)
        elif at == 0 and said[:1] == " " and text.startswith(said[1:]):
            at += len(said) - 1
    return offsets


def _chat_tokens(scores: Iterable[Score], tokenizer: Tokenizer) -> list[Object]:
    return [
        {
            **_chat_token(score.token, score.logprob or 0.0, tokenizer),
            "top_logprobs": [_chat_token(token, logprob, tokenizer) for token, logprob in score.top],
        }
        for score in scores
    ]


def _chat_token(token: int, logprob: float, tokenizer: Tokenizer) -> Object:
    piece = tokenizer.pieces[token]
    return {"token": _text(token, tokenizer), "logprob": logprob, "bytes": list(piece) if piece else None}


def _completion_text(token: int, tokenizer: Tokenizer) -> str:
    return _text(token, tokenizer, "bytes:")


def _text(token: int, tokenizer: Tokenizer, marked: str = "") -> str:
    """A token for people. marked: what comes before the bytes of one that is no text."""
    piece = tokenizer.pieces[token]
    if not piece:
        return tokenizer.spelling(token) or f"token_id:{token}"
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return marked + "".join(f"\\x{byte:02x}" for byte in piece)
