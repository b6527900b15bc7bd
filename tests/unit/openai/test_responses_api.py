"""Requests for responses as chats, and what is said as the events and the object of a response."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pydantic
import pytest
from openai.types.responses import Response as PublishedResponse
from openai.types.responses import ResponseStreamEvent

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
from inferno_runtime.openai import errors, requests
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.responses import Result
from inferno_runtime.openai.responses_api import items
from inferno_runtime.openai.responses_api.answer import Response, ResponseEvents, usage_of
from inferno_runtime.openai.responses_api.convert import WORDS, chat_of
from inferno_runtime.openai.responses_api.requests import ResponsesRequest
from tests.unit.server.stored import USAGE

NOW: dict[str, Any] = {"type": "function", "name": "now"}
EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)


def request(**fields: Any) -> ResponsesRequest:
    body = json.dumps({"model": "m", "input": "Hi", **fields}).encode()
    return requests.decode(body, ResponsesRequest)


def chat(**fields: Any) -> dict[str, Any]:
    """What a request is as a chat, without what is not said."""
    given = request(**fields)
    with errors.in_words(WORDS):
        made: dict[str, Any] = msgspec.to_builtins(chat_of(given, items.read(given.input)))
    told: dict[str, Any] = without_nothing(made)
    return told


def without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nothing(inner) for name, inner in value.items() if inner is not None}
    return [without_nothing(inner) for inner in value] if isinstance(value, list) else value


TOOL = {"type": "function", "function": {"name": "now"}}
SAID = [{"role": "user", "content": "Hi"}]
CHATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing but a text": ({}, {}),
    "a limit": ({"max_output_tokens": 7}, {"max_tokens": 7}),
    "sampling": (
        {"temperature": 0.5, "top_p": 0.25, "seed": 3, "priority": "low"},
        {"temperature": 0.5, "top_p": 0.25, "seed": 3, "priority": "low"},
    ),
    "probabilities": ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    "others' probabilities": ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    "nulls": ({"temperature": None, "tools": None, "text": None, "metadata": None}, {}),
    "an object": ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    "a schema": (
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True},
            }
        },
    ),
    "a tool": ({"tools": [NOW]}, {"tools": [TOOL]}),
    "a tool in full": (
        {
            "tools": [{**NOW, "description": "Tells.", "parameters": {"type": "object"}, "strict": True}],
            "parallel_tool_calls": False,
            "tool_choice": "required",
        },
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "now",
                        "description": "Tells.",
                        "parameters": {"type": "object"},
                        "strict": True,
                    },
                }
            ],
            "parallel_tool_calls": False,
            "tool_choice": "required",
        },
    ),
    "a choice by name": (
        {"tools": [NOW], "tool_choice": {"type": "function", "name": "now"}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "now"}}},
    ),
    "a choice of some": (
        {"tools": [NOW], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [NOW]}},
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
            },
        },
    ),
    "no tools, but words about them": ({"parallel_tool_calls": True, "tool_choice": "auto"}, {"tool_choice": "auto"}),
    "effort": ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
    "what is ignored": (
        {
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"summary": "auto"},
            "service_tier": "auto",
            "store": False,
            "top_logprobs": 0,
            "unknown": 1,
        },
        {},
    ),
}


@pytest.mark.parametrize(("fields", "made"), CHATS.values(), ids=CHATS)
def test_a_request_as_a_chat(fields: dict[str, Any], made: dict[str, Any]) -> None:
    assert chat(**fields) == {"model": "m", "messages": SAID, **made}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "model"),
    "a number": ({"input": 3}, "input"),
    "a temperature": ({"temperature": 3}, "temperature"),
    "no tokens": ({"max_output_tokens": 0}, "max_output_tokens"),
    "metadata that is no text": ({"metadata": {"a": 1}}, "metadata"),
    "much metadata": ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    "long metadata": ({"metadata": {"a": "x" * 513}}, "metadata"),
    "an unknown inclusion": ({"include": ["everything"]}, "include"),
    "probabilities of too many": ({"top_logprobs": 21}, "top_logprobs"),
    "the background": ({"background": True}, "background"),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "a prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "a tool of the server's": ({"tools": [{"type": "web_search"}]}, "tools"),
    "a tool without a name": ({"tools": [{"type": "function"}]}, "tools"),
    "a choice that is none": ({"tools": [NOW], "tool_choice": {"type": "mcp"}}, "tool_choice"),
    "a choice that nests": (
        {"tools": [NOW], "tool_choice": {"type": "function", "name": "now", "x": [[[[[[[[[]]]]]]]]]}},
        "tool_choice",
    ),
    "a form that is none": ({"text": {"format": {"type": "xml"}}}, "text"),
    "a schema without a name": ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    "a schema without a schema": ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    "a schema with a bad name": (
        {"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
        "text.format",
    ),
    "a truncation": ({"truncation": "middle"}, "truncation"),
}


@pytest.mark.parametrize(("fields", "param"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)


# Answers

TEXT = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
THOUGHT = [
    "output_item.added",
    "content_part.added",
    "reasoning_text.delta",
    "reasoning_text.done",
    "content_part.done",
]
CALLED = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]
DONE = ["output_item.done"]
STREAMS: dict[str, tuple[Sequence[Event], str, list[str]]] = {
    "a text": ([TextDelta("Hi")], "stop", [*TEXT, *DONE]),
    "nothing": ([], "stop", [name for name in TEXT if name != "output_text.delta"] + DONE),
    "a text that is cut off": ([TextDelta("Hi")], "length", [*TEXT, *DONE]),
    "thinking, then a text": ([ReasoningDelta("Hm"), TextDelta("Hi")], "stop", [*THOUGHT, *DONE, *TEXT, *DONE]),
    "a call": (
        [CallBegin(0, "call_1", "now"), CallDelta(0, "{}"), CallEnd(0)],
        "tool_calls",
        [*CALLED, *DONE],
    ),
    "a text and two calls": (
        [
            TextDelta("Hi"),
            CallBegin(0, "call_1", "now"),
            CallDelta(0, "{}"),
            CallEnd(0),
            CallBegin(1, "call_2", "now"),
            CallDelta(1, "{}"),
            CallEnd(1),
        ],
        "tool_calls",
        [*TEXT, *DONE, *CALLED, *DONE, *CALLED, *DONE],
    ),
    "a call that is cut off": (
        [CallBegin(0, "call_1", "now"), CallDelta(0, '{"a')],
        "length",
        [*CALLED, *DONE],
    ),
    "a call that is none": (
        [CallBegin(0, "call_1", "now"), CallDelta(0, '{"a'), CallBroken(0, '<tool_call>{"a'), TextDelta("Hi")],
        "stop",
        [*CALLED, *DONE, *TEXT, *DONE],
    ),
}


def read_events(stream: bytes) -> list[dict[str, Any]]:
    """The data of events, which are as OpenAI's own types have them and bear the names of their types."""
    events = []
    for event in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        parsed = json.loads(data.removeprefix("data: "))
        assert name == f"event: {parsed['type']}"
        published = EVENT.validate_python(parsed, strict=True)
        assert published.type == parsed["type"]
        events.append(parsed)
    return events


