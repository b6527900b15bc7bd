"""Answers on the wire."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.chat.events import (
    Call,
    CallBegin,
    CallBroken,
    CallDelta,
    CallEnd,
    Event,
    ReasoningDelta,
    Said,
    TextDelta,
)
from inferno_runtime.engine.request import Usage
from inferno_runtime.openai.responses import Answer, ChatAnswer, CompletionAnswer, Result, usage_object

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def event(data: bytes) -> dict[str, Any]:
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    assert b"\n" not in data[:-2]
    decoded: dict[str, Any] = msgspec.json.decode(data[6:])
    return decoded


@given(text=TEXT, model=TEXT)
@pytest.mark.parametrize("kind", [ChatAnswer, CompletionAnswer])
@pytest.mark.parametrize("usage", [False, True])
def test_an_event_is_what_encoding_all_of_it_would_give(kind: type[Answer], usage: bool, text: str, model: str) -> None:
    answer = kind(model, usage)
    written = answer.events(3).event(TextDelta(text))
    assert event(written) == event(answer.chunk(3, answer.piece(text), None))
    assert ("usage" in event(written)) is usage


def test_a_whole_chat() -> None:
    answer = ChatAnswer("m", fingerprint="fp_1")
    body = msgspec.json.decode(answer.whole([Result(Said("Hi"), "stop")], {"total_tokens": 3}))
    assert body == {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"total_tokens": 3},
    }
    assert answer.id.startswith("chatcmpl-")


def test_whole_completions() -> None:
    results = [Result(Said("a"), "stop"), Result(Said("b"), "length")]
    body = msgspec.json.decode(CompletionAnswer("m").whole(results, {}))
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "text": "b", "logprobs": None, "finish_reason": "length"},
    ]


def test_usage_is_summed() -> None:
    usages = [Usage(5, 2, 7, 0, 0, 0), Usage(1, 0, 2, 0, 0, 0)]
    assert usage_object(usages) == {
        "prompt_tokens": 6,
        "completion_tokens": 9,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_the_ends_of_a_stream() -> None:
    answer = ChatAnswer("m", include_usage=True)
    events = answer.events(0)
    opening = event(events.opening(TextDelta("Hi")))
    assert opening["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    closing = event(events.closing("length"))
    assert closing["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    last = event(answer.usage_event({"total_tokens": 1}))
    assert (last["choices"], last["usage"]) == ([], {"total_tokens": 1})


def test_an_echo_comes_before_the_text() -> None:
    answer = CompletionAnswer("m", echoes=["Once", ""])
    results = [Result(Said(" upon"), "stop"), Result(Said(" a"), "stop")]
    body = msgspec.json.decode(answer.whole(results, {}))
    assert [choice["text"] for choice in body["choices"]] == ["Once upon", " a"]
    assert event(answer.events(0).opening(None)) == event(answer.chunk(0, {"text": "Once"}, None))
    assert answer.events(1).opening(None) == b""


def test_a_whole_message_with_calls_and_reasoning() -> None:
    said = Said("", "Hm.", [Call("call_1", "now", "{}")])
    (choice,) = msgspec.json.decode(ChatAnswer("m").whole([Result(said, "tool_calls")], {}))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
    }


@pytest.mark.parametrize(
    ("said", "delta"),
    [
        (ReasoningDelta("Hm."), {"reasoning_content": "Hm."}),
        (
            CallBegin(1, "call_1", "now"),
            {
                "tool_calls": [
                    {"index": 1, "id": "call_1", "type": "function", "function": {"name": "now", "arguments": ""}}
                ]
            },
        ),
        (CallDelta(1, '{"a'), {"tool_calls": [{"index": 1, "function": {"arguments": '{"a'}}]}),
    ],
)
def test_what_is_no_text_in_a_stream(said: Event, delta: dict[str, object]) -> None:
    written = event(ChatAnswer("m").events(0).event(said))
    assert written["choices"] == [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]


@pytest.mark.parametrize("said", [CallEnd(0), CallBroken(0, "x")])
def test_what_a_stream_does_not_tell(said: Event) -> None:
    assert ChatAnswer("m").events(0).event(said) == b""


def test_a_message_that_begins_with_a_call_has_no_content() -> None:
    opening = event(ChatAnswer("m").events(0).opening(CallBegin(0, "call_1", "now")))
    assert opening["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": None, "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
