"""Embeddings by real models: random ones against plain numpy, the built-in one, and MiniLM where it is at hand."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import gguf
import httpx
import numpy as np
import openai
import pytest
from numpy.typing import ArrayLike
from onnx.reference import ReferenceEvaluator

from inferno_runtime.backends import load_encoder, load_tokenizer
from inferno_runtime.backends.base import Encoder
from inferno_runtime.config import EngineConfig
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins
from tests.runtime.bert import Bert
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.random_models import ENCODER_CONTEXT, WIDTH, encoder, llama

TEXTS = ["a", "a cat", "the cat sat on the mat", "zebras", "what is it", "xyz " * 10]
SECONDS = 120  # a start takes no longer


def cosine(one: ArrayLike, other: ArrayLike) -> float:
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def loaded(path: Path, **engine: Any) -> Encoder:
    return load_encoder(str(path), EngineConfig(threads=1, **engine))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the reference is computed from."""
    return encoder(tmp_path_factory.mktemp("models") / "encoder.gguf")


@pytest.fixture(scope="module")
def model(model_format: str, weights: Path) -> Path:
    """The same model in either format."""
    return weights if model_format == "gguf" else onnx_twins.encoder(weights, weights.parent / "onnx")


@pytest.fixture(scope="module")
def embedder(model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(str(model), "--name", MODEL) as process:
        yield process


@pytest.fixture(scope="module")
def openai_client(embedder: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=embedder.url, api_key="none", max_retries=0, timeout=60, _strict_response_validation=True
    ) as strict:
        yield strict


def embed(server: ServerProcess, given: object, **fields: object) -> Any:
    response = server.client.post("/v1/embeddings", json={"model": MODEL, "input": given, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def vectors(server: ServerProcess, given: object, **fields: object) -> list[list[float]]:
    return [item["embedding"] for item in embed(server, given, **fields)["data"]]


# The encoder itself


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("stated", [True, False])
def test_an_encoder_says_what_its_weights_say(
    pooling: Literal["mean", "cls", "last"], stated: bool, model_format: str, tmp_path: Path
) -> None:
    kind = gguf.PoolingType[pooling.upper()] if stated else gguf.PoolingType.NONE
    weights = path = encoder(tmp_path / "encoder.gguf", kind)
    if model_format == "onnx":
        path = onnx_twins.encoder(weights, tmp_path / "onnx")
    tokenizer = load_tokenizer(str(path))
    assert tokenizer.task == "embed"
    sequences = [tokenizer.encode(text, add_special=True, parse_special=True) for text in TEXTS]
    made = loaded(path, pooling=None if stated else pooling)
    try:
        assert (made.info.task, made.info.dimensions, made.context) == ("embed", WIDTH, ENCODER_CONTEXT)
        got, reference = made.encode(sequences), Bert(weights)
        for row, tokens in zip(got, sequences, strict=True):
            assert cosine(row, reference.embed(tokens, pooling)) > 0.9995
    finally:
        made.close()


def test_sequences_of_a_batch_do_not_see_each_other(model: Path) -> None:
    rng = random.Random(1)
    made = loaded(model, micro_batch=512)
    try:
        sequences = [[rng.randrange(5, 57) for _ in range(rng.randrange(1, ENCODER_CONTEXT))] for _ in range(8)]
        for row, tokens in zip(made.encode(sequences), sequences, strict=True):
            assert cosine(row, made.encode([tokens])[0]) > 0.9999
    finally:
        made.close()


def test_a_decoder_reads_a_long_input_in_pieces(tmp_path: Path) -> None:
    path = llama(tmp_path / "decoder.gguf")
    rng = random.Random(2)
    tokens = [rng.randrange(10, 1700) for _ in range(300)]
    whole, in_pieces = loaded(path, micro_batch=512), loaded(path, micro_batch=32)
    try:
        assert cosine(whole.encode([tokens])[0], in_pieces.encode([tokens])[0]) > 0.999
        assert cosine(whole.encode([tokens])[0], whole.encode([tokens[:-1]])[0]) < 0.99
    finally:
        whole.close()
        in_pieces.close()


@pytest.mark.parametrize(
    ("make", "flags", "cause"),
    [
        (encoder, ["--task", "generate"], "bert models can embed, but not generate text"),
        (encoder, ["--context-length", "65"], "contextLength is 65, and the model has only 64 positions"),
        (encoder, ["--draft", str(DEFAULT_MODEL)], "has no use for a draft model"),
        (
            lambda path: encoder(path, gguf.PoolingType.RANK),
            ["--task", "embed"],
            "a reranker, which gives scores and no vectors: serve it with task: rerank",
        ),
        (encoder, ["--task", "rerank"], "not a reranker: the file names no pooling of that kind"),
    ],
    ids=["task", "window", "draft", "reranker", "no-reranker"],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_1(
    make: Any, flags: list[str], cause: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "model.gguf")
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(path), "--port", "0", "--threads", "1", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"inferno: {path}: ")
    assert cause in done.stderr


# The server


def test_vectors_are_those_of_the_weights_and_have_length_one(
    embedder: ServerProcess, model: Path, weights: Path
) -> None:
    tokenizer, reference = load_tokenizer(str(model)), Bert(weights)
    body = embed(embedder, TEXTS)
    tokens = [tokenizer.encode(text, add_special=True, parse_special=True) for text in TEXTS]
    for item, own in zip(body["data"], tokens, strict=True):
        assert cosine(item["embedding"], reference.embed(own)) > 0.9995
        assert np.linalg.norm(item["embedding"]) == pytest.approx(1, abs=1e-6)
    assert body["usage"]["prompt_tokens"] == sum(map(len, tokens))


def test_openais_client(openai_client: openai.OpenAI) -> None:
    lenient = openai_client.with_options(_extra_kwargs={"_strict_response_validation": False})
    coded = lenient.embeddings.create(
        model=MODEL, input=TEXTS
    )  # which asks for base64 by itself, and has no type for it
    plain = openai_client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert np.allclose([item.embedding for item in coded.data], [item.embedding for item in plain.data], atol=1e-5)
    assert [item.index for item in coded.data] == list(range(len(TEXTS)))
    assert coded.usage.total_tokens == coded.usage.prompt_tokens > len(TEXTS)
    short = lenient.embeddings.create(model=MODEL, input=TEXTS, dimensions=8)
    for cut, whole in zip(short.data, plain.data, strict=True):
        assert len(cut.embedding) == 8
        assert np.linalg.norm(cut.embedding) == pytest.approx(1, abs=1e-6)
        assert cosine(cut.embedding, whole.embedding[:8]) > 0.99999
    with pytest.raises(openai.BadRequestError) as wrong:
        openai_client.embeddings.create(model=MODEL, input="a", dimensions=WIDTH + 1)
    assert wrong.value.param == "dimensions"


def test_texts_and_their_tokens_have_the_same_vectors(embedder: ServerProcess, model: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    tokens = [tokenizer.encode(text, add_special=True, parse_special=True) for text in TEXTS]
    for one, other in zip(vectors(embedder, TEXTS), vectors(embedder, tokens), strict=True):
        assert cosine(one, other) > 0.9999
    assert cosine(vectors(embedder, tokens[2])[0], vectors(embedder, TEXTS[2])[0]) > 0.9999


def test_vectors_are_the_same_whatever_they_are_encoded_with(embedder: ServerProcess) -> None:
    rng = random.Random(3)
    texts = ["".join(rng.choices("abcdefg ", k=rng.randrange(1, 50))) + "x" for _ in range(40)]
    alone = {text: vectors(embedder, text)[0] for text in texts}
    requests = [rng.choices(texts, k=rng.choice([1, 1, 5, 30])) for _ in range(60)]
    with ThreadPoolExecutor(16) as pool:
        for request, answer in zip(requests, pool.map(lambda r: vectors(embedder, r), requests), strict=True):
            for text, vector in zip(request, answer, strict=True):
                assert cosine(vector, alone[text]) > 0.9999


def test_an_input_beyond_the_window(embedder: ServerProcess, model: Path, weights: Path) -> None:
    text = "abc " * 50
    response = embedder.client.post("/v1/embeddings", json={"model": MODEL, "input": text})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "input", "context_length_exceeded")
    assert f"{ENCODER_CONTEXT} tokens" in error["message"]
    assert "152" in error["message"]
    body = embed(embedder, text, truncate=True)
    assert body["usage"]["prompt_tokens"] == ENCODER_CONTEXT
    tokens = load_tokenizer(str(model)).encode(text, add_special=True, parse_special=True)
    kept = [*tokens[: ENCODER_CONTEXT - 1], tokens[-1]]  # the separator ends it all the same
    assert cosine(body["data"][0]["embedding"], Bert(weights).embed(kept)) > 0.9995


def test_a_hundred_inputs_that_fill_the_window(embedder: ServerProcess) -> None:
    body = embed(embedder, [[5 + number % 50] * ENCODER_CONTEXT for number in range(100)])
    assert [item["index"] for item in body["data"]] == list(range(100))
    assert body["usage"]["prompt_tokens"] == 100 * ENCODER_CONTEXT


def test_a_model_is_served_for_one_task(embedder: ServerProcess, server: ServerProcess) -> None:
    for response in (
        embedder.chat(),
        embedder.complete("Hi"),
        server.client.post("/v1/embeddings", json={"model": MODEL, "input": "Hi"}),
    ):
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "unsupported_task"


def test_what_the_server_says_of_itself(embedder: ServerProcess, model_format: str) -> None:
    health = embedder.client.get("/health").json()
    assert (health["status"], health["format"], health["task"]) == ("healthy", model_format, "embed")
    (model,) = embedder.client.get("/v1/models").json()["data"]
    assert model["max_model_len"] == ENCODER_CONTEXT
    assert f"{WIDTH} dimensions, inputs of up to {ENCODER_CONTEXT} tokens" in embedder.log


def test_a_model_that_generates_can_be_served_to_embed() -> None:
    with ServerProcess("--task", "embed", "--pooling", "mean") as server:
        paris, rome, sum_ = vectors(server, ["The capital of France", "The capital of Italy", "12 + 30 = "])
        assert np.linalg.norm(paris) == pytest.approx(1, abs=1e-6)
        assert cosine(paris, rome) > cosine(paris, sum_)
        assert server.chat().json()["error"]["code"] == "unsupported_task"


def test_an_engine_that_stands_still_is_started_again(model: Path) -> None:
    with ServerProcess(str(model), "--name", MODEL, "--stall-seconds", "5") as server:
        before = vectors(server, "a cat")
        os.kill(server.engine_pid(), signal.SIGSTOP)
        assert vectors(server, "a cat") == before  # from the next one
        assert f'inferno_engine_restarts_total{{model_name="{MODEL}"}} 1.0' in server.client.get("/metrics").text


def test_a_full_queue_refuses_and_goes_on(model: Path) -> None:
    with ServerProcess(str(model), "--name", MODEL, "--slots", "1", "--max-queue", "0") as server:
        os.kill(server.engine_pid(), signal.SIGSTOP)

        def post() -> httpx.Response:
            return server.client.post("/v1/embeddings", json={"model": MODEL, "input": "a cat"})

        with ThreadPoolExecutor(2) as pool:
            requests = [pool.submit(post) for _ in range(2)]
            refused = next(as_completed(requests)).result()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) > 0
            os.kill(server.engine_pid(), signal.SIGCONT)
            assert sorted(request.result().status_code for request in requests) == [200, 503]


# A model of the world's


def mini_lm(pattern: str = "all-MiniLM-L6-v2-*.gguf") -> Path:
    folder = os.environ.get("INFERNO_TEST_MODELS")
    found = sorted(Path(folder).glob(pattern)) if folder else []
    if not found:
        pytest.skip(f"INFERNO_TEST_MODELS names no folder with {pattern}")
    return found[0]


TEXTS = [
    "A man is playing the guitar.",
    "Somebody makes music on a stringed instrument.",
    "The stock market fell by two percent on Tuesday.",
    "Où est la bibliothèque ?",
    "hello world",
]


def test_mini_lm_says_what_its_weights_say_and_knows_what_is_alike() -> None:
    path = mini_lm()
    tokenizer, reference = load_tokenizer(str(path)), Bert(path)
    assert tokenizer.encode("hello world", add_special=True, parse_special=True) == [101, 7592, 2088, 102]
    with ServerProcess(str(path), "--name", MODEL) as server:
        got = vectors(server, TEXTS)
    for text, vector in zip(TEXTS, got, strict=True):
        tokens = tokenizer.encode(text, add_special=True, parse_special=True)
        assert len(vector) == 384
        assert cosine(vector, reference.embed(tokens)) > 0.999
    assert cosine(got[0], got[1]) > 0.4 > cosine(got[0], got[2])


def test_mini_lm_says_what_it_says_in_full_precision() -> None:
    path, full = mini_lm(), mini_lm("all-MiniLM-L6-v2-onnx/model.onnx")
    reference = ReferenceEvaluator(str(full))  # plain numpy, in single precision
    tokenizer = load_tokenizer(str(path))
    with ServerProcess(str(path), "--name", MODEL) as server:
        got = vectors(server, TEXTS)
    for text, vector in zip(TEXTS, got, strict=True):
        tokens = np.array([tokenizer.encode(text, add_special=True, parse_special=True)], dtype=np.int64)
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        (states,) = reference.run(None, inputs)
        assert cosine(vector, np.asarray(states)[0].mean(axis=0)) >= 0.999
