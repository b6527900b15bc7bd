"""gpt-oss: an answer is several messages, each on a channel, and those to a tool are its calls.

<|channel|>analysis<|message|>They ask for the weather.<|end|>
<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>
"""

import re
from collections.abc import Sequence

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import arguments
from inferno_runtime.chat.grammar import Grammar, either, literal
from inferno_runtime.chat.reader import Waiting
from inferno_runtime.chat.tools import Tool, Toolbox

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_END, _CALL, _RETURN = "<|end|>", "<|call|>", "<|return|>"
_ENDS = (_END, _CALL, _RETURN, _START)
_ON_CHANNEL = re.compile(re.escape(_CHANNEL) + r"\s*(\w*)")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.:/-]+)")
_BETWEEN = "\n\n"  # two messages for the user


class Harmony(Dialect):
    """Messages on channels."""

    markers = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, *_ENDS)
    speaks = True
    several = False  # the mark behind a call ends the answer

    @classmethod
    def fits(cls, template: str) -> bool:
        return _CHANNEL in template and _MESSAGE in template

    def read(self, answer: Answer) -> Waiting[None]:
        reader = answer.reader
        while True:
            head: list[str] = []
            if not (yield from reader.until((_MESSAGE,), head.append)):
                if not reader.cut:
                    answer.speech.text("".join(head))
                return
            if not (yield from self._message(answer, "".join(head))):
                return

    def _message(self, answer: Answer, head: str) -> Waiting[str]:
        """Read a message; gives the mark behind it, or nothing at the end."""
        reader, speech = answer.reader, answer.speech
        channel = _ON_CHANNEL.search(head)
        if recipient := _RECIPIENT.search(head):
            reader.keep(head + _MESSAGE)
            yield from reader.spaces()
            called = yield from answer.attempt(arguments(answer, recipient[1]))
            return (yield from reader.until(_ENDS, _ignore if called else speech.text))
        if channel and channel[1] == "analysis":
            return (yield from answer.think_until(*_ENDS))
        if speech.said:
            speech.text(_BETWEEN)
        return (yield from reader.until(_ENDS, speech.text))

    def calls(self, grammar: Grammar, toolbox: Toolbox) -> str:
        return self._thought(super().calls(grammar, toolbox), grammar)

    def formed(self, form: str, grammar: Grammar) -> str:
        return self._thought(self._final(form, grammar), grammar)

    def calls_or(self, form: str, grammar: Grammar, toolbox: Toolbox) -> str:
        calls = super().calls(grammar, toolbox)
        return self._thought(either((calls, self._final(form, grammar))), grammar)

    def _final(self, form: str, grammar: Grammar) -> str:
        return " ".join(
            (grammar.mark(_CHANNEL), literal("final"), grammar.mark(_MESSAGE), super().formed(form, grammar))
        )

    def _thought(self, then: str, grammar: Grammar) -> str:
        """What may come after a message of the model's to itself."""
        thoughts = grammar.up_to(grammar.mark(_END), "thoughts")
        reasoning = (
            grammar.mark(_CHANNEL),
            literal("analysis"),
            grammar.mark(_MESSAGE),
            thoughts,
            grammar.mark(_START),
            literal("assistant"),
        )
        return grammar.rule("messages", f"({' '.join(reasoning)})? ({then})")

    def freely(self, grammar: Grammar, toolbox: Toolbox, unless: str = "") -> str:
        head = " ".join(
            (grammar.mark(_CHANNEL), grammar.rule("CHANNEL", "/analysis|commentary|final/"), grammar.mark(_MESSAGE))
        )
        before = f"{head} {grammar.up_to(grammar.mark(_END), 'message')} {grammar.mark(_START)} {literal('assistant')}"
        last = either((super().calls(grammar, toolbox), f"{head} {grammar.words()}"))
        return grammar.rule("messages", f"({before})* ({last})")

    def call(self, tool: Tool, arguments: str, grammar: Grammar) -> Sequence[str]:
        head = (
            grammar.mark(_CHANNEL),
            literal(f"commentary to=functions.{tool.name} "),
            grammar.mark(_CONSTRAIN),
            literal("json"),
        )
        return *head, grammar.mark(_MESSAGE), arguments


def _ignore(text: str) -> None:
    pass
