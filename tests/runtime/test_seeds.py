"""A seed and a request give one text: alone, in company, after a preemption and on a server that was started again."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins
from tests.runtime.process import MODEL, ServerProcess

# Longer or hotter, and an ONNX model's floats would part two of its answers now and then.
HOT: dict[str, Any] = {"temperature": 1, "max_tokens": 24, "ignore_eos": True}
SEEDS = range(6)


@pytest.fixture(scope="module", params=["gguf", "onnx"])
def flags(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How to serve the tiny model in each of its formats so that a seed is worth its name; see the API's page."""
    if request.param == "gguf":
        return []
    folder = onnx_twins.decoder(DEFAULT_MODEL, tmp_path_factory.mktemp("seeds"))
    return [str(folder), "--name", MODEL, "--speculation", "off"]


@pytest.fixture(scope="module")
def alone(flags: list[str]) -> tuple[list[str], str]:
    """What a server says to each seed that does nothing else, and its fingerprint."""
    with ServerProcess(*flags) as server:
        return [told(server, seed) for seed in SEEDS], fingerprint(server)


def told(server: ServerProcess, seed: int) -> str:
    response = server.complete("Once upon a time", seed=seed, **HOT)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def fingerprint(server: ServerProcess) -> str:
    return str(server.complete("Once", max_tokens=1).json()["system_fingerprint"])


def test_seeds_differ(alone: tuple[list[str], str]) -> None:
    assert len(set(alone[0])) == len(SEEDS)


def test_in_company_and_on_a_server_that_was_started_again(flags: list[str], alone: tuple[list[str], str]) -> None:
    with ServerProcess(*flags) as server, ThreadPoolExecutor(18) as pool:
        assert list(pool.map(lambda seed: told(server, seed), [*SEEDS] * 3)) == alone[0] * 3
        assert fingerprint(server) == alone[1]


def test_after_a_preemption(flags: list[str], alone: tuple[list[str], str]) -> None:
    long = HOT | {"max_tokens": 40}
    # The pool holds two of the sequences whole, and the beginnings of all.
    shared = ["--kv-layout", "unified", "--context-length", "96", "--slots", "12"]

    def said(seed: int) -> str:
        return str(server.complete("Once", seed=seed, **long).json()["choices"][0]["text"])

    with ServerProcess(*flags, *shared) as server, ThreadPoolExecutor(12) as pool:
        before = [said(seed) for seed in range(3)]
        for _ in range(20):  # short answers are expected from here on, so that all are admitted
            server.complete("Once", max_tokens=1)
        assert list(pool.map(said, [0, 1, 2] * 4)) == before * 4
        assert server.metric("num_preemptions_total") > 0
        assert fingerprint(server) != alone[1]  # its settings are others


def test_a_fingerprint_is_the_models_own(tmp_path: Path, alone: tuple[list[str], str]) -> None:
    data = bytearray(DEFAULT_MODEL.read_bytes())
    data[-1] ^= 1
    other = tmp_path / "other.gguf"
    other.write_bytes(data)
    with ServerProcess(str(other), "--name", MODEL) as server:
        assert fingerprint(server) != alone[1]
