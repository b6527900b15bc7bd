"""Requests for messages as chats, and what is said as the events and the object of a message."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

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
from inferno_runtime.openai.messages_api.answer import Message, MessageEvents, error_body
from inferno_runtime.openai.messages_api.convert import WORDS, chat_of
from inferno_runtime.openai.messages_api.requests import MessagesRequest
from tests.unit.openai.test_responses_api import without_nothing
from tests.unit.server.stored import USAGE

HI = {"role": "user", "content": "Hi"}
NOW: dict[str, Any] = {"name": "now", "input_schema": {"type": "object"}}
USE: dict[str, Any] = {"type": "tool_use", "id": "call_1", "name": "now", "input": {"n": 1}}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "call_1", "content": "12"}
TEXT: dict[str, Any] = {"type": "text", "text": "a"}


def chat(**fields: Any) -> dict[str, Any]:
    """What a request is as a chat, without what is not said."""
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [HI], **fields}).encode()
    with errors.in_words(WORDS):
        made: dict[str, Any] = without_nothing(msgspec.to_builtins(chat_of(requests.decode(body, MessagesRequest))))
    return made


def assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": '{"n":1}'}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
ANSWER = {"role": "tool", "tool_call_id": "call_1", "content": "12"}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "a text": ([HI], [HI]),
    "blocks": ([user(TEXT, {**TEXT, "cache_control": {"type": "ephemeral"}})], [{"role": "user", "content": "a\na"}]),
    "an answer": ([HI, assistant(TEXT), HI], [HI, {"role": "assistant", "content": "a"}, HI]),
    "an answer that is a text": (
        [HI, {"role": "assistant", "content": "a"}, HI],
        [HI, {"role": "assistant", "content": "a"}, HI],
    ),
    "a use of a tool": ([HI, assistant(USE), user(RESULT)], [HI, CALLING, ANSWER]),
    "thinking, words and a use": (
        [HI, assistant({"type": "thinking", "thinking": "Hm", "signature": "x"}, TEXT, USE), user(RESULT)],
        [HI, {**CALLING, "content": "a", "reasoning_content": "Hm"}, ANSWER],
    ),
    "thinking that nobody may see": (
        [HI, assistant({"type": "redacted_thinking", "data": "x"}, TEXT), HI],
        [HI, {"role": "assistant", "content": "a"}, HI],
    ),
    "a result and words": (
        [HI, assistant(USE), user(RESULT, TEXT)],
        [HI, CALLING, ANSWER, {"role": "user", "content": "a"}],
    ),
    "two uses": (
        [HI, assistant(USE, {**USE, "id": "call_2"}), user({**RESULT, "tool_use_id": "call_2"}, RESULT)],
        [
            HI,
            {**CALLING, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
            {**ANSWER, "tool_call_id": "call_2"},
            ANSWER,
        ],
    ),
    "a result in blocks": (
        [HI, assistant(USE), user({**RESULT, "content": [TEXT]})],
        [HI, CALLING, {**ANSWER, "content": "a"}],
    ),
    "a result without a content": (
        [HI, assistant(USE), user({"type": "tool_result", "tool_use_id": "call_1"})],
        [HI, CALLING, {**ANSWER, "content": ""}],
    ),
    "a result that is an error": (
        [HI, assistant(USE), user({**RESULT, "is_error": True})],
        [HI, CALLING, {**ANSWER, "content": "Error: 12"}],
    ),
}


@pytest.mark.parametrize(("given", "made"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_what_messages_mean(given: list[dict[str, Any]], made: list[dict[str, Any]]) -> None:
    assert chat(messages=given)["messages"] == made
    system = {"role": "system", "content": "Be brief."}
    assert chat(messages=given, system="Be brief.")["messages"] == [system, *made]
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert chat(messages=given, system=blocks)["messages"] == [system, *made]


TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CHATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sampling": (
        {"temperature": 0.5, "top_p": 0.25, "top_k": 7, "seed": 3, "priority": "low"},
        {"temperature": 0.5, "top_p": 0.25, "top_k": 7, "seed": 3, "priority": "low"},
    ),
    "many to draw from": ({"top_k": 500}, {"top_k": 100}),
    "stops": ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
    "a tool": ({"tools": [NOW]}, {"tools": [TOOL]}),
    "a custom tool": (
        {"tools": [{**NOW, "type": "custom", "description": "Tells.", "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"type": "function", "function": {**TOOL["function"], "description": "Tells."}}]},  # type: ignore[dict-item]
    ),
    "as it likes": ({"tools": [NOW], "tool_choice": {"type": "auto"}}, {"tools": [TOOL], "tool_choice": "auto"}),
    "any": (
        {"tools": [NOW], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    ),
    "one": (
        {"tools": [NOW], "tool_choice": {"type": "tool", "name": "now"}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "now"}}},
    ),
    "none": ({"tools": [NOW], "tool_choice": {"type": "none"}}, {"tools": [TOOL], "tool_choice": "none"}),
    "a schema": (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "output", "schema": {"type": "object"}},
            }
        },
    ),
    "no thinking": ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
    "effort": ({"output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
    "what is ignored": (
        {"metadata": {"user_id": "u"}, "service_tier": "auto", "thinking": {"type": "adaptive"}, "betas": ["x"]},
        {},
    ),
}


@pytest.mark.parametrize(("fields", "made"), CHATS.values(), ids=CHATS)
def test_a_request_as_a_chat(fields: dict[str, Any], made: dict[str, Any]) -> None:
    assert chat(**fields) == {"model": "m", "max_tokens": 9, "messages": [HI], **made}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hi."}}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (user(TEXT, IMAGE), [{"type": "text", "text": TEXT["text"]}, SHOWN]),
        (
            user({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}),
            [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
        ),
    ],
)
def test_images_are_parts_of_a_chat(given: dict[str, Any], made: list[dict[str, Any]]) -> None:
    assert chat(messages=[given])["messages"][0]["content"] == made


@pytest.mark.parametrize("failed", [False, True])
def test_a_tool_can_answer_with_an_image(failed: bool) -> None:
    result = {**RESULT, "content": [TEXT, IMAGE], "is_error": failed}
    *_, tool = chat(messages=[HI, assistant(USE), user(result)])["messages"]
    text = f"Error: {TEXT['text']}" if failed else TEXT["text"]
    assert tool["content"] == [{"type": "text", "text": text}, SHOWN]


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no messages": ({"messages": []}, "messages", "at least one"),
    "no limit": ({"max_tokens": None}, "max_tokens", "int"),
    "a role": ({"messages": [{"role": "tool", "content": ""}]}, "messages", "role"),
    "a document": ({"messages": [user(TEXT, DOCUMENT)]}, "messages", "messages[0].content[1].type must be one of"),
    "an image of the assistant's": ({"messages": [HI, assistant(IMAGE)]}, "messages", "messages[1].content[0]"),
    "an image without data": (
        {"messages": [user({"type": "image", "source": {"type": "base64", "media_type": "image/png"}})]},
        "messages",
        "messages[0].content[0].source",
    ),
    "an image without a URL": (
        {"messages": [user({"type": "image", "source": {"type": "url"}})]},
        "messages",
        "messages[0].content[0].source",
    ),
    "a document as a result": (
        {"messages": [HI, assistant(USE), user({**RESULT, "content": [DOCUMENT]})]},
        "messages",
        "messages[2].content[0].content[0].type must be one of",
    ),
    "a system that is no text": ({"system": [USE]}, "system", "system[0] must be of the type 'text'"),
    "a text without one": ({"messages": [user({"type": "text"})]}, "messages", "messages[0].content[0]"),
    "a use by the user": ({"messages": [user(USE)]}, "messages", "only the assistant"),
    "a result by the assistant": ({"messages": [HI, assistant(RESULT)]}, "messages", "a message of the user"),
    "a name": ({"messages": [HI, assistant({**USE, "name": "a b"}), user(RESULT)]}, "messages", "content[0].name"),
    "two uses of one id": ({"messages": [HI, assistant(USE, USE), user(RESULT)]}, "messages", "the same id"),
    "a use without a result": ({"messages": [HI, assistant(USE), HI]}, "messages", "no tool_result for the tool_use 'call_1'"),
    "a use at the end": ({"messages": [HI, assistant(USE)]}, "messages", "no tool_result for the tool_use 'call_1'"),
    "a result without a use": ({"messages": [user(RESULT)]}, "messages", "messages[0].content[0].tool_use_id"),
    "two results": ({"messages": [HI, assistant(USE), user(RESULT, RESULT)]}, "messages", "content[1].tool_use_id"),
    "a tool of the server's": ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools", "tools[0]"),
    "a tool without a schema": ({"tools": [{"name": "now"}]}, "tools", "input_schema"),
    "no tool chosen": ({"tools": [NOW], "tool_choice": {"type": "tool"}}, "tool_choice.name", "tool_choice.name"),
    "a choice": ({"tools": [NOW], "tool_choice": {"type": "some"}}, "tool_choice", "some"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert message in caught.value.message


# Answers

THINKING = ReasoningDelta("Hm")
CALLED: list[Event] = [CallBegin(0, "call_1", "now"), CallDelta(0, '{"n":'), CallDelta(0, "1}"), CallEnd(0)]
BROKEN: list[Event] = [CallBegin(0, "call_1", "now"), CallDelta(0, "{"), CallBroken(0, "<tool_call>{")]
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "unsigned"}
STREAMS: dict[str, tuple[Sequence[Event], str, str, list[dict[str, Any]], str]] = {
    "a text": ([TextDelta("H"), TextDelta("i")], "stop", "", [{"type": "text", "text": "Hi"}], "end_turn"),
    "nothing": ([], "stop", "", [], "end_turn"),
    "a limit": ([TextDelta("a")], "length", "", [TEXT], "max_tokens"),
    "a stop string": ([TextDelta("a")], "stop", "\n", [TEXT], "stop_sequence"),
    "thinking": ([THINKING, TextDelta("a")], "stop", "", [THOUGHT, TEXT], "end_turn"),
    "a use": (CALLED, "tool_calls", "", [USE], "tool_use"),
    "two uses": (
        [*CALLED, CallBegin(1, "call_2", "now"), CallDelta(1, "{}"), CallEnd(1)],
        "tool_calls",
        "",
        [USE, {"type": "tool_use", "id": "call_2", "name": "now", "input": {}}],
        "tool_use",
    ),
    "words and a use": ([TextDelta("a"), *CALLED], "tool_calls", "", [TEXT, USE], "tool_use"),
    "a use that is cut off": (CALLED[:2], "length", "", [{**USE, "input": {}}], "max_tokens"),
    "a use that is none": ([*BROKEN, TextDelta("a")], "stop", "", [{**USE, "input": {}}, TEXT], "end_turn"),
}


@pytest.mark.parametrize(("said", "finish", "stop", "content", "reason"), STREAMS.values(), ids=STREAMS)
def test_a_stream(said: Sequence[Event], finish: str, stop: str, content: list[dict[str, Any]], reason: str) -> None:
    events = MessageEvents(Message("m", thinks=True))
    told = read_events(events.opening(USAGE) + events.said(said) + events.closing(finish, stop, USAGE))
    assert [told[0]["type"], told[1]["type"], told[-2]["type"], told[-1]["type"]] == [
        "message_start",
        "ping",
        "message_delta",
        "message_stop",
    ]
    assert told[-2]["delta"] == {"stop_reason": reason, "stop_sequence": stop or None}
    assert assembled(told[2:-2]) == content


def read_events(stream: bytes) -> list[dict[str, Any]]:
    events = []
    for event in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def assembled(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content that the events of blocks add up to; each block ends before the next one begins."""
    content: list[dict[str, Any]] = []
    given, open_ = "", False
    for event in events:
        assert event["index"] == len(content) - (event["type"] != "content_block_start")
        match event["type"]:
            case "content_block_start":
                assert not open_
                open_, given = True, ""
                content.append(event["content_block"])
            case "content_block_stop":
                assert open_
                open_ = False
                if content[-1]["type"] == "tool_use":
                    try:
                        content[-1]["input"] = json.loads(given)
                    except ValueError:
                        content[-1]["input"] = {}
            case "content_block_delta":
                delta = event["delta"]
                if delta["type"] == "input_json_delta":
                    given += delta["partial_json"]
                else:
                    field = delta["type"].removesuffix("_delta")
                    content[-1][field] += delta[field]
    assert not open_
    return content


