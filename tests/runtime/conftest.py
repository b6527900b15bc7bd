"""A server for all tests that do not end it, of either format: what is promised holds for both."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins
from tests.runtime.process import MODEL, ServerProcess


@pytest.fixture(scope="session", params=["gguf", "onnx"])
def model_format(request: pytest.FixtureRequest) -> str:
    """In which format the tiny model is served."""
    return str(request.param)


@pytest.fixture(scope="session")
def server(model_format: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags: list[str] = []
    if model_format == "onnx":
        folder = onnx_twins.decoder(DEFAULT_MODEL, tmp_path_factory.mktemp("onnx"))
        # Guesses are checked in batches of another shape, whose floats are rounded otherwise: two hot answers to the same
        # seed may then part somewhere. The GGUF model's sums are of integers, and exact.
        flags = [str(folder), "--name", MODEL, "--speculation", "off"]
    with ServerProcess(*flags) as process:
        yield process


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, which refuses answers that are not as it knows them."""
    with openai.OpenAI(
        base_url=server.url, api_key="none", max_retries=0, timeout=60, _strict_response_validation=True
    ) as strict:
        yield strict


@pytest.fixture(scope="session")
def lenient(client: openai.OpenAI) -> openai.OpenAI:
    """The same, for streams of `/v1/completions`: its types have no place for the null that OpenAI sends there, as the
    `finish_reason` of all events but the last.
    """
    return client.with_options(_extra_kwargs={"_strict_response_validation": False})


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model as ONNX; not to be changed."""
    return onnx_twins.decoder(DEFAULT_MODEL, tmp_path_factory.mktemp("twin"))
