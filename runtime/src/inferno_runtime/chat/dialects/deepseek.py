"""DeepSeek's models; the older ones say that it is a function, and put its arguments in a fence.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

import re
from collections.abc import Sequence

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import arguments
from inferno_runtime.chat.grammar import Grammar, either, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool, Toolbox

_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _SEPARATOR, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_FENCE, _FENCE_END = "```json", "```"
_NAME = re.compile(r"[\w.:/-]*")


class DeepSeek(Dialect):
    """Marks of its own for everything."""

    markers = (_CALLS, _CALL, _SEPARATOR, _CALL_END, _CALLS_END)
    before = (_CALLS,)
    between = ()
    behind = (_CALLS_END,)

    def __init__(self, template: str) -> None:
        super().__init__(template)
        self._fenced = _FENCE in template

    @classmethod
    def fits(cls, template: str) -> bool:
        return _CALLS in template

    def read(self, answer: Answer) -> Waiting[None]:
        reader = answer.reader
        while opened := (yield from answer.text_until(_CALLS, _CALL)):
            reader.keep(opened)
            if opened == _CALLS:
                yield from reader.spaces()
                yield from reader.accept(_CALL)
            while (yield from answer.attempt(self._read_call(answer))):
                reader.keep()
                yield from reader.spaces()
                if not (yield from reader.accept(_CALL)):
                    yield from reader.accept(_CALLS_END)
                    break

    def _read_call(self, answer: Answer) -> Waiting[bool]:
        reader = answer.reader
        name = yield from reader.run(_NAME)
        if not (yield from reader.accept(_SEPARATOR)):
            return False
        yield from reader.spaces()
        if (yield from reader.next()) not in ("{", "`"):
            name = yield from reader.run(_NAME)
            yield from reader.spaces()
        fenced = yield from reader.accept(_FENCE)
        yield from reader.spaces()
        if not (yield from arguments(answer, name)):
            return False
        yield from reader.spaces()
        if fenced:
            yield from reader.accept(_FENCE_END)
            yield from reader.spaces()
        yield from reader.accept(_CALL_END)
        return True

    def call(self, tool: Tool, arguments: str, grammar: Grammar) -> Sequence[str]:
        head, tail = [literal(tool.name), grammar.mark(_SEPARATOR)], []
        if self._fenced:
            head = [literal("function"), grammar.mark(_SEPARATOR), literal(f"{tool.name}\n{_FENCE}\n")]
            tail = [literal(f"\n{_FENCE_END}")]
        return grammar.mark(_CALL), *head, arguments, *tail, grammar.mark(_CALL_END)

    def openings(self, grammar: Grammar, toolbox: Toolbox) -> list[tuple[str, str]]:
        # A model that leaves out the first mark is understood, too.
        calls = self._calls(grammar, toolbox)
        lone = either(" ".join(rest) for _, *rest in calls)
        return [*super().openings(grammar, toolbox), (grammar.mark(_CALL), lone)]