def responding(**fields: Any) -> Response:
    return Response(request(**fields), "m", store=True)


@pytest.mark.parametrize(("said", "finish", "names"), STREAMS.values(), ids=STREAMS)
def test_a_stream(said: Sequence[Event], finish: str, names: list[str]) -> None:
    response = responding(tools=[NOW])
    events = ResponseEvents(response)
    written = events.opening() + events.said(said, None) + events.said([], finish)
    whole = response.object(usage_of(USAGE, 1))
    written += events.closing(whole)
    told = read_events(written)
    status = "incomplete" if finish == "length" else "completed"
    types = [event["type"].removeprefix("response.") for event in told]
    assert types == ["created", "in_progress", *names, status]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    check_places(told)
    check_whole(whole, status)
    # What the events say adds up to the items of the response.
    assert [event["item"] for event in told if event["type"] == "response.output_item.done"] == whole["output"]
    assert told[-1]["response"] == whole
    assert [item["id"] for item in told[-1]["response"]["output"]] == [
        event["item"]["id"] for event in told if event["type"] == "response.output_item.added"
    ]


def check_places(told: list[dict[str, Any]]) -> None:
    """Each event is about the item that was begun last, and its deltas add up to what it says in the end."""
    index, item, deltas = -1, "", ""
    for event in told:
        if event["type"] == "response.output_item.added":
            index, item, deltas = index + 1, event["item"]["id"], ""
            assert event["item"]["status"] == "in_progress"
        assert event.get("output_index", index) == index
        assert event.get("item_id", item) == item
        deltas += event.get("delta", "")
        if event["type"].endswith(("text.done", "arguments.done")):
            assert event.get("text", event.get("arguments")) == deltas


