"""Embeddings: the forms of an input and its limits, the vectors, and what a model is not served for."""

import base64
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance import models
from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, error_of
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.random_models import ENCODER_CONTEXT, WIDTH

FOX = "the quick brown fox jumps over the lazy dog"
DOCUMENTED_WIDTH = 1536


def post(server: ServerProcess, given: object, **fields: object) -> httpx.Response:
    return server.client.post("/v1/embeddings", json={"model": MODEL, "input": given, **fields})


def embed(server: ServerProcess, given: object, **fields: object) -> Any:
    """The answer, decoded."""
    response = post(server, given, **fields)
    assert response.status_code == 200, response.text
    return response.json()


def vectors(server: ServerProcess, given: object, **fields: object) -> list[list[float]]:
    return [item["embedding"] for item in embed(server, given, **fields)["data"]]


def length(vector: list[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))


# Inputs


@covers("embeddings.response", "embeddings.string", "matrix.embeddings.single")
def test_a_string_and_every_field_of_its_answer(embedder: ServerProcess) -> None:
    body = embed(embedder, FOX)
    assert set(body) == {"object", "data", "model", "usage"}
    assert (body["object"], body["model"]) == ("list", MODEL)
    (item,) = body["data"]
    assert set(item) == {"object", "embedding", "index"}
    assert (item["object"], item["index"]) == ("embedding", 0)
    assert all(isinstance(number, float) for number in item["embedding"])
    assert set(body["usage"]) == {"prompt_tokens", "total_tokens"}
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 9


@covers("embeddings.strings", "matrix.embeddings.batch")
def test_strings_have_a_vector_each_in_their_order(embedder: ServerProcess) -> None:
    texts = ["a", FOX, "a cat"]
    body = embed(embedder, texts)
    assert [item["index"] for item in body["data"]] == [0, 1, 2]
    for item, text in zip(body["data"], texts, strict=True):
        assert item["embedding"] == pytest.approx(vectors(embedder, text)[0], abs=1e-3)
    assert body["usage"]["prompt_tokens"] == sum(embed(embedder, text)["usage"]["prompt_tokens"] for text in texts)


@covers("embeddings.characters")
def test_an_input_of_8000_characters_and_none_longer(embedder: ServerProcess) -> None:
    # Beyond the model's window in any case, which `truncate` lifts, and the limit of characters it does not.
    assert post(embedder, "a" * 8000, truncate=True).status_code == 200
    for given in ("a" * 8001, ["a", "a" * 8001]):
        response = post(embedder, given, truncate=True)
        assert response.status_code == 400
        assert error_of(response)["param"] == "input"
        assert "8000" in error_of(response)["message"].replace(",", "")


@covers("embeddings.inputs", "matrix.embeddings.batch")
def test_a_hundred_inputs_and_no_more(embedder: ServerProcess) -> None:
    assert [item["index"] for item in embed(embedder, ["a"] * 100)["data"]] == list(range(100))
    response = post(embedder, ["a"] * 101)
    assert response.status_code == 400
    assert error_of(response)["param"] == "input"


@covers("embeddings.empty")
@pytest.mark.parametrize("given", ["", [], [""], ["a", ""], [[]], None, 5, {"text": "a"}, [5, "a"]], ids=str)
def test_an_input_that_is_empty_or_none(embedder: ServerProcess, given: object) -> None:
    response = post(embedder, given)
    assert response.status_code == 400
    assert error_of(response)["param"] == "input"


@covers("embeddings.required")
@pytest.mark.parametrize("missing", ["model", "input"])
def test_what_is_required(embedder: ServerProcess, missing: str) -> None:
    fields = {"model": MODEL, "input": "a"}
    del fields[missing]
    response = embedder.client.post("/v1/embeddings", json=fields)
    assert response.status_code == 400
    assert error_of(response)["param"] == missing


@covers("embeddings.window")
def test_an_input_beyond_the_window(embedder: ServerProcess) -> None:
    text = "abc " * 50
    response = post(embedder, text)
    error = error_of(response)
    assert response.status_code == 400
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")
    assert str(ENCODER_CONTEXT) in error["message"]
    assert "152" in error["message"]  # a letter is a token, and two stand around them
    assert embed(embedder, text, truncate=True)["usage"]["prompt_tokens"] == ENCODER_CONTEXT
    assert post(embedder, text, truncate=False).status_code == 400


