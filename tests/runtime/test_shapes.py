"""Answers in every shape, held to OpenAI's own types, strictly, and to its published schemas where they are at hand."""

from typing import Any

import openai
import pydantic
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conformance.wire import chunks_of
from tests.runtime import published
from tests.runtime.process import MODEL, ServerProcess

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
SHORT: dict[str, Any] = {"max_tokens": 8, "seed": 1}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
SHAPES: list[dict[str, Any]] = [
    {},
    {"n": 2},
    {"logprobs": 0},
    {"logprobs": 5},
    {"logprobs": 5, "n": 2, "stop": "a"},
]


def of_chat(fields: dict[str, Any]) -> dict[str, Any]:
    """The same, asked of a chat."""
    if "logprobs" not in fields:
        return fields
    return fields | {"logprobs": True, "top_logprobs": fields["logprobs"]}


def strictly(kind: Any, value: Any) -> None:
    """Every field of the value is one of the type's, and of its type."""
    read = pydantic.TypeAdapter(kind).validate_python(value, strict=True)
    _no_more(read, value)


def _no_more(read: Any, value: Any) -> None:
    if isinstance(read, pydantic.BaseModel):
        assert not read.model_extra, f"{type(read).__name__} has no {set(read.model_extra)}"
        for name, inner in value.items():
            _no_more(getattr(read, name), inner)
    elif isinstance(read, list):
        for one, inner in zip(read, value, strict=True):
            _no_more(one, inner)


def without_nulls_of_a_stream(chunk: dict[str, Any]) -> dict[str, Any]:
    """A chunk without what OpenAI sends as null and its types have no place for: why a text ends that has not yet."""
    choices = [
        {name: value for name, value in choice.items() if (name, value) != ("finish_reason", None)}
        for choice in chunk["choices"]
    ]
    return {name: value for name, value in (chunk | {"choices": choices}).items() if (name, value) != ("usage", None)}


@pytest.mark.parametrize("fields", SHAPES, ids=str)
def test_a_chat(server: ServerProcess, fields: dict[str, Any]) -> None:
    answer = server.chat(**SHORT, **of_chat(fields)).json()
    strictly(ChatCompletion, answer)
    published.check("CreateChatCompletionResponse", answer)


@pytest.mark.parametrize("fields", SHAPES, ids=str)
def test_a_chat_in_a_stream(server: ServerProcess, fields: dict[str, Any]) -> None:
    *chunks, done = chunks_of(server.chat(**SHORT, **of_chat(fields), **USAGE, stream=True).text)
    assert done == "[DONE]"
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
        published.check("CreateChatCompletionStreamResponse", chunk)


@pytest.mark.parametrize("fields", [*SHAPES, {"best_of": 3}, {"best_of": 3, "logprobs": 1}], ids=str)
def test_a_completion(server: ServerProcess, fields: dict[str, Any]) -> None:
    answer = server.complete("Once", **SHORT, **fields).json()
    strictly(Completion, answer)
    published.check("CreateCompletionResponse", answer)


@pytest.mark.parametrize("fields", SHAPES, ids=str)
def test_a_completion_in_a_stream(server: ServerProcess, fields: dict[str, Any]) -> None:
    *chunks, done = chunks_of(server.complete("Once", **SHORT, **fields, **USAGE, stream=True).text)
    assert done == "[DONE]"
    for chunk in map(without_nulls_of_a_stream, chunks):
        ended = [choice for choice in chunk["choices"] if "finish_reason" in choice]
        if len(ended) == len(chunk["choices"]):  # otherwise the types want what OpenAI does not send
            strictly(Completion, chunk)
            published.check("CreateCompletionResponse", chunk)


def test_the_first_token_of_a_prompt_is_all_that_the_types_do_not_know(server: ServerProcess) -> None:
    answer = server.complete("Once upon", **SHORT, logprobs=2, echo=True).json()
    told = answer["choices"][0]["logprobs"]
    assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (None, None)  # as OpenAI has it
    for values in told.values():
        del values[0]
    strictly(Completion, answer)
    published.check("CreateCompletionResponse", answer)


def test_openais_client_reads_them(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model=MODEL, messages=QUESTION, logprobs=True, top_logprobs=2)
    again = client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert chat.system_fingerprint is not None
    assert chat.system_fingerprint == again.system_fingerprint
    assert chat.system_fingerprint.startswith("fp_")
