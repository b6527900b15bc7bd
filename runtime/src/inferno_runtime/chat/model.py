"""How one model chats: the conversation as a prompt, and its answer as what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from inferno_runtime.backends.base import Tokenizer
from inferno_runtime.chat import conversation
from inferno_runtime.chat.conversation import Turn
from inferno_runtime.chat.dialects import Generic, choose
from inferno_runtime.chat.dialects.base import Thinking
from inferno_runtime.chat.grammar import Grammar, literal
from inferno_runtime.chat.parser import Parser
from inferno_runtime.chat.template import ChatTemplate, Options, Piece, unused_characters
from inferno_runtime.chat.tools import Toolbox
from inferno_runtime.chat.traits import probe
from inferno_runtime.engine.constraint import Constraint

_THINKING = (Thinking("<think>", "</think>"), Thinking("[THINK]", "[/THINK]"))
_TAIL = 64  # characters of a prompt that tell whether the answer begins within the reasoning


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as texts to be tokenized one after another. thinks: it ends within the reasoning."""

    pieces: list[Piece]
    thinks: bool

    @property
    def characters(self) -> int:
        """How many there are in all."""
        return sum(len(piece.text) for piece in self.pieces)


class ChatModel:
    """What a model's template tells of it. Safe to use from several threads.

    pieces: the text of each token of an answer that is parsed, where the marks of the dialect are text, too.
    """

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._traits = probe(template)
        self._dialect = choose(template.source, knows_tools=self._traits.calls)
        self._native = not isinstance(self._dialect, Generic)
        self._thinking = next((kind for kind in _THINKING if kind.closing in template.source), None)
        thinking = (self._thinking.opening, self._thinking.closing) if self._thinking else ()
        self._marks = _control_tokens((*self._dialect.markers, *thinking), tokenizer)
        self.pieces: Sequence[bytes] = tokenizer.pieces
        if self._marks:
            shown = {token: mark.encode() for mark, token in self._marks.items()}
            self.pieces = [shown.get(token, piece) for token, piece in enumerate(tokenizer.pieces)]

    @property
    def source(self) -> str:
        """The template itself."""
        return self._template.source

    def prompt(self, turns: Sequence[Turn], toolbox: Toolbox, options: Options = MappingProxyType({})) -> Prompt:
        """The prompt of a conversation. options: as of `ChatTemplate.pieces`. Raises `TemplateError`."""
        images = self._marks_of_images(turns, toolbox)
        turns = conversation.marked(turns, images)
        if self._native:
            tools = [tool.described for tool in toolbox.offered] or None
            pieces = self._template.pieces(conversation.native(turns, self._traits), tools, options, images)
        else:
            messages = conversation.plain(turns, toolbox.offered, self._traits)
            pieces = self._template.pieces(messages, options=options, images=images)
        thinks = self._thinking is not None and pieces[-1].text[-_TAIL:].rstrip().endswith(self._thinking.opening)
        return Prompt(pieces, thinks)

    def _marks_of_images(self, turns: Sequence[Turn], toolbox: Toolbox) -> list[str]:
        """A character for each image of a conversation, which nobody has typed."""
        count = sum(len(turn.images) for turn in turns)
        if not count:
            return []
        return unused_characters(count, [self._template.source, *conversation.typed(turns, toolbox.offered)])

    def parses(self, toolbox: Toolbox) -> bool:
        """Whether an answer can be more than text."""
        return bool(toolbox.callable or self._thinking or self._dialect.speaks)

    def parser(self, prompt: Prompt, toolbox: Toolbox) -> Parser:
        """A parser for an answer."""
        return Parser(self._dialect, toolbox, self._thinking, thinks=prompt.thinks)

    def constraint(self, prompt: Prompt, toolbox: Toolbox, form: str | None = None) -> Constraint | None:
        """What an answer is held to; None where it may be anything.

        form: the term for the form that words must have, None where they need none.
        """
        grammar = Grammar(self._marks)
        if toolbox.forced:
            said = self._dialect.calls(grammar, toolbox)
        elif form is not None and toolbox.callable:
            said = self._dialect.calls_or(form, grammar, toolbox)
        elif form is not None:
            said = self._dialect.formed(form, grammar)
        elif toolbox.strict:
            return self._freely(grammar, prompt, toolbox)
        else:
            return None
        grammar.rule("start", f"{self._reasoning(grammar, prompt)} {said}".strip())
        return Constraint(str(grammar))

    def _freely(self, grammar: Grammar, prompt: Prompt, toolbox: Toolbox) -> Constraint:
        """What holds calls to their schemas wherever the model makes one, but not where it thinks of it."""
        dialect, thinking, words = self._dialect, self._thinking, grammar.words()
        if thinking is None:
            start = dialect.freely(grammar, toolbox)
        elif prompt.thinks:
            thought = grammar.up_to(grammar.mark(thinking.closing), "thought")
            start = f"{thought} {dialect.freely(grammar, toolbox)} | {words}"
        elif thinking.opening in self._marks:
            opening = grammar.mark(thinking.opening)
            thought = grammar.up_to(grammar.mark(thinking.closing), "thought")
            start = f"({opening} {thought})? {dialect.freely(grammar, toolbox)} | {opening} {words}"
        else:
            opening = grammar.rule("OPENING", rf"/\s*/ {literal(thinking.opening)}")
            thought = grammar.rule("thought[lazy]", f"{opening} {words} {literal(thinking.closing)}")
            start = f"{thought}? {dialect.freely(grammar, toolbox, opening)}"
        grammar.rule("start", start)
        return Constraint(str(grammar))

    def _reasoning(self, grammar: Grammar, prompt: Prompt) -> str:
        """The grammar of what may, or must, come before an answer that is held to a form."""
        if self._thinking is None:
            return ""
        thought = grammar.up_to(grammar.mark(self._thinking.closing), "thought")
        behind = grammar.rule("BLANK", r"/\s{0,2}/")
        if prompt.thinks:
            return f"{thought} {behind}"
        return f"({grammar.mark(self._thinking.opening)} {thought} {behind})?"


def _control_tokens(marks: Sequence[str], tokenizer: Tokenizer) -> dict[str, int]:
    """Those of the marks that are tokens without a text."""
    tokens = {spelling: token for token, spelling in tokenizer.controls.items() if not tokenizer.pieces[token]}
    return {mark: tokens[mark] for mark in marks if mark in tokens}
