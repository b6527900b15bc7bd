"""Calls as JSON objects, as most dialects have them between their marks: `{"name": …, "arguments": {…}}`."""

import json
from collections.abc import Callable

from inferno_runtime.chat.dialects.base import Answer
from inferno_runtime.chat.json_text import value
from inferno_runtime.chat.reader import Reader, Waiting
from inferno_runtime.chat.speech import is_object

_NAME_KEYS = ("name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters")
_OTHER_KEYS = ("type", "id", "index", "tool_call_id")
_NOTHING = ("", "null", '""')


def calls(answer: Answer, opened: str) -> Waiting[bool]:
    """Read one call, several one behind the other, or an array of them. opened: the markup before it, which was read.

    What is no call is said as text. Gives whether all were calls.
    """
    reader = answer.reader
    reader.keep(opened)
    yield from reader.spaces()
    array = yield from reader.accept("[")
    if array:
        yield from reader.spaces()
    while True:
        if not (yield from answer.attempt(call(answer))):
            return False
        reader.keep()
        yield from reader.spaces()
        if array and (yield from reader.accept("]")):
            return True
        between = (yield from reader.accept(",")) or (yield from reader.accept(";"))
        yield from reader.spaces()
        if (yield from reader.next()) != "{":
            answer.speech.text(reader.kept if between else "")
            return True


def call(answer: Answer) -> Waiting[bool]:
    """Read one call. False where it is none, of which `Answer.attempt` takes care."""
    if not (yield from answer.reader.accept("{")):
        return False
    members = _Members(answer)
    return (yield from _object(answer.reader, members.read)) and members.close()


def arguments(answer: Answer, name: str) -> Waiting[bool]:
    """Read the arguments of a call whose name stood before them: a JSON object."""
    if answer.toolbox.find(name) is None or (yield from answer.reader.next()) != "{":
        return False
    answer.speech.begin(name)
    return (yield from value(answer.reader, answer.speech.arguments)) and answer.speech.end()


class _Members:
    """What is known of a call so far. Its members may come in any order."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        # A grammar knows a call by its name, has it under this key, and the arguments behind it.
        self._held = answer.toolbox.held
        self._name_keys = _NAME_KEYS[:1] if self._held else _NAME_KEYS
        self._name: str | None = None
        self._arguments: str | None = None  # where they came before the name, or not as an object
        self._begun = False

    def read(self, key: str) -> Waiting[bool]:
        """Read the value of a member. False where no call has such a one."""
        reader = self._answer.reader
        first = yield from reader.next()
        if key == "function" and first == "{":
            reader.take(1)
            return (yield from _object(reader, self.read))
        if key in self._name_keys and first == '"' and self._name is None:
            self._name = yield from _string(reader)
            return self._name is not None and self._answer.toolbox.find(self._name) is not None
        if key in _ARGUMENT_KEYS and not self._begun and self._arguments is None:
            if self._name is None and self._held:
                return False
            return (yield from self._read_arguments(first))
        return key in _OTHER_KEYS and (yield from value(reader, _ignore))

    def close(self) -> bool:
        """The object has ended."""
        speech = self._answer.speech
        if not self._begun:
            if self._held:
                return False
            text = self._arguments or ""
            if text.startswith('"') and text != '""':
                text = json.loads(text)  # an object within a string, as it stands in the API
            text = "{}" if text in _NOTHING else text
            if self._name is None or not is_object(text):
                return False
            speech.begin(self._name)
            speech.arguments(text)
        return speech.end()

    def _read_arguments(self, first: str) -> Waiting[bool]:
        answer = self._answer
        if self._name is not None and first == "{":
            self._begun = True
            answer.speech.begin(self._name)
            return (yield from value(answer.reader, answer.speech.arguments))
        parts: list[str] = []
        complete = yield from value(answer.reader, parts.append)
        self._arguments = "".join(parts)
        return complete


def _object(reader: Reader, member: Callable[[str], Waiting[bool]]) -> Waiting[bool]:
    """Read an object behind its brace. member: reads the value of a key, or says that it cannot."""
    yield from reader.spaces()
    if (yield from reader.accept("}")):
        return True
    while True:
        key = yield from _string(reader)
        yield from reader.spaces()
        if key is None or not (yield from reader.accept(":")):
            return False
        yield from reader.spaces()
        if not (yield from member(key)):
            return False
        yield from reader.spaces()
        if (yield from reader.accept("}")):
            return True
        if not (yield from reader.accept(",")):
            return False
        yield from reader.spaces()


def _string(reader: Reader) -> Waiting[str | None]:
    if (yield from reader.next()) != '"':
        return None
    parts: list[str] = []
    if not (yield from value(reader, parts.append)):
        return None
    try:
        return str(json.loads("".join(parts)))
    except ValueError:
        return None


def _ignore(text: str) -> None:
    pass