def test_a_stream_that_tells_nothing_of_the_thinking() -> None:
    events = MessageEvents(Message("m", thinks=False))
    assert assembled(read_events(events.said([THINKING, TextDelta("a")]) + events._end())) == [TEXT]


@pytest.mark.parametrize("thinks", [True, False])
def test_a_message_that_is_made_at_once(thinks: bool) -> None:
    said = Said("a", "Hm", [Call("call_1", "now", '{"n":1}'), Call("call_2", "now", '{"n"')])
    message = json.loads(Message("m", thinks=thinks).whole(said, "length", "", USAGE))
    cut = {"type": "tool_use", "id": "call_2", "name": "now", "input": {}}
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [*([THOUGHT] if thinks else []), TEXT, USE, cut],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 3,
        },
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.bad_request("No."), "invalid_request_error"),
        (errors.unauthorized("No.", "invalid_api_key"), "authentication_error"),
        (errors.forbidden("No.", "model", "model_not_allowed"), "permission_error"),
        (errors.model_not_found("m"), "not_found_error"),
        (errors.body_too_large(1), "request_too_large"),
        (errors.unsupported_media_type("text/plain"), "invalid_request_error"),
        (errors.rate_limited("no", 1), "rate_limit_error"),
        (errors.internal(), "api_error"),
        (errors.unavailable("No."), "overloaded_error"),
        (errors.timed_out(1), "timeout_error"),
        (ApiError(507, "No.", kind=errors.SERVER), "api_error"),
    ],
)
def test_errors(error: ApiError, kind: str) -> None:
    body = json.loads(error_body(error, "req_1"))
    assert body == {
        "type": "error",
        "error": {"type": kind, "message": error.message, "param": error.param, "code": error.code},
        "request_id": "req_1",
    }
