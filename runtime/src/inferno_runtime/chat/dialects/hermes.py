"""Hermes, Qwen 2.5 and Qwen 3, and many that were trained like them.

<tool_call>
{"name": "weather", "arguments": {"city": "Paris"}}
</tool_call>
"""

import re
from collections.abc import Sequence

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import calls
from inferno_runtime.chat.grammar import Grammar, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool

# Others have the same tags around something else; a template may write it within a string of its own.
_KEY = re.compile(r'\\?"name\\?"')
_OPENING, _CLOSING = "<tool_call>", "</tool_call>"


class Hermes(Dialect):
    """Objects between tags."""

    markers = (_OPENING, _CLOSING)

    @classmethod
    def fits(cls, template: str) -> bool:
        return _OPENING in template and _KEY.search(template) is not None

    def read(self, answer: Answer) -> Waiting[None]:
        while opened := (yield from answer.text_until(_OPENING)):
            if (yield from calls(answer, opened)):
                yield from answer.reader.accept(_CLOSING)

    def call(self, tool: Tool, arguments: str, grammar: Grammar) -> Sequence[str]:
        head = literal(f'\n{{"name": "{tool.name}", "arguments": ')
        return grammar.mark(_OPENING), head, arguments, literal("}\n"), grammar.mark(_CLOSING)
