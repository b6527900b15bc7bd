"""Sampling beyond the API document."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, STORY, chunks_of, error_of, said
from tests.runtime.process import MODEL, ServerProcess

HOT: dict[str, Any] = {"temperature": 2, "top_p": 1, "top_k": 0, "max_tokens": 30, "ignore_eos": True}


def text(server: ServerProcess, **fields: object) -> str:
    body = server.complete(STORY, **fields).json()
    assert "choices" in body, body
    return str(body["choices"][0]["text"])


@covers("sampling.seed")
def test_the_same_seed_whatever_else_is_running(server: ServerProcess) -> None:
    def told(seed: int) -> str:
        return text(server, **HOT, seed=seed)

    alone = [told(seed) for seed in range(4)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(told, [seed % 4 for seed in range(24)])) == alone * 6


@covers("requests.stream-options", "requests.top-logprobs", "requests.best-of-stream", "requests.min-tokens")
@pytest.mark.parametrize(
    ("endpoint", "fields", "param"),
    [
        ("chat/completions", {"stream_options": {"include_usage": True}}, "stream_options"),
        ("completions", {"stream_options": {"include_usage": True}}, "stream_options"),
        ("completions", {"stream_options": {"include_usage": True}, "stream": False}, "stream_options"),
        ("chat/completions", {"top_logprobs": 2}, "top_logprobs"),
        ("chat/completions", {"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ("completions", {"best_of": 2, "stream": True}, "best_of"),
        ("chat/completions", {"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ("completions", {"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    ],
    ids=str,
)
def test_what_does_not_go_together(server: ServerProcess, endpoint: str, fields: dict[str, object], param: str) -> None:
    prompt: dict[str, object] = {"messages": QUESTION} if endpoint == "chat/completions" else {"prompt": STORY}
    response = server.client.post(f"/v1/{endpoint}", json={"model": MODEL, **prompt, **fields})
    assert response.status_code == 400
    assert error_of(response)["param"] == param


@covers("matrix.completions.echo", "sampling.echo")
@pytest.mark.parametrize("stream", [False, True])
def test_echo_returns_the_prompt(server: ServerProcess, stream: bool) -> None:
    greedy = {"max_tokens": 60, "temperature": 0}
    plain = text(server, **greedy)
    response = server.complete(STORY, **greedy, echo=True, stream=stream)
    told = said(chunks_of(response.text)) if stream else response.json()["choices"][0]["text"]
    assert told == STORY + plain


@covers("sampling.n")
def test_n_has_so_many_choices(server: ServerProcess) -> None:
    body = server.complete([STORY, "Hello"], **HOT, seed=1, n=3).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    assert len({choice["text"] for choice in body["choices"]}) == 6
    assert body["usage"]["completion_tokens"] == 6 * HOT["max_tokens"]


@covers("requests.sequences")
def test_n_counts_into_the_sequences_of_a_request(server: ServerProcess) -> None:
    assert server.complete(["Hi"] * 64, n=2, max_tokens=1).status_code == 200
    response = server.complete(["Hi"] * 64, n=3, max_tokens=1)
    assert response.status_code == 400
    assert error_of(response)["param"] == "n"


@covers("sampling.min-tokens")
def test_min_tokens(server: ServerProcess) -> None:
    body = server.complete("The capital of France is", temperature=0, min_tokens=20, max_tokens=30).json()
    assert 20 <= body["usage"]["completion_tokens"] <= 30


@covers("sampling.typical-p", "sampling.repeat-penalty")
@pytest.mark.parametrize("fields", [{"typical_p": 0.1}, {"repeat_penalty": 1.8}], ids=str)
def test_further_filters_change_the_text(server: ServerProcess, fields: dict[str, object]) -> None:
    assert text(server, **HOT, **fields, seed=1) != text(server, **HOT, seed=1)


@covers("sampling.logit-bias")
def test_logit_bias_forces_and_forbids(server: ServerProcess) -> None:
    def biased(seed: int, **bias: int) -> str:
        return text(server, **HOT, seed=seed, logit_bias=bias)

    forced = biased(1, **{"400": 100})
    assert biased(2, **{"400": 100}) == forced
    assert biased(1, **{"400": -100, "401": 100}) == biased(2, **{"401": 100}) != forced
