"""Completions: the forms of a prompt, the whole answer and the streamed one."""

import time
from typing import Any

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import STORY, chunks_of, error_of, said
from tests.runtime.process import MODEL, ServerProcess

THREE = ["Hello, world!", "Hi there!", "Greetings!"]


def complete(server: ServerProcess, prompt: object, **fields: object) -> Any:
    """The answer to a prompt, decoded."""
    response = server.complete(prompt, **{"temperature": 0, "max_tokens": 20, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def texts(answer: Any) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


@covers("completions.response", "matrix.completions.text", "requests.logprobs-and-refusal")
def test_every_field_of_the_answer(server: ServerProcess) -> None:
    body = complete(server, "The capital of France is")
    assert set(body) == {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    assert body["id"].startswith("cmpl-")
    assert (body["object"], body["model"]) == ("text_completion", MODEL)
    assert abs(body["created"] - time.time()) < 300
    (choice,) = body["choices"]
    assert "Paris" in choice["text"]
    assert choice == {"text": choice["text"], "index": 0, "logprobs": None, "finish_reason": "stop"}
    usage = body["usage"]
    assert set(usage) == {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@covers("completions.prompt-string")
def test_a_string(server: ServerProcess) -> None:
    assert len(complete(server, THREE[0])["choices"]) == 1


@covers("completions.prompt-strings")
def test_strings_have_a_choice_each_and_one_usage(server: ServerProcess) -> None:
    body, alone = complete(server, THREE), [complete(server, prompt) for prompt in THREE]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert texts(body) == [texts(answer)[0] for answer in alone]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert body["usage"][name] == sum(answer["usage"][name] for answer in alone)


@covers("sampling.token-ids", "sampling.usage")
def test_token_ids(server: ServerProcess) -> None:
    assert complete(server, [5, 6, 7], max_tokens=3)["usage"]["prompt_tokens"] == 3
    body = complete(server, [[5, 6, 7], [8]], max_tokens=3, ignore_eos=True)
    assert len(body["choices"]) == 2
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (4, 6)


@covers("completions.prompt", "requests.known-fields")
@pytest.mark.parametrize(
    "prompt", [5, {"text": "Hi"}, [], ["Hi", 5], [["Hi"]], [1_000_000], [-1], [5, [6]], [[]]], ids=str
)
def test_a_prompt_that_is_none(server: ServerProcess, prompt: object) -> None:
    response = server.complete(prompt)
    assert response.status_code == 400
    assert error_of(response)["param"] == "prompt"


@covers("requests.raw-prompt")
def test_a_control_tokens_spelling_is_that_token(server: ServerProcess) -> None:
    asked = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    raw, chat = complete(server, asked), server.chat(temperature=0, max_tokens=20).json()
    assert texts(raw) == [chat["choices"][0]["message"]["content"]]
    assert raw["usage"]["prompt_tokens"] == chat["usage"]["prompt_tokens"]


@covers("requests.sequences")
def test_at_most_128_sequences(server: ServerProcess) -> None:
    body = complete(server, ["Hi"] * 128, max_tokens=1)
    assert len(body["choices"]) == 128
    response = server.complete(["Hi"] * 129, max_tokens=1)
    assert response.status_code == 400
    assert error_of(response)["param"] == "prompt"
    assert "128" in error_of(response)["message"]


@covers("completions.finish-reason")
def test_why_it_ended(server: ServerProcess) -> None:
    prompt = "The capital of France is"
    whole, cut = complete(server, prompt), complete(server, prompt, max_tokens=1)
    assert [answer["choices"][0]["finish_reason"] for answer in (whole, cut)] == ["stop", "length"]
    assert cut["usage"]["completion_tokens"] == 1


# The streamed answer


@covers("completions.stream", "matrix.completions.streaming", "streaming.no-cache")
def test_a_stream(server: ServerProcess) -> None:
    response = server.complete(STORY, temperature=0, max_tokens=20, stream=True)
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    *chunks, done = chunks_of(response.text)
    assert done == "[DONE]"
    for chunk in chunks:
        assert set(chunk) == {"id", "object", "created", "model", "choices", "system_fingerprint"}
        assert (chunk["object"], chunk["model"]) == ("text_completion", MODEL)
        (choice,) = chunk["choices"]
        assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert said(chunks) == texts(complete(server, STORY))[0]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]


@covers("completions.stream", "sampling.include-usage")
def test_several_prompts_in_one_stream(server: ServerProcess) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = chunks_of(server.complete(THREE, temperature=0, max_tokens=20, **options).text)
    assert done == "[DONE]"
    whole = complete(server, THREE)
    assert [said(chunks, index) for index in range(3)] == texts(whole)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
