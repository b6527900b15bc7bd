"""The parameters that both generating endpoints share: their types and ranges, their defaults, and what they do."""

from typing import Any

import httpx
import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, STORY, error_of
from tests.runtime.process import MODEL, ServerProcess

# By name: values that are taken, and values that are of another type or out of range.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0, 0.0, 0.7, 2, 2.0, None], [-0.01, 2.01, "0.5", True, [0.5]]),
    "top_p": ([0.0, 0.9, 1, 1.0, None], [-0.01, 1.01, "1", [1]]),
    "top_k": ([1, 40, 100, 0, -1, None], [101, -2, 1.5, "40", [40]]),
    "max_tokens": ([1, 512, 2_000_000, None], [0, -1, 2_000_001, 1.5, "5"]),
    "stream": ([True, False, None], ["true", 1]),
    "stop": (
        ["\n", ["\n", "Human:"], [f"stop {n}" for n in range(16)], [], None],
        [5, [5], [f"{n}" for n in range(17)]],
    ),
    "presence_penalty": ([-2, -2.0, 0.0, 2.0, None], [-2.01, 2.01, "0", [0]]),
    "frequency_penalty": ([-2, -2.0, 0.0, 2.0, None], [-2.01, 2.01, "0", [0]]),
    "user": (["someone", "", None], [5, ["someone"]]),
    "min_p": ([0.0, 0.05, 1.0, None], [-0.01, 1.01, "0"]),
    "seed": ([0, 1, -1, 2**63 - 1, -(2**63), None], [1.5, "1", 2**63]),
    "n": ([1, None], [0, -1, 1.5, "1"]),
    "priority": (["vip", "high", "normal", "low", None], ["urgent", 1]),
    "ignore_eos": ([True, False, None], ["yes", 1]),
}
TAKEN = [(name, value) for name, (taken, _) in VALUES.items() for value in taken]
REFUSED = [(name, value) for name, (_, refused) in VALUES.items() for value in refused]
ENDPOINTS = ["chat/completions", "completions"]
DOCUMENTED = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "presence_penalty": 0.0, "frequency_penalty": 0.0}
ANOTHER = {"temperature": 1.5, "top_p": 0.2, "top_k": 2, "presence_penalty": 2.0, "frequency_penalty": 2.0}


def named(row: object) -> str:
    return str(row)[:40]


def ask(server: ServerProcess, endpoint: str, **fields: object) -> httpx.Response:
    """A request of few tokens, unless the fields say otherwise."""
    prompt = {"messages": QUESTION} if endpoint == "chat/completions" else {"prompt": "The capital of France is"}
    return server.client.post(f"/v1/{endpoint}", json={"model": MODEL, "max_tokens": 2, **prompt, **fields})


