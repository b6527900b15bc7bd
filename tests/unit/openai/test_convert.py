"""What the engine is asked for a request that is right."""

import dataclasses
from typing import Any

import msgspec
import pytest

from inferno_runtime.chat.model import ChatModel
from inferno_runtime.chat.template import ChatTemplate
from inferno_runtime.engine.request import Sampling
from inferno_runtime.openai import convert, requests
from inferno_runtime.openai.convert import Job
from inferno_runtime.openai.errors import ApiError
from tests.unit.openai.test_bad_requests import target
from tests.unit.server.fakes import BOS, IM_END, IM_START, ByteTokenizer


def chat(**fields: Any) -> Job:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return convert.chat_job(requests.decode(msgspec.json.encode(body), requests.ChatRequest), target())


def complete(**fields: Any) -> Job:
    body = {"model": "m", "prompt": "Hi", **fields}
    return convert.completion_job(requests.decode(msgspec.json.encode(body), requests.CompletionRequest), target())


def prompt_text(job: Job) -> str:
    return ByteTokenizer().decode(job.prompts[0])


@pytest.mark.parametrize("make", [chat, complete])
def test_the_documents_defaults(make: Any) -> None:
    job = make(seed=5)
    assert job.sampling == Sampling(
        temperature=0.7, top_k=40, top_p=0.9, min_p=0, presence_penalty=0, frequency_penalty=0, seed=5, seeded=True
    )
    assert (job.max_tokens, job.stop, job.stream, job.include_usage) == (512, (), False, False)


@pytest.mark.parametrize("make", [chat, complete])
def test_null_is_the_same_as_nothing(make: Any) -> None:
    names = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "presence_penalty", "stop", "stream", "n")
    assert make(seed=1, **dict.fromkeys((*names, "stream_options", "logit_bias", "user"))) == make(seed=1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"top_k": 0}, {"top_k": 0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 100}, {"top_k": 100}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5, "min_p": 0.1}, {"top_p": 0.5, "min_p": 0.1}),
        ({"presence_penalty": -2, "frequency_penalty": 2}, {"presence_penalty": -2.0, "frequency_penalty": 2.0}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"logit_bias": {"5": -100, "258": 1.5}}, {"logit_bias": ((5, -100.0), (258, 1.5))}),
        ({"typical_p": 0.5, "top_n_sigma": 1}, {"typical_p": 0.5, "top_n_sigma": 1.0}),
        ({"repeat_penalty": 1.5, "repeat_last_n": -1}, {"repeat_penalty": 1.5, "repeat_last_n": -1}),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.2}, {"xtc_probability": 0.5, "xtc_threshold": 0.2}),
        (
            {"dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 9},
            {"dry_multiplier": 0.8, "dry_base": 2.0, "dry_allowed_length": 3, "dry_penalty_last_n": 9},
        ),
    ],
)
def test_sampling_as_asked(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    sampling = chat(**fields).sampling
    assert {name: getattr(sampling, name) for name in expected} == expected


def test_without_a_seed_each_request_has_its_own() -> None:
    assert chat().sampling.seed != chat().sampling.seed


def test_every_field_of_the_engines_can_be_asked_for() -> None:
    told = {"seeded"}  # by another field, the seed
    assert set(Sampling.__struct_fields__) - told <= set(requests.GenerationRequest.__struct_fields__)


def test_several_answers_to_several_prompts() -> None:
    job = complete(prompt=["a", "b"], n=2, seed=2**64 - 1 - 2**63, echo=True)
    assert job.prompts == [[97], [97], [98], [98]]
    assert job.echoes == ["a", "a", "b", "b"]
    first = job.sampling.seed
    assert [job.sampling_of(index).seed for index in range(4)] == [first, first + 1, first, first + 1]
    assert chat(seed=-1, n=2).sampling_of(1).seed == 0


def test_no_more_sequences_than_one_request_may_have() -> None:
    assert len(complete(prompt=["a", "b"], n=2).prompts) == 4
    with pytest.raises(ApiError, match=r"at most 4 sequences, and this one asks for 6"):
        complete(prompt=["a", "b", "c"], n=2)


@pytest.mark.parametrize(
    ("prompt", "echo"),
    [
        ("Où?", ["Où?"]),
        (["a", ""], ["a", ""]),
        ([79, 195, 185], ["Où"]),
        ([[195], [65]], ["\N{REPLACEMENT CHARACTER}", "A"]),
    ],
)
def test_a_prompt_is_repeated_as_it_was_given(prompt: Any, echo: list[str]) -> None:
    assert complete(prompt=prompt, echo=True).echoes == echo
    assert complete(prompt=prompt).echoes == []


def test_least_tokens() -> None:
    assert (chat(min_tokens=3, max_tokens=3).min_tokens, chat().min_tokens) == (3, 0)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 9, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 2_000_000}, 2_000_000),
    ],
)
def test_the_limit_has_two_names(fields: dict[str, Any], limit: int) -> None:
    assert chat(**fields).max_tokens == limit


@pytest.mark.parametrize(
    ("stop", "expected"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (["x"] * 16, ("x",) * 16)]
)
def test_stop_is_one_string_or_several(stop: Any, expected: tuple[str, ...]) -> None:
    assert complete(stop=stop).stop == expected


@pytest.mark.parametrize(
    "extra",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": True, "parallel_tool_calls": False, "unknown": [1]},
        {"n": 1, "logit_bias": {}, "logprobs": False, "tools": [], "tool_choice": "none", "functions": []},
        {"tools": [{"type": "function", "function": {"name": "now"}}], "tool_choice": "none"},
        {"response_format": {"type": "text"}, "modalities": ["text"], "typical_p": 1, "repeat_penalty": 1.0},
        {"min_tokens": 0, "service_tier": "auto", "reasoning_effort": "low"},
    ],
)
def test_what_changes_nothing_is_taken(extra: dict[str, Any]) -> None:
    assert chat(seed=1, **extra) == chat(seed=1)


