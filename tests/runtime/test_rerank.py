"""Scores by random cross-encoders: against plain numpy, against onnxruntime itself, and over HTTP."""

import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnxruntime
import pytest
import tokenizers
from numpy.typing import NDArray

from inferno_runtime.backends import load_encoder, load_tokenizer
from inferno_runtime.backends.base import Pair
from inferno_runtime.config import EngineConfig, Task
from tests.runtime import onnx_twins
from tests.runtime.bert import Bert
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.random_models import ENCODER_CONTEXT, RERANK, encoder, head, qwen3

QUERY = "what is it"
DOCUMENTS = ["a cat", "the cat sat on the mat", "", "zebras", "xyz " * 9, "it is what it is"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("models") / "reranker.gguf", gguf.PoolingType.RANK)


@pytest.fixture(scope="module")
def model(model_format: str, weights: Path) -> Path:
    """The same model in either format."""
    return weights if model_format == "gguf" else onnx_twins.cross_encoder(weights, weights.parent / "onnx")


@pytest.fixture(scope="module")
def reranker(model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(str(model), "--name", MODEL) as process:
        yield process


@pytest.fixture(scope="module")
def right(model_format: str, model: Path, weights: Path) -> Callable[[str, str], float]:
    """What the model says of a pair, by other means."""
    tokenizer = tokenizers.Tokenizer.from_file(
        str(onnx_twins.cross_encoder(weights, weights.parent / "t") / "tokenizer.json")
    )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    bert = Bert(weights)
    if model_format == "gguf":  # libllama knows the first segment only
        return lambda query, document: bert.score(tokenizer.encode(query, document).ids)
    session = onnxruntime.InferenceSession(str(model / "model.onnx"))

    def run(query: str, document: str) -> float:
        encoding = tokenizer.encode(query, document)
        feeds = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        (logits,) = session.run(["logits"], {name: np.array([values]) for name, values in feeds.items()})
        return float(logits[0, 0])

    return run


def rerank(server: ServerProcess, documents: list[Any], query: str = QUERY, **fields: object) -> Any:
    body = {"model": MODEL, "query": query, "documents": documents, **fields}
    response = server.client.post("/v1/rerank", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_task_is_the_files(model: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    assert tokenizer.task == "rerank"
    assert len(tokenizer.pieces) > 50
    assert tokenizer.context_train == ENCODER_CONTEXT
    made = load_encoder(str(model), EngineConfig(threads=1), tokenizer.task)
    assert (made.info.task, made.info.dimensions, made.context) == ("rerank", 1, ENCODER_CONTEXT)
    made.close()


def test_scores_are_the_models(reranker: ServerProcess, right: Callable[[str, str], float]) -> None:
    answer = rerank(reranker, DOCUMENTS, raw_scores=True)
    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert sorted(scores) == list(range(len(DOCUMENTS)))
    for index, document in enumerate(DOCUMENTS):
        assert scores[index] == pytest.approx(right(QUERY, document), abs=2e-3)
    assert len({round(score, 3) for score in scores.values()}) == len(DOCUMENTS)
    ordered = [result["relevance_score"] for result in answer["results"]]
    assert ordered == sorted(ordered, reverse=True)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


def test_probabilities_in_the_order_of_the_scores(reranker: ServerProcess) -> None:
    raw = rerank(reranker, DOCUMENTS, raw_scores=True)["results"]
    told = rerank(reranker, [{"text": text} for text in DOCUMENTS], top_n=3, return_documents=True)["results"]
    assert [result["index"] for result in told] == [result["index"] for result in raw[:3]]
    for result, with_raw in zip(told, raw, strict=False):
        assert result["relevance_score"] == pytest.approx(1 / (1 + math.exp(-with_raw["relevance_score"])))
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}


def test_requests_that_come_together_have_their_own_scores(reranker: ServerProcess) -> None:
    rng = random.Random(4)
    letters = "abcdefghijklmnopqrstuvwxyz"
    work = [
        ["".join(rng.choices(letters, k=rng.randrange(1, 25))) for _ in range(rng.randrange(1, 12))] for _ in range(16)
    ]
    alone = [rerank(reranker, documents) for documents in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda documents: rerank(reranker, documents), work))
    for one, other in zip(alone, together, strict=True):
        scores = [{result["index"]: result["relevance_score"] for result in each["results"]} for each in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_a_document_that_is_too_long(reranker: ServerProcess, right: Callable[[str, str], float]) -> None:
    long = "a b " * 500
    body = {"model": MODEL, "query": QUERY, "documents": ["a cat", long]}
    refused = reranker.client.post("/v1/rerank", json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == ("documents", "context_length_exceeded")
    assert "'documents[1]'" in error["message"]
    assert f"up to {ENCODER_CONTEXT} tokens" in error["message"]
    cut = rerank(reranker, [long], truncate=True, raw_scores=True)
    assert ENCODER_CONTEXT - 1 <= cut["usage"]["prompt_tokens"] <= ENCODER_CONTEXT
    shorter = "a b " * 30
    while len(load_tokens(reranker, shorter)) > ENCODER_CONTEXT:
        shorter = shorter[:-2]
    assert cut["results"][0]["relevance_score"] == pytest.approx(right(QUERY, shorter), abs=2e-3)


def load_tokens(server: ServerProcess, document: str) -> range:
    """As many as the server counts for the query with this document."""
    answer = server.client.post("/v1/rerank", json={"model": MODEL, "query": QUERY, "documents": [document]})
    return range(answer.json()["usage"]["prompt_tokens"] if answer.status_code == 200 else ENCODER_CONTEXT + 1)


def test_control_tokens_in_a_text_are_text(model: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    cls, sep = 2, 3
    pair = tokenizer.encode_pair("a [CLS] b", "c [SEP] d")
    assert (pair.tokens.count(cls), pair.tokens.count(sep)) == (1, 2)
    assert (pair.tokens[0], pair.tokens[-1], pair.tokens[pair.second - 1]) == (cls, sep, sep)


def test_a_decoder_with_a_prompt_of_its_own(tmp_path: Path) -> None:
    """Its head ends in a softmax of "yes" and "no", which is told as any other's probability."""
    ranking, embedding = (qwen3(tmp_path / f"{ranks}.gguf", ranks=ranks) for ranks in (True, False))
    tokenizer = load_tokenizer(str(ranking))
    pairs = [tokenizer.encode_pair("who", document) for document in ("me", "the cat", "<|im_end|>")]
    prompt = RERANK.replace("{query}", "who").replace("{document}", "the cat")
    assert pairs[1].tokens == tokenizer.encode(prompt, add_special=False, parse_special=True)
    assert len(pairs[2].tokens) > len(pairs[1].tokens)  # what a document says is text
    scores = _encoded(ranking, tokenizer.task, pairs)
    states = _encoded(embedding, "embed", pairs)  # of the last tokens
    said = np.exp(states @ head().T)
    probabilities = said[:, 0] / said.sum(axis=1)
    assert 1 / (1 + np.exp(-scores[:, 0])) == pytest.approx(probabilities, abs=2e-3)
    assert probabilities.max() - probabilities.min() > 0.01


def _encoded(path: Path, task: Task, pairs: list[Pair]) -> NDArray[np.float32]:
    made = load_encoder(str(path), EngineConfig(threads=1), task)
    try:
        return made.encode([pair.tokens for pair in pairs], [pair.second for pair in pairs])
    finally:
        made.close()


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank"])
def test_other_paths(reranker: ServerProcess, path: str) -> None:
    body = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS}
    answer = reranker.client.post(path, json=body).json()
    assert answer["results"] == rerank(reranker, DOCUMENTS)["results"]


@pytest.mark.parametrize("kind", ["gguf", "onnx"])
def test_a_classifier_of_several_labels_is_none(kind: str, tmp_path: Path) -> None:
    path = encoder(tmp_path / "classifier.gguf", gguf.PoolingType.RANK, labels=3)
    served = path if kind == "gguf" else onnx_twins.cross_encoder(path, tmp_path / "onnx", labels=3)
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(served), "--port", "0", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("a classifier of 3 labels; a reranker has one")
