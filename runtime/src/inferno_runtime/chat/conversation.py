"""A conversation in the form that a model's template wants it, from the form that all APIs have in common."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from inferno_runtime.chat.events import Call
from inferno_runtime.chat.template import Fixed, Message
from inferno_runtime.chat.tools import Tool
from inferno_runtime.chat.traits import Traits

MOST_NESTED = 64  # levels of a tool's parameters and of a call's arguments
_PLAIN_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")


Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    reasoning and calls: an assistant's; call_id: what a tool's result answers, by an id that an assistant's call had before;
    images: the number of each among the conversation's, and before which character of the content it stands.
    """

    role: Role
    content: str = ""
    name: str | None = None
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    images: tuple[tuple[int, int], ...] = ()


def typed(turns: Iterable[Turn], tools: Iterable[Tool]) -> Iterator[str]:
    """All texts of a conversation and its tools, whoever wrote them."""
    for turn in turns:
        yield from (turn.content, turn.reasoning, turn.name or "", turn.call_id)
        for call in turn.calls:
            yield from (call.id, call.name, call.arguments)
    for tool in tools:
        yield json.dumps(tool.described, ensure_ascii=False)


def marked(turns: Iterable[Turn], marks: Sequence[str]) -> list[Turn]:
    """The same with a mark for each image in the contents. marks: of all images, in order; texts that nobody typed."""
    return [replace(turn, content=_marked(turn, marks), images=()) if turn.images else turn for turn in turns]


def _marked(turn: Turn, marks: Sequence[str]) -> str:
    parts, start = [], 0
    for number, at in turn.images:
        parts += [turn.content[start:at], marks[number]]
        start = at
    return "".join((*parts, turn.content[start:]))


def native(turns: Sequence[Turn], traits: Traits) -> list[Message]:
    """Messages for a template that knows calls."""
    named = _named(turns)
    return [_native(turn, traits) for turn in (named if traits.several else _one_by_one(list(named)))]


def plain(turns: Sequence[Turn], tools: Sequence[Tool], traits: Traits) -> list[Message]:
    """Messages for a template that knows none: tools are described, calls written and results reported in plain words."""
    told = [_told(turn) for turn in _named(turns)]
    if any(turn.calls for turn in turns):
        told = [_joined(list(group)) for _, group in groupby(told, lambda turn: turn.role)]
    if tools:
        told = _instructed(told, instructions(tools), traits)
    return [_native(turn, traits) for turn in told]


def instructions(tools: Iterable[Tool]) -> str:
    """What a model is told that was never taught how to call."""
    described = "\n".join(json.dumps(tool.described["function"], ensure_ascii=False) for tool in tools)
    return (
        f"You can call these functions:\n\n{described}\n\n"
        "To call one, answer with a JSON object and nothing else; to call several, with one on each line:\n"
        '{"name": "the function\'s name", "arguments": {"the argument\'s name": "its value"}}\n'
        "You are then told the results. Call functions only if you need them, and answer in plain words otherwise."
    )


def nesting(value: Any) -> int:
    """How many objects and arrays stand within one another."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _named(turns: Iterable[Turn]) -> Iterator[Turn]:
    """The same, with each result under the name of what was called."""
    names: dict[str, str] = {}
    for turn in turns:
        names.update((call.id, call.name) for call in turn.calls)
        yield replace(turn, name=names.get(turn.call_id, turn.name)) if turn.role == "tool" else turn


def _native(turn: Turn, traits: Traits) -> Message:
    content: Any = [{"type": Fixed("text"), "text": turn.content}] if traits.parts else turn.content
    message: dict[str, Any] = {"role": turn.role, "content": content}
    if turn.name is not None:
        message["name"] = turn.name
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
        if not (turn.content and turn.calls):  # templates of gpt-oss refuse all three
            message["thinking"] = turn.reasoning
    if turn.calls:
        message["tool_calls"] = [_call(call, traits) for call in turn.calls]
        if traits.no_content and not turn.content:
            message["content"] = None
    if turn.role == "tool":
        message["tool_call_id"] = _id(turn.call_id, traits)
    return message


def _call(call: Call, traits: Traits) -> Message:
    arguments: Any = call.arguments
    if not traits.text_arguments:
        try:
            read = json.loads(call.arguments)
        except (ValueError, RecursionError):
            read = None  # what was cut off, say
        if isinstance(read, dict) and nesting(read) <= MOST_NESTED:
            arguments = read
    function = {"name": call.name, "arguments": arguments}
    return {"id": _id(call.id, traits), "type": Fixed("function"), "function": function}


def _id(given: str, traits: Traits) -> Fixed:
    """An id that says nothing else, and is of the form that the template wants."""
    form = _SHORT_ID if traits.short_ids else _PLAIN_ID
    if form.fullmatch(given):
        return Fixed(given)
    return Fixed(hashlib.sha256(given.encode()).hexdigest()[: 9 if traits.short_ids else 24])


def _one_by_one(turns: Sequence[Turn]) -> Iterator[Turn]:
    """The same with each call in a message of its own, before its result."""
    at = 0
    while at < len(turns):
        turn = turns[at]
        at += 1
        if len(turn.calls) < 2:
            yield turn
            continue
        results: dict[str, Turn] = {}
        while at < len(turns) and turns[at].role == "tool":
            results[turns[at].call_id] = turns[at]
            at += 1
        for number, call in enumerate(turn.calls):
            yield replace(turn, calls=(call,)) if number == 0 else Turn("assistant", calls=(call,))
            if call.id in results:
                yield results[call.id]


def _told(turn: Turn) -> Turn:
    """A turn in plain words."""
    if turn.role == "tool":
        return Turn("user", f"The result of {turn.name}:\n{turn.content}")
    written = [f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}' for call in turn.calls]
    return replace(turn, content="\n".join([*([turn.content] if turn.content else []), *written]), calls=())


def _joined(turns: list[Turn]) -> Turn:
    """What the same side says in a row, which many templates refuse: results, and the user after them."""
    first = turns[0]
    return first if len(turns) == 1 else replace(first, content="\n\n".join(turn.content for turn in turns))


def _instructed(turns: list[Turn], words: str, traits: Traits) -> list[Turn]:
    """With the instructions in the system message or, where the template has no place for one, before the user's first."""
    role: Role = "system" if traits.system else "user"
    for number, turn in enumerate(turns):
        if turn.role == role:
            return [*turns[:number], replace(turn, content=f"{turn.content}\n\n{words}".strip()), *turns[number + 1 :]]
    return [Turn(role, words), *turns]
