"""Every wrong request is a 400 that names the field."""

from typing import Any

import msgspec
import pytest

from inferno_runtime.chat.model import ChatModel
from inferno_runtime.chat.template import ChatTemplate
from inferno_runtime.openai import convert, requests
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.target import Target
from tests.unit.server.fakes import CHATML, ByteTokenizer

USER = {"role": "user", "content": "Hi"}


CALLING: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "12"}


def called(**function: Any) -> dict[str, Any]:
    return {**CALLING, "tool_calls": [{"id": "a", "function": {"name": "now", "arguments": "{}", **function}}]}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "now", **function}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def target() -> Target:
    tokenizer = ByteTokenizer()
    template = ChatTemplate(CHATML, bos="", eos="", control_spellings=tokenizer.control_spellings)
    return Target(tokenizer, ChatModel(template, tokenizer), "", context=64, longest_piece=12, max_sequences=4)


def refusal_of_chat(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        convert.chat_job(requests.decode(body, requests.ChatRequest), target())
    return caught.value


def refusal_of_completion(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        convert.completion_job(requests.decode(body, requests.CompletionRequest), target())
    return caught.value


# Fields that both endpoints have: what is sent, and the code it is refused with; the param is the field.
SHARED: list[tuple[str, Any, str]] = [
    ("model", 1, "invalid_value"),
    ("model", None, "invalid_value"),
    ("temperature", -0.1, "invalid_value"),
    ("temperature", 2.1, "invalid_value"),
    ("temperature", "0.5", "invalid_value"),
    ("temperature", True, "invalid_value"),
    ("top_p", 1.01, "invalid_value"),
    ("top_p", -1, "invalid_value"),
    ("top_k", 101, "invalid_value"),
    ("top_k", -2, "invalid_value"),
    ("top_k", 1.5, "invalid_value"),
    ("min_p", 2, "invalid_value"),
    ("max_tokens", 0, "invalid_value"),
    ("max_tokens", -1, "invalid_value"),
    ("max_tokens", 2_000_001, "invalid_value"),
    ("max_tokens", "many", "invalid_value"),
    ("presence_penalty", 2.5, "invalid_value"),
    ("frequency_penalty", -2.5, "invalid_value"),
    ("seed", 1.5, "invalid_value"),
    ("seed", 2**63, "invalid_value"),
    ("stop", 5, "invalid_value"),
    ("stop", [1], "invalid_value"),
    ("stop", [""], "invalid_value"),
    ("stop", "", "invalid_value"),
    ("stop", [str(number) for number in range(17)], "invalid_value"),
    ("stream", "yes", "invalid_value"),
    ("stream_options", {"include_usage": True}, "invalid_value"),
    ("stream_options", [], "invalid_value"),
    ("n", 0, "invalid_value"),
    ("n", 5, "invalid_value"),
    ("n", 129, "invalid_value"),
    ("min_tokens", -1, "invalid_value"),
    ("min_tokens", 513, "invalid_value"),
    ("typical_p", 1.5, "invalid_value"),
    ("top_n_sigma", -1, "invalid_value"),
    ("repeat_penalty", 0, "invalid_value"),
    ("repeat_last_n", -2, "invalid_value"),
    ("xtc_probability", 2, "invalid_value"),
    ("xtc_threshold", -0.1, "invalid_value"),
    ("dry_multiplier", -1, "invalid_value"),
    ("dry_base", 0.5, "invalid_value"),
    ("dry_allowed_length", -1, "invalid_value"),
    ("dry_penalty_last_n", 1.5, "invalid_value"),
    ("logit_bias", [5], "invalid_value"),
    ("logit_bias", {"5": 101}, "invalid_value"),
    ("logit_bias", {"5": "much"}, "invalid_value"),
    ("logit_bias", {"word": 1}, "invalid_value"),
    ("logit_bias", {"-1": 1}, "invalid_value"),
    ("logit_bias", {"259": 1}, "invalid_value"),
    ("logit_bias", {"9" * 5000: 1}, "invalid_value"),
    ("logit_bias", {"²": 1}, "invalid_value"),
    ("logit_bias", {str(token): 1 for token in range(1025)}, "invalid_value"),
    ("response_format", "json", "invalid_value"),
    ("response_format", {}, "invalid_value"),
    ("response_format", {"type": "xml"}, "invalid_value"),
    ("response_format", {"type": "json_schema"}, "missing_required_parameter"),
    ("response_format", {"type": "json_schema", "json_schema": {"schema": {}}}, "invalid_value"),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, "invalid_value"),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": []}}, "invalid_value"),
    ("response_format", {"type": "grammar"}, "missing_required_parameter"),
    ("response_format", {"type": "regex"}, "missing_required_parameter"),
    ("structured_outputs", {}, "invalid_value"),
    ("structured_outputs", {"json_object": False}, "invalid_value"),
    ("structured_outputs", {"regex": "a", "choice": ["a"]}, "invalid_value"),
    ("structured_outputs", {"choice": []}, "invalid_value"),
    ("structured_outputs", {"choice": [1]}, "invalid_value"),
    ("structured_outputs", {"json": "{"}, "invalid_value"),
    ("structured_outputs", {"json": "[]"}, "invalid_value"),
    ("user", 7, "invalid_value"),
    ("priority", "urgent", "invalid_value"),
    ("priority", 3, "invalid_value"),
]

CHAT: list[tuple[str, Any, str]] = [
    ("messages", [], "invalid_value"),
    ("messages", None, "invalid_value"),
    ("messages", "Hi", "invalid_value"),
    ("messages", [1], "invalid_value"),
    ("messages", [{"content": "Hi"}], "invalid_value"),
    ("messages", [{"role": "wizard", "content": "Hi"}], "invalid_value"),
    ("messages", [{"role": "user"}], "invalid_value"),
    ("messages", [{"role": "user", "content": None}], "invalid_value"),
    ("messages", [{"role": "user", "content": 5}], "invalid_value"),
    ("messages", [{"role": "user", "content": [{"type": "text"}]}], "invalid_value"),
    ("messages", [{"role": "user", "content": [{"type": "text", "text": 1}]}], "invalid_value"),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "invalid_value"),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "unsupported_parameter"),
    ("messages", [{"role": "system", "content": [{"type": "image_url", "image_url": "x"}]}], "unsupported_parameter"),
    ("messages", [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "unsupported_parameter"),
    ("messages", [{"role": "user", "content": "Hi", "name": "a b"}], "invalid_value"),
    ("messages", [{"role": "user", "content": "Hi", "name": "<|x|>"}], "invalid_value"),
    ("messages", [{"role": "function", "name": "now", "content": "12"}], "unsupported_parameter"),
    ("messages", [USER, {"role": "tool", "content": "Hi"}], "invalid_value"),
    ("messages", [USER, {"role": "tool", "content": "Hi", "tool_call_id": "a"}], "invalid_value"),
    ("messages", [USER, CALLING], "invalid_value"),
    ("messages", [USER, CALLING, USER, RESULT], "invalid_value"),
    ("messages", [USER, RESULT, CALLING], "invalid_value"),
    ("messages", [USER, CALLING, RESULT, RESULT], "invalid_value"),
    ("messages", [USER, CALLING, {**RESULT, "tool_call_id": "b"}], "invalid_value"),
    ("messages", [USER, {**CALLING, "tool_calls": CALLING["tool_calls"] * 2}, RESULT], "invalid_value"),
    ("messages", [USER, {**CALLING, "role": "user"}], "invalid_value"),
    ("messages", [USER, {**CALLING, "tool_calls": [{}]}], "invalid_value"),
    ("messages", [USER, {**CALLING, "tool_calls": [{"id": "a", "function": {"name": "now"}}]}], "invalid_value"),
    ("messages", [USER, called(name="a b")], "invalid_value"),
    ("messages", [USER, called(arguments={})], "invalid_value"),
    ("messages", [{"role": "user", "content": "x" * 64}], "context_length_exceeded"),
    ("max_completion_tokens", 0, "invalid_value"),
    ("logprobs", 2, "invalid_value"),
    ("top_logprobs", 2, "invalid_value"),
    ("top_logprobs", 21, "invalid_value"),
    ("tools", [{"type": "function"}], "invalid_value"),
    ("tools", [{"type": "custom", "custom": {"name": "x"}}], "invalid_value"),
    ("tools", [tool(name="a b")], "invalid_value"),
    ("tools", [tool(name="")], "invalid_value"),
    ("tools", [tool(name="x" * 65)], "invalid_value"),
    ("tools", [tool(name="<|im_start|>")], "invalid_value"),
    ("tools", [tool(), tool()], "invalid_value"),
    ("tools", [tool(name=f"f{number}") for number in range(129)], "invalid_value"),
    ("tools", [tool(parameters=[])], "invalid_value"),
    ("tools", [tool(parameters={"type": "string"})], "invalid_value"),
    ("tools", [tool(parameters=nested(100))], "invalid_value"),
    ("tool_choice", "required", "invalid_value"),
    ("tool_choice", {"type": "function", "function": {"name": "now"}}, "invalid_value"),
    ("parallel_tool_calls", "yes", "invalid_value"),
    ("functions", [{"name": "f"}], "unsupported_parameter"),
    ("modalities", ["audio"], "unsupported_parameter"),
    ("audio", {"voice": "alloy", "format": "wav"}, "unsupported_parameter"),
    ("web_search_options", {}, "unsupported_parameter"),
    ("moderation", {"model": "omni-moderation-latest"}, "unsupported_parameter"),
    ("parallel_tool_calls", "yes", "invalid_value"),
    ("store", 1, "invalid_value"),
    ("metadata", [], "invalid_value"),
    ("metadata", {"a": 1}, "invalid_value"),
    ("metadata", {"a": "x" * 513}, "invalid_value"),
    ("metadata", {"x" * 65: "a"}, "invalid_value"),
    ("metadata", {str(number): "a" for number in range(17)}, "invalid_value"),
    ("service_tier", 1, "invalid_value"),
    ("prediction", "text", "invalid_value"),
    ("reasoning_effort", 1, "invalid_value"),
    ("chat_template_kwargs", [], "invalid_value"),
    ("chat_template_kwargs", {"messages": []}, "invalid_value"),
    ("chat_template_kwargs", {str(number): 1 for number in range(17)}, "invalid_value"),
    ("chat_template_kwargs", {"a": [[[[[[[[[1]]]]]]]]]}, "invalid_value"),
    ("verbosity", 1, "invalid_value"),
    ("safety_identifier", 1, "invalid_value"),
    ("prompt_cache_key", 1, "invalid_value"),
    ("prompt_cache_retention", 24, "invalid_value"),
    ("prompt_cache_options", "explicit", "invalid_value"),
]

