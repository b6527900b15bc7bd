"""The items of a conversation: how a client writes them, how they are kept, and the chat messages that they make.

They are kept in the form in which the API lists them: each with an id, and its content in parts.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, get_args

import msgspec

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.responses_api.requests import (
    FunctionCallItem,
    FunctionCallOutputItem,
    Item,
    MessageItem,
    ReasoningItem,
    ReferenceItem,
)
from inferno_runtime.openai.tools import check_name

Kept = dict[str, Any]
"""An item as the API lists it."""

MAX_ITEMS = 4096
_KINDS = tuple(str(kind.__struct_config__.tag) for kind in get_args(Item))
_REFERENCE = ReferenceItem.__struct_config__.tag
_INPUT = ("input_text", "input_image", "text")
_OUTPUT = ("output_text", "input_text", "text", "refusal")


def new_id(prefix: str) -> str:
    """An id that no other item or response has."""
    return f"{prefix}_{secrets.token_hex(16)}"


def referred(given: str | list[dict[str, Any]] | None) -> list[str]:
    """The ids of the stored items that stand in a request's input by these alone."""
    if not isinstance(given, list):
        return []
    ids = [item.get("id") for item in given[:MAX_ITEMS] if item.get("type") == _REFERENCE]
    return [each for each in ids if isinstance(each, str)]


def read(given: str | list[dict[str, Any]] | None, stored: Callable[[str], Kept | None] = lambda _: None) -> list[Kept]:
    """The items of a request. stored: finds one by its id. Raises `ApiError`, which says which item is wrong."""
    if given is None:
        return []
    if isinstance(given, str):
        return [_message(MessageItem(role="user", content=given), "input")]
    if len(given) > MAX_ITEMS:
        raise errors.bad_request(f"'input' may hold at most {MAX_ITEMS} items.", "input")
    return [_read(item, f"input[{number}]", stored) for number, item in enumerate(given)]


def messages(items: Sequence[Kept], instructions: str | None = None) -> list[dict[str, Any]]:
    """The messages of a chat. Raises `ApiError` where calls and their outputs do not belong together.

    What the assistant does in a row (thinking, speaking, calling) is one message.
    """
    made: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    calls = _Calls()
    assistant: dict[str, Any] | None = None  # the message that the assistant is still adding to
    for item in items:
        kind = item["type"]
        if kind == "function_call_output":
            calls.answer(item["call_id"])
            made.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
        elif kind == "message" and item["role"] != "assistant":
            calls.check()
            made.append({"role": item["role"], "content": _content(item["content"])})
        else:
            if assistant is None:
                calls.check()
                assistant = {"role": "assistant", "content": ""}
                made.append(assistant)
            _add(item, assistant, calls)
            continue
        assistant = None
    calls.check()
    return made


def turns(items: Sequence[Kept]) -> int:
    """How many turns a conversation has: each begins with something that the user says."""
    return len(_turns(items))


def without_turns(items: Sequence[Kept], count: int) -> list[Kept]:
    """A conversation without so many of its first turns; what stands before them stays. count: less than it has."""
    begins = _turns(items)
    return [*items[: begins[0]], *items[begins[count] :]]


def _turns(items: Sequence[Kept]) -> list[int]:
    said = [item["type"] == "message" and item["role"] == "user" for item in items]
    return [number for number, users in enumerate(said) if users and not (number and said[number - 1])]


class _Calls:
    """The calls that wait for their outputs."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}

    def begin(self, call_id: str) -> None:
        if call_id in self._waiting:
            raise errors.bad_request(f"'input' holds two function calls with the id '{call_id[:64]}'.", "input")
        self._waiting[call_id] = None

    def answer(self, call_id: str) -> None:
        if call_id not in self._waiting:
            raise errors.bad_request(
                f"'input' holds an output for '{call_id[:64]}', which is no function call before it that waits for one.",
                "input",
            )
        del self._waiting[call_id]

    def check(self) -> None:
        for call_id in self._waiting:
            raise errors.bad_request(f"'input' holds no output for the function call '{call_id[:64]}'.", "input")


def _add(item: Kept, message: dict[str, Any], calls: _Calls) -> None:
    """Add an item of the assistant's to its message."""
    match item["type"]:
        case "message":
            message["content"] = "\n\n".join(filter(None, (message["content"], _joined(item["content"]))))
        case "reasoning":
            thought = _joined(item["content"] or item["summary"])
            message["reasoning_content"] = "\n".join(filter(None, (message.get("reasoning_content"), thought)))
        case _:
            calls.begin(item["call_id"])
            function = {"name": item["name"], "arguments": item["arguments"]}
            message.setdefault("tool_calls", []).append(
                {"id": item["call_id"], "type": "function", "function": function}
            )


