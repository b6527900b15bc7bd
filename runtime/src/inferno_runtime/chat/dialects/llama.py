"""Llama 3.1 to 3.3: the answer is the call, perhaps behind a mark.

<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}
"""

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.generic import read_objects
from inferno_runtime.chat.grammar import Spell, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool

_TAG = "<|python_tag|>"


class Llama(Dialect):
    """Bare objects."""

    markers = (_TAG,)
    several = False  # Meta's templates refuse them

    @classmethod
    def fits(cls, template: str) -> bool:
        return _TAG in template or ("<|start_header_id|>" in template and '"parameters"' in template)

    def read(self, answer: Answer) -> Waiting[None]:
        yield from read_objects(answer, _TAG)

    def call(self, tool: Tool, arguments: str, spell: Spell) -> str:
        return " ".join((literal(f'{{"name": "{tool.name}", "parameters": '), arguments, literal("}")))
