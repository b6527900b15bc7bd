"""`/v1/rerank`: the body of a request, what it asks of the engine, and the answer.

The shape is Jina's and Cohere's. Everything here is a plain function of the request and the model, and safe to call in a thread.
"""

import math
from array import array
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferno_runtime.backends.base import Pair, Tokenizer
from inferno_runtime.engine.request import Priority
from inferno_runtime.openai import errors

MAX_CHARACTERS = 32_000  # of the query, and of a document
MAX_DOCUMENTS = 1000
MAX_TOTAL = 8_000_000  # characters of all pairs together, in each of which is the query


class RerankDocument(msgspec.Struct, frozen=True):
    """A document as an object; what it has besides is ignored."""

    text: str


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body: a query and documents. Null is the same as leaving a field out."""

    model: str
    query: str
    documents: list[str | RerankDocument]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    truncate: bool | None = None
    user: str | None = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class RerankTarget:
    """The model that a request goes to, as far as conversion needs it."""

    tokenizer: Tokenizer
    window: int  # most tokens of a query and a document together
    truncate: bool  # whether documents that are too long lose their end, if the request does not say


@dataclass(frozen=True, slots=True)
class RerankJob:
    """What one request asks of the engine: a score for each pair of the query and a document."""

    pairs: list[Pair]
    documents: list[str]
    top: int  # results that are wanted, the best first
    with_documents: bool
    raw: bool  # scores as the model gives them

    @property
    def inputs(self) -> list[list[int]]:
        """The tokens of each pair."""
        return [pair.tokens for pair in self.pairs]

    @property
    def tokens(self) -> int:
        """Of all pairs together."""
        return sum(len(pair.tokens) for pair in self.pairs)


def rerank_job(request: RerankRequest, target: RerankTarget) -> RerankJob:
    """The job of a request. Raises `ApiError`."""
    documents = [item if isinstance(item, str) else item.text for item in request.documents]
    _check(request.query, documents)
    truncate = target.truncate if request.truncate is None else request.truncate
    pairs = [
        _pair(request.query, text, f"documents[{index}]", target, truncate) for index, text in enumerate(documents)
    ]
    return RerankJob(
        pairs,
        documents,
        top=min(request.top_n or len(documents), len(documents)),
        with_documents=bool(request.return_documents),
        raw=bool(request.raw_scores),
    )


def answer(request_id: str, model: str, job: RerankJob, logits: bytes) -> bytes:
    """The response. logits: of the job's pairs one behind the other, as little-endian 32-bit floats."""
    scores = array("f", logits)
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: job.top]  # of equals the first stays so
    results = []
    for index in best:
        score = scores[index] if job.raw else logistic(scores[index])
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if job.with_documents:
            result["document"] = {"text": job.documents[index]}
        results.append(result)
    usage = {"prompt_tokens": job.tokens, "total_tokens": job.tokens}
    return msgspec.json.encode(
        {"id": f"rerank-{request_id}", "object": "list", "model": model, "results": results, "usage": usage}
    )


def logistic(logit: float) -> float:
    """The probability that a logit stands for."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def _check(query: str, documents: list[str]) -> None:
    if not query:
        raise errors.bad_request("'query' is empty.", "query")
    if not 1 <= len(documents) <= MAX_DOCUMENTS:
        raise errors.bad_request(
            f"A request must have 1 to {MAX_DOCUMENTS} documents, and this one has {len(documents)}.", "documents"
        )
    places = [("query", query), *((f"documents[{index}]", text) for index, text in enumerate(documents))]
    for place, text in places:
        if len(text) > MAX_CHARACTERS:
            raise errors.bad_request(
                f"'{place}' has {len(text)} characters, and at most {MAX_CHARACTERS} are taken.",
                place.partition("[")[0],
            )
    total = len(documents) * len(query) + sum(map(len, documents))
    if total > MAX_TOTAL:
        raise errors.bad_request(
            f"The query with each of the documents has {total} characters in all, and at most {MAX_TOTAL} are taken.",
            "documents",
        )


def _pair(query: str, document: str, where: str, target: RerankTarget, truncate: bool) -> Pair:
    """The tokens of the query and a document, which stands at `where` in the request."""
    pair = target.tokenizer.encode_pair(query, document)
    if len(pair.tokens) <= target.window:
        return pair
    if not truncate:
        raise errors.pair_too_long(target.window, len(pair.tokens), where)
    return _shortened(query, document, target, len(document) * target.window // len(pair.tokens))


def _shortened(query: str, document: str, target: RerankTarget, count: int) -> Pair:
    """The pair with as much of the document's beginning as fits, which is about `count` characters."""
    best = target.tokenizer.encode_pair(query, "")
    if len(best.tokens) > target.window:
        raise errors.pair_too_long(target.window, len(best.tokens), "query")
    fits, too_many = 0, len(document)
    while too_many - fits > 1:
        count = min(max(count, fits + 1), too_many - 1)
        pair = target.tokenizer.encode_pair(query, document[:count])
        if len(pair.tokens) <= target.window:
            best, fits = pair, count
        else:
            too_many = count
        # Not at once to the middle of a text that may be much longer than what fits: all of that would be read.
        count = min((fits + too_many) // 2, fits + fits // 4 + 16)
    return best