COMPLETION: list[tuple[str, Any, str]] = [
    ("prompt", None, "invalid_value"),
    ("prompt", [], "invalid_value"),
    ("prompt", [[]], "invalid_value"),
    ("prompt", ["a", 1], "invalid_value"),
    ("prompt", ["a", [1]], "invalid_value"),
    ("prompt", [1.5], "invalid_value"),
    ("prompt", {"text": "a"}, "invalid_value"),
    ("prompt", [259], "invalid_value"),
    ("prompt", [-1], "invalid_value"),
    ("prompt", [[1], [99999]], "invalid_value"),
    ("prompt", ["a"] * 5, "invalid_value"),
    ("prompt", "x" * 64, "context_length_exceeded"),
    ("prompt", [65] * 64, "context_length_exceeded"),
    ("best_of", 0, "invalid_value"),
    ("best_of", 5, "invalid_value"),
    ("best_of", 129, "invalid_value"),
    ("suffix", "end", "unsupported_parameter"),
    ("suffix", 1, "invalid_value"),
    ("logprobs", -1, "invalid_value"),
    ("logprobs", True, "invalid_value"),
    ("logprobs", 6, "invalid_value"),
]


@pytest.mark.parametrize(("field", "value", "code"), SHARED + CHAT)
def test_a_wrong_field_of_chat_is_named(field: str, value: Any, code: str) -> None:
    body = {"model": "m", "messages": [USER], field: value}
    error = refusal_of_chat(msgspec.json.encode(body))
    assert (error.status, error.param, error.code) == (400, field, code)
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize(("field", "value", "code"), SHARED + COMPLETION)
def test_a_wrong_field_of_completions_is_named(field: str, value: Any, code: str) -> None:
    body = {"model": "m", "prompt": "Hi", field: value}
    error = refusal_of_completion(msgspec.json.encode(body))
    assert (error.status, error.param, error.code) == (400, field, code)
    assert error.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"), [(b'{"messages":[]}', "model"), (b'{"model":"m"}', "messages"), (b"{}", "model")]
)
def test_a_missing_field_is_named(body: bytes, param: str) -> None:
    error = refusal_of_chat(body)
    assert (error.status, error.param, error.code) == (400, param, "missing_required_parameter")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}]} {}',
        b'{"model":"m","temperature":NaN}',
        b'{"model":"m","temperature":Infinity}',
        b'{"model":"\xff"}',
        b'{"model":"m","unknown":"\xff"}',
        b'{"model":"\\ud800"}',
        b'{"model":"m","messages":[{"role":"user","content":"\\udfff"}]}',
        b"\xff\xfe{\x00}\x00",
        b'{"model":"m","unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","unknown":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_words(body: bytes) -> None:
    error = refusal_of_chat(body)
    assert (error.status, error.param, error.code) == (400, None, "invalid_json")


