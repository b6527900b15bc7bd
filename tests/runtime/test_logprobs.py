"""How likely tokens were, as OpenAI's own client reads it, on models of each format; and what the floats must add up to."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.runtime.process import MODEL, ServerProcess

STORY: Any = [{"role": "user", "content": "Tell me a story."}]
PROMPT = "The capital of France is Paris. The capital of Spain is"
HOT: dict[str, Any] = {"temperature": 1.5, "top_p": 1, "max_tokens": 40}


def scored(server: ServerProcess, prompt: object = PROMPT, **fields: Any) -> Any:
    response = server.complete(prompt, **{"logprobs": 5, **fields})
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


@pytest.mark.parametrize("top", [0, 1, 20])
def test_a_chat(client: openai.OpenAI, top: int) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=STORY, seed=4, logprobs=True, top_logprobs=top, **HOT)
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == top
        assert token.logprob <= 0
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1 + 1e-5
        assert all(other.logprob == token.logprob for other in token.top_logprobs if other.token == token.token)


def test_a_chat_in_a_stream_is_the_whole_in_pieces(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"messages": STORY, "seed": 4, "logprobs": True, "top_logprobs": 3, **HOT}
    whole = client.chat.completions.create(model=MODEL, **fields).choices[0].logprobs
    streamed: list[Any] = []
    for chunk in client.chat.completions.create(model=MODEL, stream=True, **fields):
        (choice,) = chunk.choices
        told = choice.logprobs.content if choice.logprobs else None
        assert "".join(token.token for token in told or ()) == (choice.delta.content or "")
        streamed += told or []
    assert whole is not None
    assert streamed == whole.content


def test_a_completion(client: openai.OpenAI) -> None:
    (choice,) = client.completions.create(model=MODEL, prompt=PROMPT, logprobs=5, seed=4, **HOT).choices
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert "".join(told.tokens) == choice.text
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert 5 <= len(top) <= 6
        assert top[token] == logprob


def test_the_likeliest_have_nearly_all_of_the_probability(server: ServerProcess) -> None:
    answer = server.chat(temperature=0, max_tokens=1, logprobs=True, top_logprobs=20).json()
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert len({other["token"] for other in top}) == 20
    assert 0.9 < sum(math.exp(other["logprob"]) for other in top) <= 1 + 1e-5


def test_a_prompts_tokens_are_as_likely_as_when_they_were_generated(server: ServerProcess) -> None:
    said = scored(server, temperature=0, max_tokens=30, ignore_eos=True)
    known = server.client.post("/tokenize", json={"model": MODEL, "prompt": PROMPT}).json()["tokens"]
    whole = known + _ids(server, said["logprobs"]["tokens"])
    repeated = scored(server, whole, max_tokens=1, echo=True)["logprobs"]
    again = repeated["token_logprobs"][len(known) : len(whole)]
    assert again == pytest.approx(said["logprobs"]["token_logprobs"], abs=0.02)
    assert repeated["token_logprobs"][0] is None
    assert len(repeated["tokens"]) == len(whole) + 1


def _ids(server: ServerProcess, tokens: list[str]) -> list[int]:
    """Of tokens that are whole characters or spelled out."""
    asked = [
        server.client.post("/tokenize", json={"model": MODEL, "prompt": token}).json()["tokens"] for token in tokens
    ]
    assert all(len(each) == 1 for each in asked)
    return [each[0] for each in asked]


def test_a_long_prompt_is_scored_whole_whatever_is_cached(server: ServerProcess) -> None:
    prompt = [5 + number * 7 % 1500 for number in range(900)]
    server.complete(prompt, max_tokens=1)
    first, second = (scored(server, prompt, max_tokens=1, echo=True, logprobs=0)["logprobs"] for _ in range(2))
    assert len(first["tokens"]) == 901
    assert first["token_logprobs"][1:] == pytest.approx(second["token_logprobs"][1:], abs=1e-5)
    assert server.complete(prompt, max_tokens=1).json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 800


def test_in_company_they_are_what_they_are_alone(server: ServerProcess) -> None:
    def ask(seed: int) -> Any:
        told = scored(server, seed=seed, logprobs=2, **HOT)
        return told["text"], told["logprobs"]["token_logprobs"]

    alone = [ask(seed) for seed in range(4)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, [seed % 4 for seed in range(12)]))
    for (text, logprobs), (said, told) in zip(alone * 3, together, strict=True):
        assert said == text
        assert told == pytest.approx(logprobs, abs=0.02)


def test_tokens_that_are_no_characters_are_told_by_their_bytes(server: ServerProcess) -> None:
    """The prompt has characters that the vocabulary has only the bytes of."""
    prompt = "漢é😀"
    told = scored(server, prompt, max_tokens=1, echo=True, logprobs=0)
    tokens = told["logprobs"]["tokens"][:-1]
    spelled = [bytes.fromhex(token.removeprefix("bytes:").replace("\\x", "")) for token in tokens if "bytes:" in token]
    assert b"".join(spelled) in prompt.encode()
    assert len(spelled) > 2
    assert told["text"].startswith(prompt)
