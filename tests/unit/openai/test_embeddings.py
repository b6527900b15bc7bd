"""`/v1/embeddings`: what is asked of the engine, what is refused, and the answer on the wire."""

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.openai import requests
from inferno_runtime.openai.embeddings import (
    EmbeddingJob,
    EmbeddingsRequest,
    EmbeddingTarget,
    answer,
    closing_tokens,
    embedding_job,
)
from inferno_runtime.openai.errors import ApiError
from tests.unit.server.fakes import BOS, IM_END, ByteTokenizer

WINDOW = 16
DIMENSIONS = 8


class Bracketing(ByteTokenizer):
    """Puts a token before every text and one behind it, as encoders want it."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        tokens = super().encode(text, add_special=False, parse_special=parse_special)
        return [BOS, *tokens, IM_END] if add_special else tokens


def target(truncate: bool = False, tokenizer: ByteTokenizer | None = None, window: int = WINDOW) -> EmbeddingTarget:
    tokenizer = tokenizer or ByteTokenizer()
    return EmbeddingTarget(tokenizer, window, DIMENSIONS, closing_tokens(tokenizer), truncate)


def job(to: EmbeddingTarget | None = None, **fields: Any) -> EmbeddingJob:
    body = msgspec.json.encode({"model": "m", "input": "Hi", **fields})
    return embedding_job(requests.decode(body, EmbeddingsRequest), to or target())


WRONG: dict[str, tuple[str, Any, str]] = {
    "no model": ("model", None, "invalid_value"),
    "a model that is a number": ("model", 7, "invalid_value"),
    "an input that is null": ("input", None, "invalid_value"),
    "an empty text": ("input", "", "invalid_value"),
    "an empty list": ("input", [], "invalid_value"),
    "an empty text among others": ("input", ["a", ""], "invalid_value"),
    "an empty list of ids": ("input", [[]], "invalid_value"),
    "an empty list of ids among others": ("input", [[1], []], "invalid_value"),
    "a number": ("input", 5, "invalid_value"),
    "a fraction": ("input", 1.5, "invalid_value"),
    "a truth": ("input", True, "invalid_value"),
    "an object": ("input", {"text": "a"}, "invalid_value"),
    "objects": ("input", [{"text": "a"}], "invalid_value"),
    "fractions": ("input", [1.5], "invalid_value"),
    "truths": ("input", [True], "invalid_value"),
    "nulls": ("input", [None], "invalid_value"),
    "texts and ids": ("input", ["a", 1], "invalid_value"),
    "ids and texts": ("input", [1, "a"], "invalid_value"),
    "texts and lists": ("input", ["a", [1]], "invalid_value"),
    "ids and lists": ("input", [1, [1]], "invalid_value"),
    "lists of texts": ("input", [["a"]], "invalid_value"),
    "lists of lists": ("input", [[[1]]], "invalid_value"),
    "an id below the vocabulary": ("input", [-1], "invalid_value"),
    "an id above the vocabulary": ("input", [259], "invalid_value"),
    "an id beyond 64 bits": ("input", [2**80], "invalid_value"),
    "an id above it in one of the lists": ("input", [[1], [2, 259]], "invalid_value"),
    "too many characters": ("input", "x" * 8001, "invalid_value"),
    "too many characters in one of the texts": ("input", ["a", "x" * 8001], "invalid_value"),
    "too many texts": ("input", ["a"] * 101, "invalid_value"),
    "too many lists": ("input", [[1]] * 101, "invalid_value"),
    "a text beyond the window": ("input", "x" * 17, "context_length_exceeded"),
    "ids beyond the window": ("input", [65] * 17, "context_length_exceeded"),
    "one text beyond the window": ("input", ["a", "x" * 17], "context_length_exceeded"),
    "no dimensions": ("dimensions", 0, "invalid_value"),
    "less than none": ("dimensions", -4, "invalid_value"),
    "more than the model has": ("dimensions", 9, "invalid_value"),
    "a fraction of dimensions": ("dimensions", 4.5, "invalid_value"),
    "dimensions in words": ("dimensions", "4", "invalid_value"),
    "an unknown format": ("encoding_format", "hex", "invalid_value"),
    "a format that is a number": ("encoding_format", 1, "invalid_value"),
    "formats": ("encoding_format", ["float"], "invalid_value"),
    "truncate in words": ("truncate", "yes", "invalid_value"),
    "truncate as a number": ("truncate", 1, "invalid_value"),
    "a user that is a number": ("user", 7, "invalid_value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_named(name: str) -> None:
    field, value, code = WRONG[name]
    with pytest.raises(ApiError) as caught:
        job(**{field: value})
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, field, code)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"input":"a"}', "model", "missing_required_parameter"),
        (b'{"model":"m"}', "input", "missing_required_parameter"),
        (b"", None, "invalid_json"),
        (b"[]", None, "invalid_json"),
        (b'{"model":"m","input":"\\ud800"}', None, "invalid_json"),
        (b'{"model":"m","input":["\xff"]}', None, "invalid_json"),
        (b'{"model":"m","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "input", "invalid_value"),
    ],
)
def test_a_body_that_is_no_request(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        embedding_job(requests.decode(body, EmbeddingsRequest), target())
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


def test_the_input_that_is_too_long_is_named_with_both_numbers() -> None:
    with pytest.raises(ApiError, match=r"up to 16 tokens, and 'input\[1\]' has 20;"):
        job(input=["a", "x" * 20])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Hi", [[72, 105]]),
        (["Hi", "Ho"], [[72, 105], [72, 111]]),
        ([72, 105], [[72, 105]]),
        ([[72], [105, 106]], [[72], [105, 106]]),
        (["same", "same"], [[115, 97, 109, 101]] * 2),
        (["a"] * 100, [[97]] * 100),
        ("é" * 8, [list("é".encode()) * 8]),
        ("x" * 16, [[120] * 16]),
        ("<|im_end|>", [[IM_END]]),  # as tokenizers of encoders read their separators
    ],
)
def test_inputs(given: Any, expected: list[list[int]]) -> None:
    assert job(input=given).inputs == expected


def test_8000_characters_are_taken() -> None:
    assert job(target(window=8000), input="x" * 8000).tokens == 8000


def test_a_text_gets_the_tokens_that_the_model_wants_around_it_and_ids_are_taken_as_they_are() -> None:
    to = target(tokenizer=Bracketing())
    assert job(to, input="Hi").inputs == [[BOS, 72, 105, IM_END]]
    assert job(to, input=[72, 105]).inputs == [[72, 105]]


@pytest.mark.parametrize(
    ("configured", "asked", "cut"),
    [(False, True, True), (True, None, True), (True, False, False), (False, None, False)],
)
def test_truncate_is_as_asked_or_else_as_configured(configured: bool, asked: bool | None, cut: bool) -> None:
    if cut:
        assert job(target(configured), input="x" * 30, truncate=asked).inputs == [[120] * 16]
    else:
        with pytest.raises(ApiError, match="up to 16 tokens"):
            job(target(configured), input="x" * 30, truncate=asked)


def test_what_is_truncated_keeps_the_token_that_ends_it() -> None:
    to = target(tokenizer=Bracketing())
    assert job(to, input="x" * 30, truncate=True).inputs == [[BOS, *[120] * 14, IM_END]]
    assert job(to, input=[7] * 30, truncate=True).inputs == [[7] * 16]
    assert job(to, input="x" * 30, truncate=True).tokens == 16


def test_truncate_does_not_lift_the_limit_of_characters() -> None:
    with pytest.raises(ApiError, match="at most 8000"):
        job(input="x" * 8001, truncate=True)


@pytest.mark.parametrize(("asked", "expected"), [(None, 8), (8, 8), (1, 1)])
def test_dimensions(asked: int | None, expected: int) -> None:
    assert job(dimensions=asked).dimensions == expected


@pytest.mark.parametrize(("asked", "expected"), [(None, False), ("float", False), ("base64", True)])
def test_formats(asked: str | None, expected: bool) -> None:
    assert job(encoding_format=asked).base64 is expected


def test_what_is_unknown_is_ignored() -> None:
    assert job(user="me", metadata={"a": 1}, input_type="query") == job()


@pytest.mark.parametrize(
    ("tokenizer", "expected"), [(ByteTokenizer(), []), (ByteTokenizer(add_bos=True), []), (Bracketing(), [IM_END])]
)
def test_closing_tokens(tokenizer: ByteTokenizer, expected: list[int]) -> None:
    assert closing_tokens(tokenizer) == expected


@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_both_formats_hold_every_bit(vectors: list[list[float]]) -> None:
    inputs = [[1, 2]] * len(vectors)
    packed = b"".join(struct.pack("<3f", *vector) for vector in vectors)
    plain = msgspec.json.decode(answer("m", EmbeddingJob(inputs, 3, base64=False), packed))
    assert plain == {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "model": "m",
        "usage": {"prompt_tokens": 2 * len(vectors), "total_tokens": 2 * len(vectors)},
    }
    coded = msgspec.json.decode(answer("m", EmbeddingJob(inputs, 3, base64=True), packed))
    assert b"".join(base64.b64decode(item["embedding"]) for item in coded["data"]) == packed
    assert [item["index"] for item in coded["data"]] == list(range(len(vectors)))
