"""A seed and a request give one text: alone, in company, after a preemption and on a server that was started again."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from inferno_runtime.engine.sampling import uniform
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins
from tests.runtime.floats import as_floats
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


def test_floats_in_company(tmp_path: Path) -> None:
    """Drawn from all of the vocabulary, so that the last bits of the logits would show."""
    model = as_floats(DEFAULT_MODEL, tmp_path / "floats.gguf")
    fields: dict[str, Any] = {"temperature": 1.5, "top_p": 1, "top_k": 0, "max_tokens": 60, "ignore_eos": True}
    with ServerProcess(str(model), "--name", MODEL, "--speculation", "off") as server, ThreadPoolExecutor(12) as pool:

        def ask(seed: int) -> str:
            return str(server.complete("Once upon a time", seed=seed, **fields).json()["choices"][0]["text"])

        alone = [ask(seed) for seed in range(12)]
        assert list(pool.map(ask, range(12))) == alone


def test_after_a_preemption(flags: list[str], alone: tuple[list[str], str]) -> None:
    """Each token is the one that the seed draws at its place from what the model says there, to the last of the text.

    The texts themselves may part from those of a sequence alone: in a pool that is shared, a sequence's cells lie elsewhere in
    company, and are summed up in another order.
    """
    # The pool holds a few of the sequences whole, and the beginnings of all.
    shared = ["--kv-layout", "unified", "--context-length", "96", "--slots", "12"]
    asked = {"temperature": 1, "top_p": 1, "top_k": 20, "logprobs": True, "top_logprobs": 20}

    def ask(seed: int) -> Any:
        return server.chat("Tell me a story.", seed=seed, max_tokens=40, ignore_eos=True, **asked).json()

    with ServerProcess(*flags, *shared) as server, ThreadPoolExecutor(12) as pool:
        for _ in range(20):  # short answers are expected from here on, so that all are admitted
            server.chat(max_tokens=1)
        answers = list(pool.map(ask, range(12)))
        assert server.metric("num_preemptions_total") > 0
        assert fingerprint(server) != alone[1]  # its settings are others
    for seed, answer in enumerate(answers):
        tokens = answer["choices"][0]["logprobs"]["content"]
        assert len(tokens) == 40
        for place, token in enumerate(tokens, answer["usage"]["prompt_tokens"]):
            assert token["token"] in drawn(token["top_logprobs"], uniform(seed, place))


def drawn(top: list[dict[str, Any]], number: float) -> set[str]:
    """The token at a random number in the cumulative distribution; both where it lies on the border of two."""
    sums = list(accumulate(math.exp(other["logprob"]) for other in top))
    return {
        top[min(sum(each <= share * sums[-1] for each in sums), len(top) - 1)]["token"]
        for share in (number - 1e-4, number, number + 1e-4)
    }


def test_a_fingerprint_is_the_models_own(tmp_path: Path, alone: tuple[list[str], str]) -> None:
    data = bytearray(DEFAULT_MODEL.read_bytes())
    data[-1] ^= 1
    other = tmp_path / "other.gguf"
    other.write_bytes(data)
    with ServerProcess(str(other), "--name", MODEL) as server:
        assert fingerprint(server) != alone[1]
