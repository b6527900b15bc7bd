"""Requests that stream one sequence: from a query, a body or a message, always the same types."""

from typing import Any

import msgspec
import pytest

from inferno_runtime.openai import sole
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest, Message

MESSAGES = b'[{"role":"user","content":"Hi"}]'


def query(**arguments: bytes | list[bytes]) -> dict[str, list[bytes]]:
    return {name: value if isinstance(value, list) else [value] for name, value in arguments.items()}


def refusal(**arguments: bytes | list[bytes]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        sole.from_query(query(**arguments))
    return caught.value


def test_a_prompt_is_raw() -> None:
    for text in ("Hi", "", " two  words ", "[1,2]", '{"a":1}', "null", "5", "<|im_start|>", "é漢👩", "a\nb\x00"):
        request = sole.from_query(query(model=b"m", prompt=text.encode()))
        assert isinstance(request, CompletionRequest)
        assert request.prompt == text


def test_messages_are_json() -> None:
    request = sole.from_query(query(model=b"m", messages=MESSAGES))
    assert isinstance(request, ChatRequest)
    assert request.messages == [Message(role="user", content="Hi")]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", b"0.25", 0.25),
        ("temperature", b"1", 1.0),
        ("top_p", b"0.5", 0.5),
        ("top_k", b"-1", -1),
        ("min_p", b"1e-2", 0.01),
        ("max_tokens", b"7", 7),
        ("presence_penalty", b"-2", -2.0),
        ("frequency_penalty", b"1.5", 1.5),
        ("seed", b"-9223372036854775808", -(2**63)),
        ("stop", b"\n", "\n"),
        ("stop", [b"a", b"b"], ["a", "b"]),
        ("ignore_eos", b"true", True),
        ("user", b"5", "5"),
        ("seed", b"null", None),
        ("stream_options", b'{"include_usage":true}', {"include_usage": True, "include_obfuscation": None}),
    ],
)
def test_every_field_has_the_type_of_the_body(name: str, text: Any, value: Any) -> None:
    from_query = sole.from_query(query(model=b"m", prompt=b"Hi", **{name: text}))
    from_body = sole.from_body(msgspec.json.encode({"model": "m", "prompt": "Hi", name: value}))
    assert from_query == from_body
    assert msgspec.to_builtins(getattr(from_query, name)) == value


def test_every_field_of_both_requests_can_be_given() -> None:
    for kind in (ChatRequest, CompletionRequest):
        assert set(sole._FORMS[kind]) == set(kind.__struct_fields__)


def test_unknown_arguments_are_ignored() -> None:
    assert sole.from_query(query(model=b"m", prompt=b"x", api_key=b"\xff", zzz=[b"1", b"2"])).model == "m"


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "prompt"),
        ({"model": b"m"}, "prompt"),
        ({"prompt": b"x"}, "model"),
        ({"model": b"m", "prompt": b"x", "messages": MESSAGES}, "prompt"),
        ({"model": b"m", "prompt": [b"x", b"y"]}, "prompt"),
        ({"model": [b"m", b"m"], "prompt": b"x"}, "model"),
        ({"model": b"m", "prompt": b"\xff"}, "prompt"),
        ({"model": b"m", "prompt": b"\xed\xa0\x80"}, "prompt"),  # a lone surrogate
        ({"model": b"m", "messages": b"Hi"}, "messages"),
        ({"model": b"m", "messages": b"{}"}, "messages"),
        ({"model": b"m", "messages": b"[1]"}, "messages"),
        ({"model": b"m", "messages": b"[" * 100_000}, "messages"),
        ({"model": b"m", "messages": b'[{"role":"user","content":"\\ud800"}]'}, "messages"),
        ({"model": b"m", "messages": [MESSAGES, MESSAGES]}, "messages"),
        ({"model": b"m", "prompt": b"x", "temperature": b""}, "temperature"),
        ({"model": b"m", "prompt": b"x", "temperature": b"hot"}, "temperature"),
        ({"model": b"m", "prompt": b"x", "temperature": b"NaN"}, "temperature"),
        ({"model": b"m", "prompt": b"x", "temperature": b"1e999"}, "temperature"),
        ({"model": b"m", "prompt": b"x", "temperature": b'"0.5"'}, "temperature"),
        ({"model": b"m", "prompt": b"x", "temperature": b"2.5"}, "temperature"),
        ({"model": b"m", "prompt": b"x", "temperature": [b"1", b"1"]}, "temperature"),
        ({"model": b"m", "prompt": b"x", "max_tokens": b"0"}, "max_tokens"),
        ({"model": b"m", "prompt": b"x", "max_tokens": b"1.5"}, "max_tokens"),
        ({"model": b"m", "prompt": b"x", "max_tokens": b"2000001"}, "max_tokens"),
        ({"model": b"m", "prompt": b"x", "ignore_eos": b"yes"}, "ignore_eos"),
        ({"model": b"m", "prompt": b"x", "n": b"2"}, "n"),
        ({"model": b"m", "prompt": b"x", "logit_bias": b"[]"}, "logit_bias"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], param: str) -> None:
    error = refusal(**arguments)
    assert (error.status, error.param, error.type) == (400, param, "invalid_request_error")


@pytest.mark.parametrize("stream", [None, True, False])
def test_it_is_always_a_stream(stream: bool | None) -> None:
    assert sole.from_fields({"model": "m", "prompt": "x", "stream": stream}).stream is True


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"model":"m","messages":[]}', ChatRequest),
        (b'{"model":"m","messages":[],"prompt":null}', ChatRequest),
        (b'{"model":"m","messages":null,"prompt":""}', CompletionRequest),
        (b'{"model":"m","prompt":["x"]}', CompletionRequest),
        (b'{"model":"m","prompt":[1,2,3]}', CompletionRequest),
        (b'{"model":"m","prompt":[[1,2,3]]}', CompletionRequest),
    ],
)
def test_the_body_says_which_kind_it_is(body: bytes, kind: type[GenerationRequest]) -> None:
    assert isinstance(sole.from_body(body), kind)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"model":"m"}', "prompt"),
        (b'{"model":"m","prompt":"x","messages":[]}', "prompt"),
        (b'{"model":"m","prompt":["x","y"]}', "prompt"),
        (b'{"model":"m","prompt":[[1],[2]]}', "prompt"),
        (b'{"model":"m","prompt":5}', "prompt"),
        (b'{"prompt":"x"}', "model"),
        (b'{"model":"m","prompt":"x","n":2}', "n"),
    ],
)
def test_a_wrong_body_is_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        sole.from_body(body)
    assert (caught.value.status, caught.value.param) == (400, param)
