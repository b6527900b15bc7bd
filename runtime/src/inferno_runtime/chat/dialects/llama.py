"""Llama 3.1 to 3.3: the answer is the call, perhaps behind a mark.

<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}
"""

from inferno_runtime.chat.dialects.bare import Bare, read_objects
from inferno_runtime.chat.dialects.base import Answer
from inferno_runtime.chat.grammar import Grammar, either
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Toolbox

_TAG = "<|python_tag|>"


class Llama(Bare):
    """Bare objects."""

    markers = (_TAG,)
    several = False  # Meta's templates refuse them
    arguments_key = "parameters"

    @classmethod
    def fits(cls, template: str) -> bool:
        return _TAG in template or ("<|start_header_id|>" in template and '"parameters"' in template)

    def read(self, answer: Answer) -> Waiting[None]:
        yield from read_objects(answer, _TAG)

    def openings(self, grammar: Grammar, toolbox: Toolbox) -> list[tuple[str, str]]:
        calls = either(" ".join(call) for call in self._calls(grammar, toolbox))
        return [*super().openings(grammar, toolbox), (grammar.mark(_TAG), calls)]
