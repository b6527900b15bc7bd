"""Mistral's models, in the two ways in which they were taught.

[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]
[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "Paris"}
"""

import re
from collections.abc import Sequence

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import arguments, calls
from inferno_runtime.chat.grammar import Grammar, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool

_CALLS, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_NAME = re.compile(r"[\w.:/-]*")


class Mistral(Dialect):
    """An array of objects; in newer models names and objects, each call behind a mark of its own."""

    markers = (_CALLS, _ID, _ARGUMENTS)

    def __init__(self, template: str) -> None:
        super().__init__(template)
        self._named = _ARGUMENTS in template
        self._numbered = _ID in template
        self.before = () if self._named else (_CALLS, "[")
        self.between = () if self._named else (", ",)
        self.behind = () if self._named else ("]",)

    @classmethod
    def fits(cls, template: str) -> bool:
        return _CALLS in template

    def read(self, answer: Answer) -> Waiting[None]:
        reader = answer.reader
        while opened := (yield from answer.text_until(_CALLS)):
            reader.keep(opened)
            yield from reader.spaces()
            if (yield from reader.next()) in ("[", "{"):
                yield from calls(answer, reader.kept)
            else:
                yield from answer.attempt(self._named_call(answer))

    def _named_call(self, answer: Answer) -> Waiting[bool]:
        reader = answer.reader
        name = yield from reader.run(_NAME)
        if (yield from reader.accept(_ID)):
            yield from reader.run(_NAME)
        yield from reader.accept(_ARGUMENTS)
        yield from reader.spaces()
        return (yield from arguments(answer, name))

    def call(self, tool: Tool, arguments: str, grammar: Grammar) -> Sequence[str]:
        if not self._named:
            return literal(f'{{"name": "{tool.name}", "arguments": '), arguments, literal("}")
        number = (grammar.mark(_ID), "/[a-zA-Z0-9]{9}/") if self._numbered else ()
        return grammar.mark(_CALLS), literal(tool.name), *number, grammar.mark(_ARGUMENTS), arguments
