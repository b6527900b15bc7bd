"""`/v1/rerank`: what is asked of the engine, what is refused, and the answer on the wire."""

from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.openai import requests, rerank
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.rerank import RerankJob, RerankRequest, RerankTarget, answer, logistic, rerank_job
from tests.unit.server.fakes import BOS, ByteTokenizer

WINDOW = 20


class Counting(ByteTokenizer):
    """Notes how much it is given to read."""

    read = 0

    def encode_pair(self, query: str, document: str) -> Any:
        self.read += len(query) + len(document)
        return super().encode_pair(query, document)


def job(cuts: bool = False, tokenizer: ByteTokenizer | None = None, **fields: Any) -> RerankJob:
    """cuts: whether the server is configured to truncate."""
    body = msgspec.json.encode({"model": "m", "query": "who", "documents": ["me", "you"], **fields})
    target = RerankTarget(tokenizer or ByteTokenizer(), WINDOW, cuts)
    return rerank_job(requests.decode(body, RerankRequest), target)


def test_each_document_is_paired_with_the_query() -> None:
    made = job(documents=["me", {"text": "you", "title": "ignored"}, ""])
    assert made.inputs == [[*b"who", BOS, *b"me"], [*b"who", BOS, *b"you"], [*b"who", BOS]]
    assert [pair.second for pair in made.pairs] == [4, 4, 4]
    assert (made.tokens, made.top, made.documents) == (6 + 7 + 4, 3, ["me", "you", ""])


@pytest.mark.parametrize(("top_n", "top"), [(None, 2), (1, 1), (2, 2), (99, 2)])
def test_how_many_are_wanted(top_n: int | None, top: int) -> None:
    assert job(top_n=top_n).top == top


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no query": ({"query": None}, "query", "invalid_value"),
    "an empty query": ({"query": ""}, "query", "invalid_value"),
    "a query that is an object": ({"query": {"text": "a"}}, "query", "invalid_value"),
    "a long query": ({"query": "x" * (rerank.MAX_CHARACTERS + 1)}, "query", "invalid_value"),
    "no documents": ({"documents": []}, "documents", "invalid_value"),
    "documents that are a text": ({"documents": "me"}, "documents", "invalid_value"),
    "a document that is a number": ({"documents": ["a", 1]}, "documents", "invalid_value"),
    "a document without text": ({"documents": [{"title": "a"}]}, "documents", "invalid_value"),
    "too many documents": ({"documents": ["a"] * (rerank.MAX_DOCUMENTS + 1)}, "documents", "invalid_value"),
    "a long document": ({"documents": ["x" * (rerank.MAX_CHARACTERS + 1)]}, "documents", "invalid_value"),
    "too much in all": ({"query": "x" * 20_000, "documents": ["a"] * 999}, "documents", "invalid_value"),
    "no results": ({"top_n": 0}, "top_n", "invalid_value"),
    "a document beyond the window": ({"documents": ["a", "x" * 40]}, "documents", "context_length_exceeded"),
    "a query beyond it": ({"query": "x" * 40, "truncate": True}, "query", "context_length_exceeded"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    fields, param, code = WRONG[name]
    with pytest.raises(ApiError) as caught:
        job(**fields)
    error = caught.value
    assert error.status == 400
    assert (str(error.param).partition("[")[0], error.code) == (param, code)


@pytest.mark.parametrize("configured", [True, False])
def test_truncation_is_as_asked_and_else_as_configured(configured: bool) -> None:
    long: dict[str, Any] = {"documents": ["x" * 40]}
    assert job(configured, documents=["fits"]).tokens == 8
    for asked, cut in [(True, True), (False, False), (None, configured)]:
        if cut:
            assert job(configured, truncate=asked, **long).inputs == [[*b"who", BOS, *b"x" * (WINDOW - 4)]]
        else:
            with pytest.raises(ApiError):
                job(configured, truncate=asked, **long)


@given(st.text(alphabet="aä€\N{GRINNING FACE}", max_size=60))
def test_as_much_of_a_document_stays_as_fits(document: str) -> None:
    (tokens,) = job(truncate=True, documents=[document]).inputs
    whole = [*b"who", BOS, *document.encode()]
    assert len(tokens) <= WINDOW
    assert tokens == whole[: len(tokens)]
    assert len(whole) <= WINDOW or len(tokens) > WINDOW - 4  # the next character did not fit


def test_cutting_a_long_document_reads_little_more_than_the_document() -> None:
    tokenizer = Counting()
    job(truncate=True, tokenizer=tokenizer, documents=["x" * 30_000])
    assert tokenizer.read < 30_000 + 20 * 100


def reply(job: RerankJob, logits: list[float]) -> Any:
    return msgspec.json.decode(answer("id", "m", job, array("f", logits).tobytes()))


def test_the_best_come_first_and_of_equals_the_first() -> None:
    told = reply(job(documents=["a", "b", "c", "d"], raw_scores=True), [0.5, 2.0, -1.0, 2.0])
    assert [(result["index"], result["relevance_score"]) for result in told["results"]] == [
        (1, 2.0),
        (3, 2.0),
        (0, 0.5),
        (2, -1.0),
    ]
    assert told | {"results": []} == {
        "id": "rerank-id",
        "object": "list",
        "model": "m",
        "results": [],
        "usage": {"prompt_tokens": 20, "total_tokens": 20},
    }


def test_documents_come_back_where_they_are_wanted() -> None:
    told = reply(job(return_documents=True, top_n=1), [0.0, 0.0])
    assert told["results"] == [{"index": 0, "relevance_score": 0.5, "document": {"text": "me"}}]


@given(st.floats(-1e4, 1e4))
def test_probabilities(logit: float) -> None:
    assert 0 <= logistic(logit) <= 1
    assert logistic(logit) == pytest.approx(1 - logistic(-logit))
