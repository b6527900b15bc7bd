"""How likely tokens were, the best of several answers, and texts with a hole."""

import math
from itertools import chain
from typing import Any

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, STORY, Socket, chunks_of, error_of, events_of
from tests.runtime.process import MODEL, ServerProcess

CAPITAL = "The capital of France is"
HOT: dict[str, Any] = {"temperature": 1.5, "top_p": 1, "top_k": 0, "max_tokens": 20, "ignore_eos": True}


def choice_of(response: Any) -> Any:
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    return choice


@covers("sampling.logprobs")
def test_of_a_chat(server: ServerProcess) -> None:
    choice = choice_of(server.chat(temperature=0, logprobs=True, top_logprobs=2))
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    for token in tokens:
        assert bytes(token["bytes"]).decode() == token["token"]
        assert token["top_logprobs"][0]["token"] == token["token"]  # greedily
        assert len(token["top_logprobs"]) == 2
        assert 0 >= token["top_logprobs"][0]["logprob"] >= token["top_logprobs"][1]["logprob"]
    assert choice_of(server.chat(temperature=0, logprobs=True))["logprobs"]["content"][0]["top_logprobs"] == []


@covers("sampling.logprobs", "matrix.completions.logprobs")
def test_of_a_completion(server: ServerProcess) -> None:
    choice = choice_of(server.complete(CAPITAL, temperature=0, logprobs=2))
    told, text = choice["logprobs"], choice["text"]
    assert set(told) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert "".join(told["tokens"]) == text
    for token, logprob, top, offset in zip(*(told[name] for name in told), strict=True):
        assert text[offset:].startswith(token)
        assert logprob <= 0
        assert top[token] == max(top.values()) == logprob
        assert len(top) == 2


@covers("sampling.logprobs", "sampling.echo")
@pytest.mark.parametrize("stream", [False, True])
def test_of_a_prompt_that_is_repeated(server: ServerProcess, stream: bool) -> None:
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 6, "logprobs": 1, "echo": True, "stream": stream}
    response = server.complete(CAPITAL, **fields)
    if stream:
        told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        pieces = [chunk["choices"][0] for chunk in chunks_of(response.text) if chunk != "[DONE]"]
        for piece in pieces:
            for name, values in (piece["logprobs"] or {}).items():
                told[name] += values
        text = "".join(piece["text"] for piece in pieces)
    else:
        choice = choice_of(response)
        told, text = choice["logprobs"], choice["text"]
    assert "".join(told["tokens"]) == text
    assert text.startswith(CAPITAL)
    assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (None, None)
    assert all(logprob <= 0 for logprob in told["token_logprobs"][1:])
    for token, offset in zip(told["tokens"], told["text_offset"], strict=True):
        assert text[offset:].startswith(token)
    # What is told of a token is the same, be it generated or the prompt's.
    again = choice_of(server.complete(text, max_tokens=1, temperature=0, logprobs=1, echo=True))["logprobs"]
    assert again["token_logprobs"][1 : len(told["tokens"])] == pytest.approx(told["token_logprobs"][1:], abs=2e-3)


@covers("sampling.logprobs")
def test_they_are_the_models_own_whatever_changes_the_choice(server: ServerProcess) -> None:
    plain = choice_of(server.complete(CAPITAL, temperature=0, max_tokens=1, logprobs=5))["logprobs"]
    (likeliest,) = plain["tokens"]
    changed = {"temperature": 2, "presence_penalty": 2, "repeat_penalty": 2, "top_k": 1, "seed": 1}
    assert choice_of(server.complete(CAPITAL, max_tokens=1, logprobs=5, **changed))["logprobs"] == plain
    banned = {
        str(token): -100
        for token in server.client.post("/tokenize", json={"model": MODEL, "prompt": likeliest}).json()["tokens"]
    }
    other = choice_of(server.complete(CAPITAL, temperature=0, max_tokens=1, logprobs=5, logit_bias=banned))["logprobs"]
    assert other["tokens"] != plain["tokens"]
    assert other["top_logprobs"][0][likeliest] == plain["token_logprobs"][0]


