"""For models that nobody taught to call tools: they are asked in plain words to write objects, and nothing else.

{"name": "weather", "arguments": {"city": "Paris"}}
{"name": "weather", "arguments": {"city": "Rome"}}
"""

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import calls
from inferno_runtime.chat.grammar import Spell, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool

_OBJECT = '{"name"'
_FENCE = "```"
_FENCES = ("```json", "```tool_call", "```")


class Generic(Dialect):
    """Bare objects, perhaps in a fence of Markdown or an array."""

    markers = ()
    described = False

    @classmethod
    def fits(cls, template: str) -> bool:
        return True

    def read(self, answer: Answer) -> Waiting[None]:
        yield from read_objects(answer)

    def call(self, tool: Tool, arguments: str, spell: Spell) -> str:
        return " ".join((literal(f'{{"name": "{tool.name}", "arguments": '), arguments, literal("}")))


def read_objects(answer: Answer, *tags: str) -> Waiting[None]:
    """Read an answer that may begin with an object, or have one later that begins like a call.

    tags: what may stand before it, and announces one wherever it stands.
    """
    reader = answer.reader
    yield from answer.skip_to_words()
    if (yield from reader.next()) in ("{", "["):
        yield from calls(answer, "")
    while opened := (yield from answer.text_until(_OBJECT, *_FENCES[:2], *tags)):
        if opened == _OBJECT:
            reader.untake(opened)
            opened = ""
        if (yield from calls(answer, opened)) and opened in _FENCES:
            yield from reader.accept(_FENCE)
