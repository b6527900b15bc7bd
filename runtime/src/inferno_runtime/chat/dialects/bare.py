"""What dialects have in common whose calls are objects without a mark before them: an object that names a tool is a call."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import calls
from inferno_runtime.chat.grammar import Grammar, either, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool, Toolbox
from inferno_runtime.engine.constraint import json_term

_OBJECT = '{"name"'
_FENCE = "```"
_FENCES = ("```json", "```tool_call", "```")


class Bare(Dialect):
    """Bare objects: a name, and the arguments under a key."""

    arguments_key: ClassVar[str] = "arguments"

    def call(self, tool: Tool, arguments: str, grammar: Grammar) -> Sequence[str]:
        return literal(f'{{"name": "{tool.name}"'), self._key(), arguments, literal("}")

    def openings(self, grammar: Grammar, toolbox: Toolbox) -> list[tuple[str, str]]:
        calls = self._calls(grammar, toolbox)
        return [
            # In whatever style the model has begun the object, and whatever it has said before the name.
            (f'/"name"\\s*:\\s*"{re.escape(tool.name)}"/', " ".join(rest))
            for tool, (_, *rest) in zip(toolbox.callable, calls, strict=True)
        ]

    def calls_or(self, form: str, grammar: Grammar, toolbox: Toolbox) -> str:
        # One call at most, and as JSON of any style: other marks than the form's would decide between the two too soon.
        calls = [
            grammar.rule(f"call_{number}", json_term(self._as_schema(toolbox, tool)))
            for number, tool in enumerate(toolbox.callable)
        ]
        return grammar.rule("answer", either((*calls, self.formed(form, grammar))))

    def _as_schema(self, toolbox: Toolbox, tool: Tool) -> dict[str, Any]:
        arguments = _moved(toolbox.schema(tool), f"#/properties/{self.arguments_key}")
        return {
            "type": "object",
            "properties": {"name": {"const": tool.name}, self.arguments_key: arguments},
            "required": ["name", self.arguments_key],
            "additionalProperties": False,
        }

    def _key(self) -> str:
        return literal(f', "{self.arguments_key}": ')


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references are right where it is a part of another, at this place."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference.removeprefix("#")
    return moved


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