def check_whole(whole: dict[str, Any], status: str) -> None:
    published = PublishedResponse.model_validate(json.loads(json.dumps(whole)), strict=True)
    assert whole["status"] == status == published.status
    assert {item["status"] for item in whole["output"][:-1]} <= {"completed", "incomplete"}
    assert whole["output"][-1]["status"] == status
    assert (whole["incomplete_details"] is None) == (status == "completed")


def test_a_response_that_is_made_at_once() -> None:
    response = responding(tools=[NOW])
    response.say(Result(Said("Hi", "Hm", [Call("call_1", "now", "{}")]), "tool_calls"))
    whole = response.object(usage_of(USAGE, 1))
    check_whole(whole, "completed")
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]
    assert items.messages(items.read([{"role": "user", "content": "?"}, *whole["output"], output("call_1")])) == [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": "Hi",
            "reasoning_content": "Hm",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "12"},
    ]


def output(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "12"}


def test_how_likely_the_tokens_of_a_text_were() -> None:
    def token(text: str, raw: list[int] | None) -> dict[str, Any]:
        return {"token": text, "logprob": -1.5, "bytes": raw}

    first, second = (
        {**token(text, raw), "top_logprobs": [token("!", [33])]} for text, raw in [("Hi", [72, 105]), ("<s>", None)]
    )
    response = responding(top_logprobs=1)
    events = ResponseEvents(response)
    written = events.opening() + events.said([ReasoningDelta("Hm"), TextDelta("Hi")], None, [first])
    written += events.said([TextDelta("!")], "stop", [second])
    whole = response.object(usage_of(USAGE, 1))
    told = read_events(written + events.closing(whole))
    check_whole(whole, "completed")
    # As OpenAI's document has it: an event's have no bytes, and an item's always do.
    bare = [
        {"token": text, "logprob": -1.5, "top_logprobs": [{"token": "!", "logprob": -1.5}]} for text in ("Hi", "<s>")
    ]
    deltas = [event["logprobs"] for event in told if event["type"] == "response.output_text.delta"]
    assert deltas == [bare[:1], bare[1:]]
    assert [event["logprobs"] for event in told if event["type"] == "response.output_text.done"] == [bare]
    kept = [first, {**second, "bytes": []}]
    assert whole["output"][1]["content"][0]["logprobs"] == kept
    assert whole["top_logprobs"] == 1
    at_once = responding(top_logprobs=1)
    at_once.say(Result(Said("Hi!", "Hm"), "stop", None, [first, second]))
    assert at_once.output.items[1]["content"][0]["logprobs"] == kept
    assert "logprobs" not in at_once.output.items[0]["content"][0]


def test_a_call_that_is_cut_off_is_not_complete() -> None:
    response = responding(tools=[NOW])
    response.say(Result(Said(calls=[Call("call_1", "now", "{}"), Call("call_2", "now", '{"a')]), "length"))
    assert [item["status"] for item in response.output.items] == ["completed", "incomplete"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.timed_out(3), "server_error"),
        (errors.internal(), "server_error"),
        (errors.rate_limited("too much", 1), "rate_limit_exceeded"),
    ],
)
def test_a_stream_that_fails(error: ApiError, code: str) -> None:
    response = responding()
    events = ResponseEvents(response)
    told = read_events(events.opening() + events.said([TextDelta("Hi")], None) + events.failure(error))
    assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
    assert told[-2]["code"] == error.code
    assert told[-1]["response"]["error"] == {"code": code, "message": error.message}
    assert told[-1]["response"]["status"] == "failed"


def test_what_a_response_repeats() -> None:
    fields: dict[str, Any] = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "tools": [{**NOW, "parameters": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "function", "name": "now"},
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": None},
        "max_output_tokens": 7,
        "max_tool_calls": 2,
        "temperature": 0.5,
        "top_p": 0.25,
        "truncation": "auto",
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "previous_response_id": "resp_1",
    }
    shown = responding(**fields).object()
    assert {name: shown[name] for name in fields} == fields
    PublishedResponse.model_validate(shown, strict=True)


def test_usage() -> None:
    assert usage_of(USAGE, 2) == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 8,
    }
