"""What all dialects have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from inferno_runtime.chat.grammar import MOST_CALLS, Grammar, either, repeated, schema
from inferno_runtime.chat.reader import Reader, Waiting
from inferno_runtime.chat.speech import Speech
from inferno_runtime.chat.tools import Tool, Toolbox


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a model puts around its reasoning."""

    opening: str
    closing: str


class Answer:
    """An answer while it is read: where its text comes from, and where what it says goes."""

    def __init__(self, reader: Reader, speech: Speech, toolbox: Toolbox, thinking: Thinking | None) -> None:
        self.reader = reader
        self.speech = speech
        self.toolbox = toolbox
        self._thinking = thinking

    def text_until(self, *markers: str) -> Waiting[str]:
        """Say the text before the first of the markers, and read it; gives the marker, or nothing at the end."""
        if not self.speech.said and self._thinking is not None:
            yield from self._think(self._thinking)
        return (yield from self.reader.until(markers, self.speech.text))

    def skip_to_words(self) -> Waiting[None]:
        """Read what may come before the first word: reasoning, and white space."""
        if self._thinking is not None:
            yield from self._think(self._thinking)
        self.reader.keep()
        yield from self.reader.spaces()
        self.speech.text(self.reader.kept)

    def _think(self, thinking: Thinking) -> Waiting[None]:
        self.reader.keep()
        yield from self.reader.spaces()
        if (yield from self.reader.accept(thinking.opening)):
            yield from self.think_until(thinking.closing)
        else:
            self.speech.text(self.reader.kept)

    def think_until(self, *closing: str) -> Waiting[str]:
        """Say the reasoning before the first of these markers, and read it; gives the marker, or nothing at the end."""
        found = yield from self.reader.until(closing, self.speech.reasoning)
        self.speech.reasoned()
        return found

    def attempt(self, call: Waiting[bool]) -> Waiting[bool]:
        """Read a call, which is text if it turns out to be none: all that the reader has kept. Gives whether it was one."""
        begun = self.speech.calls
        if (yield from call):
            return True
        if self.speech.calls > begun:
            if self.speech.end():  # what is missing is only markup
                return True
            if not self.reader.cut:
                self.speech.broken(self.reader.kept)
        elif not self.reader.cut:
            self.speech.text(self.reader.kept)
        return False


class Dialect(ABC):
    """One way to write calls."""

    markers: ClassVar[Sequence[str]]
    """All that the parser looks for. Where they are control tokens, which are no text otherwise, it must see them."""
    described: ClassVar[bool] = True
    """Whether models of this dialect come with templates that describe the tools."""
    speaks: ClassVar[bool] = False
    """Whether also an answer without calls needs to be read in it."""
    several: ClassVar[bool] = True
    """Whether an answer can have several calls."""

    def __init__(self, template: str) -> None:
        """template: the model's, which tells of variants."""
        self._template = template

    @classmethod
    @abstractmethod
    def fits(cls, template: str) -> bool:
        """Whether a template writes calls in this way."""

    @abstractmethod
    def read(self, answer: Answer) -> Waiting[None]:
        """Read a whole answer."""

    @abstractmethod
    def call(self, tool: Tool, arguments: str, grammar: Grammar) -> Sequence[str]:
        """The grammar of a call, in terms, of which the first is the mark that it begins with.

        arguments: the name of the rule for them.
        """

    before: Sequence[str] = ()
    """What stands before the first call, in markers and literals; and so on."""
    between: Sequence[str] = ("\n",)
    behind: Sequence[str] = ()

    # Grammars. Each adds its rules and gives what stands for them.

    def calls(self, grammar: Grammar, toolbox: Toolbox) -> str:
        """An answer that is calls and nothing else."""
        return grammar.rule("calls", " ".join(self._series(grammar, toolbox)))

    def formed(self, form: str, grammar: Grammar) -> str:
        """An answer in words of a form, which is a term."""
        return grammar.rule("form", form)

    def calls_or(self, form: str, grammar: Grammar, toolbox: Toolbox) -> str:
        """One or the other."""
        answers = (self.calls(grammar, toolbox), self.formed(form, grammar))
        return grammar.rule("answer", either(answers))

    def freely(self, grammar: Grammar, toolbox: Toolbox, unless: str = "") -> str:
        """An answer of words and calls, as the model likes, in which what begins like a call is one.

        unless: a terminal; an answer that begins with it is searched for none.
        """
        openings = self.openings(grammar, toolbox)
        rests = [grammar.rule(f"rest_{number}", rest) for number, (_, rest) in enumerate(openings)]

        def opened(name: str, unless: str = "") -> str:
            heads = [grammar.up_to(mark, f"{name}_{number}", unless) for number, (mark, _) in enumerate(openings)]
            return grammar.rule(name, either(f"{head} {rest}" for head, rest in zip(heads, rests, strict=True)))

        first, words = opened("first", unless), grammar.words()
        if self._most(toolbox) == 1:
            return grammar.rule("answer", f"{first} | {words}")
        return grammar.rule("answer", f"({first} {opened('later')}*)? {words}")

    def openings(self, grammar: Grammar, toolbox: Toolbox) -> list[tuple[str, str]]:
        """The marks by which calls among words are known, each with what must follow it."""
        if self.before:
            mark, *rest = self._series(grammar, toolbox)
            return [(mark, " ".join(rest))]
        calls = list(self._calls(grammar, toolbox))
        return [(calls[0][0], either(" ".join(rest) for _, *rest in calls))]

    def _series(self, grammar: Grammar, toolbox: Toolbox) -> Sequence[str]:
        """One call or, where there may be several, a row of them, in terms."""
        calls = self._calls(grammar, toolbox)
        names = [grammar.rule(f"call_{number}", " ".join(call)) for number, call in enumerate(calls)]
        row = repeated(
            grammar.rule("call", either(names)), " ".join(map(grammar.mark, self.between)), self._most(toolbox)
        )
        return *map(grammar.mark, self.before), row, *map(grammar.mark, self.behind)

    def _calls(self, grammar: Grammar, toolbox: Toolbox) -> Iterator[Sequence[str]]:
        for number, tool in enumerate(toolbox.callable):
            arguments = grammar.rule(f"arguments_{number}", schema(toolbox.schema(tool)))
            yield self.call(tool, arguments, grammar)

    def _most(self, toolbox: Toolbox) -> int:
        return MOST_CALLS if toolbox.parallel and self.several else 1