@covers("embeddings.window")
def test_truncation_can_be_configured(embedding_model: models.Model) -> None:
    flags = ("--name", embedding_model.name, "--overlong-inputs", "truncate")
    with ServerProcess(str(embedding_model.path), *flags) as server:
        assert embed(server, "abc " * 50)["usage"]["prompt_tokens"] == ENCODER_CONTEXT
        assert post(server, "abc " * 50, truncate=False).status_code == 400
        assert post(server, "a" * 8001).status_code == 400


# Vectors


@covers("embeddings.length-one")
def test_vectors_have_length_one(embedder: ServerProcess) -> None:
    for vector in vectors(embedder, ["a", FOX, "a cat"]):
        assert length(vector) == pytest.approx(1, abs=1e-6)


@covers("embeddings.dimensions", "matrix.embeddings.dimensions")
def test_dimensions(embedder: ServerProcess) -> None:
    (whole,) = vectors(embedder, FOX)
    assert len(whole) == WIDTH
    for dimensions in (1, 8, WIDTH):
        (cut,) = vectors(embedder, FOX, dimensions=dimensions)
        scale = length(whole[:dimensions])
        assert cut == pytest.approx([number / scale for number in whole[:dimensions]], abs=1e-3)
        assert length(cut) == pytest.approx(1, abs=1e-6)


@covers("embeddings.dimensions")
@pytest.mark.parametrize("dimensions", [WIDTH + 1, 0, -1, 1.5, "8"], ids=str)
def test_dimensions_that_the_model_does_not_have(embedder: ServerProcess, dimensions: object) -> None:
    response = post(embedder, FOX, dimensions=dimensions)
    assert response.status_code == 400
    assert error_of(response)["param"] == "dimensions"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A model with as many dimensions as the one of the document's example."""
    folder: Path = tmp_path_factory.mktemp("wide")
    with ServerProcess(str(models.wide_encoder(folder, DOCUMENTED_WIDTH).path), "--name", MODEL) as server:
        yield server


@covers("embeddings.1536", "matrix.embeddings.dimensions")
def test_1536_dimensions_of_a_model_that_has_them(wide: ServerProcess) -> None:
    assert len(vectors(wide, FOX)[0]) == DOCUMENTED_WIDTH
    assert len(vectors(wide, FOX, dimensions=256)[0]) == 256
    assert post(wide, FOX, dimensions=DOCUMENTED_WIDTH + 1).status_code == 400


@covers("embeddings.base64", "matrix.embeddings.encoding-format")
def test_base64_is_little_endian_float32(embedder: ServerProcess) -> None:
    (plain,) = vectors(embedder, FOX, encoding_format="float")
    assert vectors(embedder, FOX)[0] == plain
    (item,) = embed(embedder, FOX, encoding_format="base64")["data"]
    numbers = array("f", base64.b64decode(item["embedding"], validate=True))
    assert numbers.tolist() == pytest.approx(plain, abs=1e-6)
    response = post(embedder, FOX, encoding_format="hex")
    assert response.status_code == 400
    assert error_of(response)["param"] == "encoding_format"


# What a model is not served for


@covers("embeddings.unsupported-task")
def test_a_model_that_generates_does_not_embed(server: ServerProcess) -> None:
    response = post(server, FOX)
    assert (response.status_code, error_of(response)["code"]) == (400, "unsupported_task")


@covers("embeddings.unsupported-task")
@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "stream/sse"])
def test_a_model_that_embeds_does_not_generate(embedder: ServerProcess, endpoint: str) -> None:
    prompt: dict[str, object] = {"messages": QUESTION} if endpoint == "chat/completions" else {"prompt": FOX}
    response = embedder.client.post(f"/v1/{endpoint}", json={"model": MODEL, **prompt})
    assert (response.status_code, error_of(response)["code"]) == (400, "unsupported_task")