@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_a_number_beyond_floats_names_its_field(number: bytes) -> None:
    error = refusal_of_chat(b'{"model":"m","temperature":' + number + b"}")
    assert (error.status, error.param) == (400, "temperature")


def test_deep_nesting_inside_a_known_field_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    error = refusal_of_chat(b'{"model":"m","tools":[{"a":' + deep + b"}]}")
    assert error.status == 400


def test_an_exceeded_context_names_both_numbers() -> None:
    error = refusal_of_completion(msgspec.json.encode({"model": "m", "prompt": [65] * 70}))
    assert "64" in error.message
    assert "70" in error.message


def test_a_hopeless_prompt_is_not_even_tokenized() -> None:
    for error in (
        refusal_of_completion(msgspec.json.encode({"model": "m", "prompt": "x" * 12_000})),
        refusal_of_chat(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "x" * 12_000}]})),
    ):
        assert error.code == "context_length_exceeded"
        assert "64 tokens" in error.message
        assert "at least 100" in error.message


def test_both_names_of_the_limit_must_agree() -> None:
    body = {"model": "m", "messages": [USER], "max_tokens": 5, "max_completion_tokens": 6}
    assert refusal_of_chat(msgspec.json.encode(body)).param == "max_completion_tokens"


@pytest.mark.parametrize(
    "extra",
    [
        {"best_of": 2, "stream": True},
        {"best_of": 1, "n": 2},
        {"echo": True, "suffix": "end"},
        {"min_tokens": 9, "max_tokens": 8},
    ],
)
def test_fields_that_contradict_each_other(extra: dict[str, object]) -> None:
    error = refusal_of_completion(msgspec.json.encode({"model": "m", "prompt": "Hi", **extra}))
    assert error.code == "invalid_value"


def test_an_error_object_has_four_fields() -> None:
    assert msgspec.json.decode(ApiError(500, "Oh.").body()) == {
        "error": {"message": "Oh.", "type": "invalid_request_error", "param": None, "code": None}
    }