def story(server: ServerProcess, endpoint: str, **fields: object) -> str:
    """A text that leaves the model many ways to go on."""
    prompt: dict[str, object] = {"prompt": STORY}
    if endpoint == "chat/completions":
        prompt = {"prompt": None, "messages": [{"role": "user", "content": "Tell me a story."}]}
    response = ask(server, endpoint, **{"max_tokens": 40, "ignore_eos": True, **prompt, **fields})
    choice = response.json()["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def stories(server: ServerProcess, endpoint: str, **fields: object) -> list[str]:
    return [story(server, endpoint, seed=seed, **fields) for seed in range(4)]


@covers(
    "parameters.temperature",
    "parameters.top_p",
    "parameters.top_k",
    "parameters.max_tokens",
    "parameters.stream",
    "parameters.stop",
    "parameters.presence_penalty",
    "parameters.frequency_penalty",
    "parameters.user",
    "requests.top-k-off",
    "requests.sixteen-stops",
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("row", TAKEN, ids=named)
def test_a_value_in_range_is_taken(server: ServerProcess, endpoint: str, row: tuple[str, object]) -> None:
    name, value = row
    assert ask(server, endpoint, **{name: value}).status_code == 200


@covers(
    "parameters.temperature",
    "parameters.top_p",
    "parameters.top_k",
    "parameters.max_tokens",
    "parameters.stream",
    "parameters.stop",
    "parameters.presence_penalty",
    "parameters.frequency_penalty",
    "parameters.user",
    "requests.known-fields",
    "requests.sixteen-stops",
    "errors.400",
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("row", REFUSED, ids=named)
def test_any_other_value_is_refused_by_name(server: ServerProcess, endpoint: str, row: tuple[str, object]) -> None:
    name, value = row
    response = ask(server, endpoint, **{name: value})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", name)
    assert name in error["message"]


@covers("parameters.model", "parameters.messages", "completions.prompt", "errors.400")
@pytest.mark.parametrize(
    ("endpoint", "missing"),
    [
        ("chat/completions", "model"),
        ("chat/completions", "messages"),
        ("completions", "model"),
        ("completions", "prompt"),
    ],
)
def test_what_is_required(server: ServerProcess, endpoint: str, missing: str) -> None:
    fields: dict[str, object] = {"model": MODEL, "messages": QUESTION, "prompt": STORY}
    del fields[missing]
    response = server.client.post(f"/v1/{endpoint}", json=fields)
    assert response.status_code == 400
    assert error_of(response)["param"] == missing


@covers("requests.unknown-fields")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_unknown_fields_are_ignored(server: ServerProcess, endpoint: str) -> None:
    fields = {"store": True, "metadata": {"a": "b"}, "service_tier": "auto", "no_such_field": [{}]}
    assert ask(server, endpoint, **fields).status_code == 200


# Defaults


@covers(
    "parameters.temperature",
    "parameters.top_p",
    "parameters.top_k",
    "parameters.presence_penalty",
    "parameters.frequency_penalty",
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_defaults_are_the_documented_ones(server: ServerProcess, endpoint: str) -> None:
    silent = stories(server, endpoint)
    assert stories(server, endpoint, **DOCUMENTED, stop=None, stream=False, user=None) == silent
    for name, value in ANOTHER.items():
        assert stories(server, endpoint, **{name: value}) != silent, f"{name} changes nothing"


@covers("parameters.max_tokens", "requests.max-tokens-default")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_512_tokens_at_most_by_default(server: ServerProcess, endpoint: str) -> None:
    body = ask(server, endpoint, max_tokens=None, ignore_eos=True).json()
    assert body["usage"]["completion_tokens"] == 512
    assert body["choices"][0]["finish_reason"] == "length"


@covers("requests.max-tokens-zero")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_no_tokens_at_all_is_refused(server: ServerProcess, endpoint: str) -> None:
    assert error_of(ask(server, endpoint, max_tokens=0))["param"] == "max_tokens"


@covers("parameters.stream")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_nothing_is_streamed_by_default(server: ServerProcess, endpoint: str) -> None:
    assert ask(server, endpoint).headers["content-type"] == "application/json"
    assert ask(server, endpoint, stream=True).headers["content-type"].startswith("text/event-stream")


# What they do


@covers("parameters.temperature", "parameters.top_k", "parameters.top_p")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("fields", [{"temperature": 0}, {"top_k": 1}, {"top_p": 0.0}], ids=named)
def test_the_likeliest_token_alone(server: ServerProcess, endpoint: str, fields: dict[str, object]) -> None:
    assert set(stories(server, endpoint, **fields)) == {story(server, endpoint, temperature=0, seed=99)}


@covers("parameters.temperature", "sampling.seed")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_chance_and_its_seed(server: ServerProcess, endpoint: str) -> None:
    hot = {"temperature": 2, "top_p": 1, "top_k": -1}
    first = stories(server, endpoint, **hot)
    assert len(set(first)) == len(first)
    assert stories(server, endpoint, **hot) == first
    assert story(server, endpoint, **hot) != story(server, endpoint, **hot)  # without a seed


@covers("requests.top-k-off")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_zero_and_minus_one_turn_top_k_off(server: ServerProcess, endpoint: str) -> None:
    hot = {"temperature": 2, "top_p": 1}
    off = stories(server, endpoint, **hot, top_k=0)
    assert stories(server, endpoint, **hot, top_k=-1) == off
    assert stories(server, endpoint, **hot, top_k=5) != off


@covers("sampling.min-p")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_min_p(server: ServerProcess, endpoint: str) -> None:
    assert set(stories(server, endpoint, min_p=1.0)) == {story(server, endpoint, temperature=0)}
    hot = {"temperature": 2, "top_p": 1, "top_k": 0}
    assert stories(server, endpoint, **hot, min_p=0.2) != stories(server, endpoint, **hot)


@covers("parameters.presence_penalty", "parameters.frequency_penalty", "matrix.chat.penalties")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalties_are_against_repetition(server: ServerProcess, endpoint: str, name: str) -> None:
    def variety(penalty: float) -> int:
        """Different words in a text of so many tokens."""
        return len(set(story(server, endpoint, temperature=0, max_tokens=150, **{name: penalty}).split()))

    assert variety(-2.0) < variety(2.0)


@covers("sampling.ignore-eos")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_ignore_eos(server: ServerProcess, endpoint: str) -> None:
    question = {"prompt": None, "messages": QUESTION} if endpoint == "chat/completions" else {"prompt": "<|im_end|>"}
    body = ask(server, endpoint, **question, ignore_eos=True, max_tokens=100, temperature=0).json()
    assert body["usage"]["completion_tokens"] == 100


@covers("sampling.user-metadata")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_who_asks_changes_nothing(server: ServerProcess, endpoint: str) -> None:
    assert story(server, endpoint, seed=1, user="someone", metadata={"a": "b"}) == story(server, endpoint, seed=1)