THINKING = (
    "{% for message in messages %}{{ message.content }}{% endfor %}[{{ reasoning_effort }} {{ enable_thinking }}]"
)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "[ ]"),
        ({"reasoning_effort": "high"}, "[high ]"),
        ({"reasoning_effort": "none"}, "[none False]"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "[ True]"),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}, "[none True]"),
    ],
)
def test_what_a_template_is_told(fields: dict[str, Any], told: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    request = requests.decode(msgspec.json.encode(body), requests.ChatRequest)
    template = ChatTemplate(THINKING, bos="", eos="", control_spellings=())
    thinking = dataclasses.replace(target(), chat=ChatModel(template, ByteTokenizer()))
    assert prompt_text(convert.chat_job(request, thinking)).endswith(told)


def test_stream_options() -> None:
    job = chat(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert job.stream
    assert job.include_usage


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hi", [[72, 105]]),
        (["Hi", "Ho"], [[72, 105], [72, 111]]),
        ([72, 105], [[72, 105]]),
        ([[72], [105, 106]], [[72], [105, 106]]),
        ("", [[BOS]]),
        ("<|im_end|>", [[IM_END]]),  # a raw prompt may spell control tokens
    ],
)
def test_prompts(prompt: Any, expected: list[list[int]]) -> None:
    assert complete(prompt=prompt).prompts == expected


def test_a_prompt_that_leaves_room_for_one_token() -> None:
    assert len(complete(prompt=[65] * 63).prompts[0]) == 63


def test_the_developer_is_the_system() -> None:
    assert (
        chat(messages=[{"role": "developer", "content": "x"}]).prompts
        == chat(messages=[{"role": "system", "content": "x"}]).prompts
    )


def test_content_in_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}]
    job = chat(messages=[{"role": "user", "content": parts}])
    assert prompt_text(job) == "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n"


def test_a_spelling_in_a_message_stays_text() -> None:
    job = chat(messages=[{"role": "user", "content": "<|im_end|>"}])
    assert job.prompts[0].count(IM_END) == 1
    assert job.prompts[0].count(IM_START) == 2
    assert prompt_text(job) == "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n"


# How likely tokens were


@pytest.mark.parametrize(
    ("job", "logprobs", "asked", "prompt"),
    [
        (chat(), None, None, False),
        (chat(logprobs=False), None, None, False),
        (chat(logprobs=True), 0, 0, False),
        (chat(logprobs=True, top_logprobs=20), 20, 20, False),
        (complete(), None, None, False),
        (complete(logprobs=0), 0, 0, False),
        (complete(logprobs=5, echo=True), 5, 5, True),
        (complete(echo=True), None, None, False),
        (complete(best_of=2), None, 0, False),  # which the best is chosen by
        (complete(best_of=2, n=2), None, None, False),
    ],
)
def test_what_is_asked_of_the_engine_and_told(job: Job, logprobs: int | None, asked: int | None, prompt: bool) -> None:
    assert (job.logprobs, job.top_scores, job.score_prompt) == (logprobs, asked, prompt)


def test_the_best_of_several() -> None:
    job = complete(prompt=["a", "b"], n=1, best_of=2, echo=True)
    assert job.prompts == [[97], [97], [98], [98]]
    assert (job.choices, job.answers, job.echoes) == (2, 1, ["a", "b"])
    assert [job.echo_of(index) for index in range(4)] == ["a", "a", "b", "b"]


# Filling in

PREFIX, SUFFIX, MIDDLE = 1, 2, 3


def fill_in(prompt: Any, suffix: str, *, add_bos: bool = False) -> list[list[int]]:
    tokenizer = ByteTokenizer(add_bos=add_bos)
    tokenizer.infill = (PREFIX, SUFFIX, MIDDLE)
    body = {"model": "m", "prompt": prompt, "suffix": suffix}
    request = requests.decode(msgspec.json.encode(body), requests.CompletionRequest)
    return convert.completion_job(request, dataclasses.replace(target(), tokenizer=tokenizer)).prompts


@pytest.mark.parametrize(
    ("prompt", "suffix", "expected"),
    [
        ("ab", "c", [[PREFIX, 97, 98, SUFFIX, 99, MIDDLE]]),
        ("", "c", [[PREFIX, SUFFIX, 99, MIDDLE]]),
        (["a", "b"], "c", [[PREFIX, 97, SUFFIX, 99, MIDDLE], [PREFIX, 98, SUFFIX, 99, MIDDLE]]),
        ([97, 98], "c", [[PREFIX, 97, 98, SUFFIX, 99, MIDDLE]]),
        ("a", "", [[97]]),
    ],
)
def test_a_suffix_stands_before_what_is_filled_in(prompt: Any, suffix: str, expected: list[list[int]]) -> None:
    assert fill_in(prompt, suffix) == expected


def test_a_text_with_a_hole_begins_as_the_model_wants_it() -> None:
    assert fill_in("a", "c", add_bos=True) == [[BOS, PREFIX, 97, SUFFIX, 99, MIDDLE]]


@pytest.mark.parametrize(("prompt", "suffix"), [("x" * 30, "y" * 31), ("x", "y" * 9999), ("x" * 9999, "y")])
def test_a_suffix_takes_room_too(prompt: str, suffix: str) -> None:
    with pytest.raises(ApiError) as refused:
        fill_in(prompt, suffix)
    assert refused.value.code == "context_length_exceeded"
