"""Items of a conversation: read, kept, and made into the messages of a chat."""

from typing import Any

import pytest

from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.responses_api import items
from inferno_runtime.openai.responses_api.convert import chat_of
from inferno_runtime.openai.responses_api.listing import Page, page_of
from inferno_runtime.openai.responses_api.requests import ResponsesRequest


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(number: int) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"call_{number}", "name": "now", "arguments": f'{{"n": {number}}}'}


def output(number: int, value: Any = "12") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": f"call_{number}", "output": value}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def called(*numbers: int) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{n}", "type": "function", "function": {"name": "now", "arguments": f'{{"n": {n}}}'}}
        for n in numbers
    ]


def result(number: int, value: str = "12") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": value}


CONVERSATIONS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "a text": ("Hi", [user("Hi")]),
    "a message": ([user("Hi")], [user("Hi")]),
    "a message in parts": (
        [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
        [user("a\nb")],
    ),
    "a message of the developer": (
        [{"type": "message", "role": "developer", "content": "Be brief."}, user("Hi")],
        [{"role": "developer", "content": "Be brief."}, user("Hi")],
    ),
    "an answer": (
        [user("Hi"), said("Ho"), user("Hi")],
        [user("Hi"), {"role": "assistant", "content": "Ho"}, user("Hi")],
    ),
    "an answer that is a text": (
        [user("Hi"), {"role": "assistant", "content": "Ho"}],
        [user("Hi"), {"role": "assistant", "content": "Ho"}],
    ),
    "a refusal": (
        [user("Hi"), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
        [user("Hi"), {"role": "assistant", "content": "No."}],
    ),
    "a call": (
        [user("Hi"), call(1), output(1)],
        [user("Hi"), {"role": "assistant", "content": "", "tool_calls": called(1)}, result(1)],
    ),
    "an output in parts": (
        [user("Hi"), call(1), output(1, [{"type": "input_text", "text": "a"}])],
        [user("Hi"), {"role": "assistant", "content": "", "tool_calls": called(1)}, result(1, "a")],
    ),
    "two calls together": (
        [user("Hi"), call(1), call(2), output(2, "b"), output(1, "a")],
        [user("Hi"), {"role": "assistant", "content": "", "tool_calls": called(1, 2)}, result(2, "b"), result(1, "a")],
    ),
    "two calls one after the other": (
        [user("Hi"), call(1), output(1), call(2), output(2)],
        [
            user("Hi"),
            {"role": "assistant", "content": "", "tool_calls": called(1)},
            result(1),
            {"role": "assistant", "content": "", "tool_calls": called(2)},
            result(2),
        ],
    ),
    "thinking, words and a call": (
        [user("Hi"), thought("Hm."), said("Wait."), call(1), output(1)],
        [
            user("Hi"),
            {"role": "assistant", "content": "Wait.", "reasoning_content": "Hm.", "tool_calls": called(1)},
            result(1),
        ],
    ),
    "thinking between calls": (
        [user("Hi"), thought("a"), call(1), thought("b"), call(2), output(1), output(2)],
        [
            user("Hi"),
            {"role": "assistant", "content": "", "reasoning_content": "a\nb", "tool_calls": called(1, 2)},
            result(1),
            result(2),
        ],
    ),
    "a summary": (
        [user("Hi"), {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}, said("Ho")],
        [user("Hi"), {"role": "assistant", "content": "Ho", "reasoning_content": "s"}],
    ),
}


@pytest.mark.parametrize(("given", "made"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_what_items_mean(given: Any, made: list[dict[str, Any]]) -> None:
    kept = items.read(given)
    assert items.messages(kept) == made
    # As they are listed they mean the same, whoever sends them back.
    assert items.read(kept) == kept
    assert len({item["id"] for item in kept}) == len(kept)
    instructed = items.messages(kept, "Be brief.")
    assert instructed == [{"role": "system", "content": "Be brief."}, *made]


WRONG: dict[str, tuple[Any, str]] = {
    "an unknown type": ([{"type": "computer_call"}], "input[0].type must be one of"),
    "a type that is none": ([{"type": ["message"]}], "input[0].type"),
    "a reference to nothing": ([{"type": "item_reference"}], "Invalid 'input[0]'"),
    "a role that is none": ([{"role": "tool", "content": "a"}], "Invalid 'input[0].role'"),
    "no content": ([user("Hi"), {"role": "user"}], "Invalid 'input[1]'"),
    "an image that is a file": (
        [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}],
        "input[0].content[0]",
    ),
    "an image without a URL": ([{"role": "user", "content": [{"type": "input_image"}]}], "content[0].image_url"),
    "a file": ([{"role": "user", "content": [{"type": "input_file", "file_data": "x"}]}], "input[0].content[0]"),
    "a part without a text": ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
    "an answer in a question": ([{"role": "user", "content": [{"type": "output_text", "text": "a"}]}], "'input_text'"),
    "a name that is none": ([{**call(1), "name": "a b"}, output(1)], "input[0].name"),
    "an empty id": ([{**call(1), "call_id": ""}, output(1)], "Invalid 'input[0].call_id'"),
    "a call without an output": ([user("Hi"), call(1)], "no output for the function call 'call_1'"),
    "a call that the user interrupts": ([call(1), user("Hi"), output(1)], "no output for the function call 'call_1'"),
    "an output without a call": ([user("Hi"), output(1)], "an output for 'call_1'"),
    "two outputs": ([call(1), output(1), output(1)], "an output for 'call_1'"),
    "two calls of one id": ([call(1), call(1), output(1)], "two function calls with the id 'call_1'"),
    "nothing": ([], "at least one item"),
    "no input": (None, "at least one item"),
    "very many": ([user("Hi")] * 4097, "at most 4096 items"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_wrong_items_are_named(given: Any, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat_of(ResponsesRequest(model="m", input=given), items.read(given))
    assert (caught.value.status, caught.value.param) == (400, "input")
    assert message in caught.value.message


def test_a_reference_stands_for_the_item() -> None:
    kept = items.read([user("Hi")])
    given = [{"type": "item_reference", "id": "msg_1"}, user("And?")]
    assert items.referred(given) == ["msg_1"]
    assert items.read(given, {"msg_1": kept[0]}.get)[0] == kept[0]


@pytest.mark.parametrize(
    ("count", "left"),
    [(0, ["Be brief.", "1", "a", "2", "b", "3"]), (1, ["Be brief.", "2", "b", "3"]), (2, ["Be brief.", "3"])],
)
def test_turns_are_left_out_from_the_first(count: int, left: list[str]) -> None:
    kept = items.read(
        [{"role": "system", "content": "Be brief."}, user("1"), said("a"), user("2"), said("b"), user("3")]
    )
    assert items.turns(kept) == 3
    assert [message["content"] for message in items.messages(items.without_turns(kept, count))] == left


KEPT = [{"id": f"msg_{number}"} for number in range(5)]


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ({}, [4, 3, 2, 1, 0], False),
        ({"order": "asc"}, [0, 1, 2, 3, 4], False),
        ({"order": "asc", "limit": "2"}, [0, 1], True),
        ({"order": "asc", "limit": "2", "after": "msg_1"}, [2, 3], True),
        ({"order": "asc", "limit": "2", "after": "msg_2"}, [3, 4], False),
        ({"limit": "2", "after": "msg_1"}, [0], False),
        ({"after": "msg_0"}, [], False),
    ],
)
def test_pages(query: dict[str, str], ids: list[int], more: bool) -> None:
    page = page_of(KEPT, Page.of(query))
    assert [item["id"] for item in page["data"]] == [f"msg_{number}" for number in ids]
    assert page["has_more"] is more
    assert page["first_id"] == (f"msg_{ids[0]}" if ids else None)
    assert page["last_id"] == (f"msg_{ids[-1]}" if ids else None)


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": "0"}, "limit"), ({"limit": "x"}, "limit"), ({"order": "up"}, "order"), ({"after": "msg_9"}, "after")],
)
def test_pages_that_are_none(query: dict[str, str], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        page_of(KEPT, Page.of(query))
    assert (caught.value.status, caught.value.param) == (400, param)
