"""For models that nobody taught to call tools: they are asked in plain words to write objects, and nothing else.

{"name": "weather", "arguments": {"city": "Paris"}}
{"name": "weather", "arguments": {"city": "Rome"}}
"""

from inferno_runtime.chat.dialects.bare import Bare, read_objects
from inferno_runtime.chat.dialects.base import Answer
from inferno_runtime.chat.reader import Waiting


class Generic(Bare):
    """Bare objects, perhaps in a fence of Markdown or an array."""

    markers = ()
    described = False

    @classmethod
    def fits(cls, template: str) -> bool:
        return True

    def read(self, answer: Answer) -> Waiting[None]:
        yield from read_objects(answer)
