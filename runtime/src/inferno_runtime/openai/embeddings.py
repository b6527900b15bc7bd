"""`/v1/embeddings`: the body of a request, what it asks of the engine, and the answer.

Everything here is a plain function of the request and the model, and safe to call in a thread.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.engine.request import Priority
from inferno_runtime.openai import errors

MAX_CHARACTERS = 8000  # of an input
MAX_INPUTS = 100
_FLOAT_BYTES = 4


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body: a text, several, or the same as token ids. Null is the same as leaving a field out."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    truncate: bool | None = None
    user: str | None = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingTarget:
    """The model that a request goes to, as far as conversion needs it."""

    tokenizer: Tokenizer
    window: int  # most tokens of an input
    dimensions: int  # of a vector
    closing: Sequence[int]  # the tokens that the model wants behind every text
    truncate: bool  # whether inputs that are too long lose their end, if the request does not say


@dataclass(frozen=True, slots=True)
class EmbeddingJob:
    """What one request asks of the engine: a vector for each input."""

    inputs: list[list[int]]
    dimensions: int
    base64: bool

    @property
    def tokens(self) -> int:
        """Of all inputs together."""
        return sum(map(len, self.inputs))


def embedding_job(request: EmbeddingsRequest, target: EmbeddingTarget) -> EmbeddingJob:
    """The job of a request. Raises `ApiError`."""
    if request.dimensions is not None and request.dimensions > target.dimensions:
        raise errors.bad_request(
            f"'dimensions' is {request.dimensions}, and this model's vectors have {target.dimensions}.", "dimensions"
        )
    truncate = target.truncate if request.truncate is None else request.truncate
    given = _inputs(request.input)
    where = ["input"] if len(given) == 1 else [f"input[{index}]" for index in range(len(given))]
    inputs = [_tokens(item, place, target, truncate) for item, place in zip(given, where, strict=True)]
    return EmbeddingJob(inputs, request.dimensions or target.dimensions, request.encoding_format == "base64")


def closing_tokens(tokenizer: Tokenizer) -> list[int]:
    """The tokens that the model wants behind every text, such as a separator; often none."""
    bare = tokenizer.encode("a", add_special=False, parse_special=False)
    whole = tokenizer.encode("a", add_special=True, parse_special=False)
    for start in range(len(whole) - len(bare) + 1):
        end = start + len(bare)
        if whole[start:end] == bare:
            return whole[end:]
    return []


def answer(model: str, job: EmbeddingJob, vectors: bytes) -> bytes:
    """The response. vectors: those of the job's inputs one behind the other, as little-endian 32-bit floats."""
    size = job.dimensions * _FLOAT_BYTES
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vectors[start : start + size], job.base64)}
        for index, start in enumerate(range(0, len(vectors), size))
    ]
    usage = {"prompt_tokens": job.tokens, "total_tokens": job.tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _written(vector: bytes, base64: bool) -> msgspec.Raw:
    """A vector as it stands in the answer. Each by itself: millions of numbers in one go would hold up every thread."""
    return msgspec.Raw(msgspec.json.encode(vector if base64 else array("f", vector).tolist()))  # bytes become base64


def _inputs(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """The inputs, which must be of one kind."""
    inputs: Any = given
    if isinstance(given, str) or (given and all(isinstance(item, int) for item in given)):
        inputs = [given]
    elif len({type(item) for item in given}) != 1:
        raise errors.bad_request(
            "'input' must be a string, strings, token ids or lists of token ids, not empty and not a mix.", "input"
        )
    if len(inputs) > MAX_INPUTS:
        raise errors.bad_request(
            f"A request may have at most {MAX_INPUTS} inputs, and this one has {len(inputs)}.", "input"
        )
    checked: list[str | list[int]] = inputs
    return checked


def _tokens(given: str | list[int], where: str, target: EmbeddingTarget, truncate: bool) -> list[int]:
    """The tokens of an input, which stands at `where` in the request."""
    closing: list[int] = []
    if not given:
        raise errors.bad_request(f"'{where}' is empty.", "input")
    if isinstance(given, str):
        if len(given) > MAX_CHARACTERS:
            raise errors.bad_request(
                f"'{where}' has {len(given)} characters, and at most {MAX_CHARACTERS} are taken.", "input"
            )
        tokens = target.tokenizer.encode(given, add_special=True, parse_special=True)
        closing = list(target.closing)
    else:
        tokens = given
        vocabulary = len(target.tokenizer.pieces)
        if min(tokens) < 0 or max(tokens) >= vocabulary:
            raise errors.bad_request(
                f"'{where}' holds a token id outside the vocabulary of {vocabulary} tokens.", "input"
            )
    if not tokens:
        raise errors.bad_request(f"'{where}' has no token.", "input")
    if len(tokens) > target.window:
        if not truncate:
            raise errors.input_too_long(target.window, len(tokens), where)
        tokens = tokens[: target.window - len(closing)] + closing
    return tokens