@covers("sampling.logprobs")
def test_nothing_is_told_of_what_a_stop_string_cuts_off(server: ServerProcess) -> None:
    whole = choice_of(server.complete(CAPITAL, temperature=0, logprobs=0))
    cut = choice_of(server.complete(CAPITAL, temperature=0, logprobs=0, stop=whole["text"][3:6]))
    assert cut["text"] == whole["text"][:3]
    tokens = cut["logprobs"]["tokens"]
    assert tokens == whole["logprobs"]["tokens"][: len(tokens)]
    assert cut["text"].startswith("".join(tokens))


@covers("sampling.logprobs")
def test_on_the_other_transports(server: ServerProcess) -> None:
    fields: dict[str, Any] = {"model": MODEL, "prompt": CAPITAL, "temperature": 0, "logprobs": 1}
    whole = choice_of(server.complete(CAPITAL, temperature=0, logprobs=1))["logprobs"]
    events = events_of(server.client.post("/v1/stream/sse", json=fields).text)
    streamed = [data["logprobs"] for name, data in events if name == "token"]
    assert {name: list(chain(*(each[name] for each in streamed))) for name in whole} == whole
    with Socket(server) as socket:
        socket.ask(prompt=CAPITAL, params={"temperature": 0, "logprobs": 1})
        messages = [each["logprobs"] for each in socket.until("complete") if each["type"] == "token"]
    assert {name: list(chain(*(each[name] for each in messages))) for name in whole} == whole


@covers("sampling.best-of", "matrix.completions.best-of")
def test_the_best_of_several_is_the_likeliest_and_all_are_charged(server: ServerProcess) -> None:
    every = [
        choice_of(server.complete(STORY, **HOT, seed=3 + number, logprobs=0)) for number in range(4)
    ]  # whose seeds follow one another
    means = [math.fsum(choice["logprobs"]["token_logprobs"]) / 20 for choice in every]
    response = server.complete(STORY, **HOT, seed=3, best_of=4)
    assert response.json()["usage"]["completion_tokens"] == 80
    best = choice_of(response)
    assert best["text"] == every[means.index(max(means))]["text"]
    assert best["logprobs"] is None
    two = server.complete(STORY, **HOT, seed=3, best_of=4, n=2, logprobs=0).json()["choices"]
    assert [choice["index"] for choice in two] == [0, 1]
    told = [math.fsum(choice["logprobs"]["token_logprobs"]) / 20 for choice in two]
    assert told == pytest.approx(sorted(means, reverse=True)[:2], abs=1e-3)


@covers("sampling.suffix")
def test_a_model_without_fill_in_tokens_has_no_suffix(server: ServerProcess) -> None:
    response = server.complete(STORY, suffix="the end")
    assert response.status_code == 400
    assert (error_of(response)["param"], error_of(response)["code"]) == ("suffix", "unsupported_parameter")
    assert "fill-in" in error_of(response)["message"]


@covers("sampling.user-metadata")
def test_what_openais_clients_send_beside_is_taken(server: ServerProcess) -> None:
    fields: dict[str, Any] = {
        "store": True,
        "metadata": {"run": "7"},
        "service_tier": "auto",
        "reasoning_effort": "low",
        "verbosity": "low",
        "prediction": {"type": "content", "content": "Paris"},
        "safety_identifier": "somebody",
        "prompt_cache_key": "questions",
        "modalities": ["text"],
        "user": "somebody",
    }
    plain, beside = (server.chat(temperature=0, **each).json() for each in ({}, fields))
    assert plain["choices"] == beside["choices"]
    refused = server.client.post(
        "/v1/chat/completions", json={"model": MODEL, "messages": QUESTION, "metadata": {"a": "x" * 513}}
    )
    assert (refused.status_code, error_of(refused)["param"]) == (400, "metadata")
