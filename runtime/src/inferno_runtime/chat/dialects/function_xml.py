"""Functionary, and Qwen3-Coder, which writes each argument between tags of its own.

<function=weather>{"city": "Paris"}</function>

<tool_call>
<function=weather>
<parameter=city>
Paris
</parameter>
</function>
</tool_call>
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import arguments, calls
from inferno_runtime.chat.grammar import Grammar, either, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool, Toolbox

_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_OPENING, _CLOSING = "<tool_call>", "</tool_call>"
_NAME = re.compile(r"[\w.:/-]*")
_KEY = re.compile(r"[^>]*")
_AS_JSON = {"True": "true", "False": "false", "None": "null"}  # which models take from Python


class FunctionXml(Dialect):
    """Tags that name the function."""

    markers = (_OPENING, _CLOSING)

    def __init__(self, template: str) -> None:
        super().__init__(template)
        self._wrapped = _PARAMETER in template

    @classmethod
    def fits(cls, template: str) -> bool:
        return _FUNCTION in template

    def read(self, answer: Answer) -> Waiting[None]:
        reader = answer.reader
        while opened := (yield from answer.text_until(_FUNCTION, _OPENING)):
            reader.keep(opened)
            if opened == _FUNCTION:
                yield from self._functions(answer)
                continue
            yield from reader.spaces()
            if (yield from reader.accept(_FUNCTION)):
                called = yield from self._functions(answer)
            else:  # where it fell back into what Hermes does
                called = yield from calls(answer, reader.kept)
            if called:
                yield from reader.accept(_CLOSING)

    def _functions(self, answer: Answer) -> Waiting[bool]:
        """Read calls, of which the first was opened. Gives whether all were calls."""
        reader = answer.reader
        while (yield from answer.attempt(self._function(answer))):
            reader.keep()
            yield from reader.spaces()
            if not (yield from reader.accept(_FUNCTION)):
                answer.speech.text(reader.kept)
                return True
        return False

    def _function(self, answer: Answer) -> Waiting[bool]:
        reader = answer.reader
        name = yield from reader.run(_NAME)
        tool = answer.toolbox.find(name)
        if tool is None or not (yield from reader.accept(">")):
            return False
        yield from reader.spaces()
        if (yield from reader.next()) != "{":
            return (yield from self._parameters(answer, tool))
        if not (yield from arguments(answer, name)):
            return False
        yield from reader.spaces()
        yield from reader.accept(_FUNCTION_END)
        return True

    def _parameters(self, answer: Answer, tool: Tool) -> Waiting[bool]:
        reader, speech = answer.reader, answer.speech
        opened = ""
        while (yield from reader.accept(_PARAMETER)):
            key = yield from reader.run(_KEY)
            if not (yield from reader.accept(">")):
                return False
            if not opened:
                speech.begin(tool.name)
            speech.arguments((", " if opened else "{") + json.dumps(key, ensure_ascii=False) + ": ")
            opened = "{"
            yield from reader.accept("\n")
            if not (yield from self._value(answer, _types(tool.schema, key))):
                return False
            yield from reader.spaces()
        if not (yield from reader.accept(_FUNCTION_END)):
            return False
        if not opened:
            speech.begin(tool.name)
        speech.arguments("}" if opened else "{}")
        return speech.end()

    def _value(self, answer: Answer, types: frozenset[str]) -> Waiting[bool]:
        reader, speech = answer.reader, answer.speech
        ends = ("\n" + _PARAMETER_END, _PARAMETER_END)
        if types == {"string"}:
            speech.arguments('"')
            if not (yield from reader.until(ends, lambda text: speech.arguments(_quoted(text)[1:-1]))):
                return False
            speech.arguments('"')
            return True
        parts: list[str] = []
        if not (yield from reader.until(ends, parts.append)):
            return False
        speech.arguments(_as_json("".join(parts), types))
        return True

    def call(self, tool: Tool, arguments: str, grammar: Grammar) -> Sequence[str]:
        call = self._plain_call(tool, arguments)
        if self._wrapped:
            return grammar.mark(_OPENING), literal("\n"), *call, literal("\n"), grammar.mark(_CLOSING)
        return call

    def openings(self, grammar: Grammar, toolbox: Toolbox) -> list[tuple[str, str]]:
        openings = super().openings(grammar, toolbox)
        if self._wrapped:  # a model that leaves out the first tag is understood, too
            calls = (self._plain_call(tool, f"arguments_{number}") for number, tool in enumerate(toolbox.callable))
            openings.append((literal(_FUNCTION), either(" ".join(rest) for _, *rest in calls)))
        return openings

    def _plain_call(self, tool: Tool, arguments: str) -> Sequence[str]:
        """The arguments as an object in any case: a grammar could hold those between tags to a part of a schema only."""
        return literal(_FUNCTION), literal(f"{tool.name}>"), arguments, literal(_FUNCTION_END)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _types(schema: Mapping[str, Any], key: str) -> frozenset[str]:
    """The JSON types that an argument may have; none where its schema does not say."""
    properties = schema.get("properties")
    found = properties.get(key) if isinstance(properties, dict) else None
    alternatives = [found, *_listed(found, "anyOf"), *_listed(found, "oneOf")]
    types: set[str] = set()
    for alternative in alternatives:
        stated = alternative.get("type") if isinstance(alternative, dict) else None
        types.update(item for item in (stated if isinstance(stated, list) else [stated]) if isinstance(item, str))
    return frozenset(types)


def _listed(schema: Any, key: str) -> list[Any]:
    listed = schema.get(key) if isinstance(schema, dict) else None
    return listed if isinstance(listed, list) else []


def _as_json(text: str, types: frozenset[str]) -> str:
    """An argument as JSON: as what it looks like, if it may be that, and as a string otherwise."""
    stripped = text.strip()
    looks = _AS_JSON.get(stripped, stripped)
    try:
        value = msgspec.json.decode(looks)
    except (msgspec.DecodeError, RecursionError):
        return _quoted(text)
    return looks if not types or types & _kinds(value) else _quoted(text)


def _kinds(value: Any) -> set[str]:
    match value:
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number", "integer"} if value.is_integer() else {"number"}
        case str():
            return {"string"}
        case None:
            return {"null"}
        case dict():
            return {"object"}
        case _:
            return {"array"}
