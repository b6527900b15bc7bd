"""gpt-oss: an answer is several messages, each on a channel, and those to a tool are its calls.

<|channel|>analysis<|message|>They ask for the weather.<|end|>
<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>
"""

import re
from collections.abc import Sequence

from inferno_runtime.chat.dialects.base import Answer, Dialect
from inferno_runtime.chat.dialects.calls import arguments
from inferno_runtime.chat.grammar import Grammar, Spell, either, literal
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

    def calls(self, grammar: Grammar, toolbox: Toolbox, spell: Spell) -> str:
        return self._thought(super().calls(grammar, toolbox, spell), grammar, spell)

    def formed(self, form: str, grammar: Grammar, spell: Spell) -> str:
        return self._thought(self._final(form, grammar, spell), grammar, spell)

    def calls_or(self, form: str, grammar: Grammar, toolbox: Toolbox, spell: Spell) -> str:
        calls = super().calls(grammar, toolbox, spell)
        return self._thought(either((calls, self._final(form, grammar, spell))), grammar, spell)

    def _final(self, form: str, grammar: Grammar, spell: Spell) -> str:
        return " ".join((spell(_CHANNEL), literal("final"), spell(_MESSAGE), super().formed(form, grammar, spell)))

    def _thought(self, then: str, grammar: Grammar, spell: Spell) -> str:
        """What may come after a message of the model's to itself."""
        thoughts = grammar.up_to(spell(_END), "thoughts")
        reasoning = (
            spell(_CHANNEL),
            literal("analysis"),
            spell(_MESSAGE),
            thoughts,
            spell(_START),
            literal("assistant"),
        )
        return grammar.rule("messages", f"({' '.join(reasoning)})? ({then})")

    def freely(self, grammar: Grammar, toolbox: Toolbox, spell: Spell, unless: str = "") -> str:
        head = " ".join((spell(_CHANNEL), grammar.rule("CHANNEL", "/analysis|commentary|final/"), spell(_MESSAGE)))
        before = f"{head} {grammar.up_to(spell(_END), 'message')} {spell(_START)} {literal('assistant')}"
        last = either((super().calls(grammar, toolbox, spell), f"{head} {grammar.words()}"))
        return grammar.rule("messages", f"({before})* ({last})")

    def call(self, tool: Tool, arguments: str, spell: Spell) -> Sequence[str]:
        head = (spell(_CHANNEL), literal(f"commentary to=functions.{tool.name} "), spell(_CONSTRAIN), literal("json"))
        return *head, spell(_MESSAGE), arguments


def _ignore(text: str) -> None:
    pass