def _content(given: str | Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A content as a chat has it: a text, or parts where there are images."""
    if isinstance(given, str):
        return given
    if all(part["type"] != "input_image" for part in given):
        return _joined(given)
    return [
        {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail")}}
        if part["type"] == "input_image"
        else {"type": "text", "text": part["text"]}
        for part in given
    ]


def _joined(parts: Sequence[dict[str, Any]]) -> str:
    return "\n".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in parts)


# From the wire


def _read(given: dict[str, Any], where: str, stored: Callable[[str], Kept | None]) -> Kept:
    kind = given.get("type") or "message"
    if kind not in _KINDS:
        raise errors.unsupported("input", f"{where}.type must be one of {', '.join(_KINDS)}, not '{str(kind)[:64]}'.")
    try:
        item: Item = msgspec.convert({**given, "type": kind}, type=Item)
    except msgspec.ValidationError as error:
        raise _invalid(where, error) from error
    match item:
        case ReferenceItem():
            if (found := stored(item.id)) is None:
                raise errors.item_not_found(item.id, where)
            return found
        case MessageItem():
            return _message(item, where)
        case FunctionCallItem():
            check_name(item.name, "input", f"{where}.name")
            return {
                "id": item.id or new_id("fc"),
                "type": "function_call",
                "status": "completed",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionCallOutputItem():
            return {
                "id": item.id or new_id("fco"),
                "type": "function_call_output",
                "status": "completed",
                "call_id": item.call_id,
                "output": _output(item.output, where),
            }
        case ReasoningItem():
            return {
                "id": item.id or new_id("rs"),
                "type": "reasoning",
                "summary": _parts(item.summary or [], f"{where}.summary", ("summary_text",), "summary_text"),
                "content": _parts(item.content or [], f"{where}.content", ("reasoning_text", "text"), "reasoning_text"),
            }


def _invalid(where: str, error: msgspec.ValidationError) -> ApiError:
    what, _, path = str(error).partition(" - at `$")
    return errors.bad_request(f"Invalid '{where}{path.rstrip('`')}': {what}.", "input")


def _message(item: MessageItem, where: str) -> Kept:
    assistant = item.role == "assistant"
    kind = "output_text" if assistant else "input_text"
    content = [{"type": kind, "text": item.content}] if isinstance(item.content, str) else item.content
    return {
        "id": item.id or new_id("msg"),
        "type": "message",
        "status": "completed",
        "role": item.role,
        "content": _parts(content, f"{where}.content", _OUTPUT if assistant else _INPUT, kind),
    }


def _output(given: str | list[dict[str, Any]], where: str) -> str | list[dict[str, Any]]:
    if isinstance(given, str):
        return given
    parts = _parts(given, f"{where}.output", _INPUT, "input_text")
    return parts if any(part["type"] == "input_image" for part in parts) else _joined(parts)


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    url = part.get("image_url")
    if part.get("file_id") is not None:
        raise errors.unsupported("input", f"{where}: this server keeps no files; send the image as 'image_url'.")
    if not isinstance(url, str):
        raise errors.bad_request(f"{where}.image_url must be a string.", "input")
    return {"type": "input_image", "image_url": url, "detail": part.get("detail") or "auto"}


def _parts(given: Sequence[dict[str, Any]], where: str, kinds: Sequence[str], kept: str) -> list[dict[str, Any]]:
    """The parts of a content, which are all texts, under the type that such a content has."""
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(given):
        kind = part.get("type")
        if kind not in kinds:
            taken = " and ".join(f"'{name}'" for name in kinds if name in (kinds[0], "input_image"))
            raise errors.unsupported(
                "input", f"{where}[{number}]: this server takes parts of the type {taken} here, not '{str(kind)[:64]}'."
            )
        if kind == "input_image":
            parts.append(_image(part, f"{where}[{number}]"))
            continue
        field = "refusal" if kind == "refusal" else "text"
        text = part.get(field)
        if not isinstance(text, str):
            raise errors.bad_request(f"{where}[{number}].{field} must be a string.", "input")
        made: dict[str, Any] = {"type": "refusal" if kind == "refusal" else kept, field: text}
        if kept == "output_text" and kind != "refusal":
            made["annotations"] = []
        parts.append(made)
    return parts
