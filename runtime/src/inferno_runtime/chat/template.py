"""A model's chat template, and the tokens of a conversation.

Templates come with models, so they are rendered in jinja's immutable sandbox, with the globals, filters and extensions
that Hugging Face gives them.

What a user typed stays text. A template's own control tokens are written as their spellings and read back as tokens,
so a message that contains such a spelling would forge one. `ChatTemplate.encode` breaks each such spelling with a mark
behind its first character, and cuts the rendered text at the marks: no piece that is tokenized then holds the whole
spelling. The mark follows the first character because whatever a template cuts away or trims, a remainder that still
held the whole spelling would hold the mark as well.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inferno_runtime.backends.base import Tokenizer

# Planes 15 and 16 of Unicode are for private use throughout: nobody writes them, and a byte-level vocabulary has no
# token for them.
_PRIVATE_USE = range(0xF0000, 0xF0000 + 0xFFFE)


class TemplateError(ValueError):
    """A template that cannot be compiled, or that refuses a conversation; the message is the template's own."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is tokenized by itself; the flags are those of `Tokenizer.encode`."""

    text: str
    add_special: bool
    parse_special: bool


class ChatTemplate:
    """A compiled chat template. Safe to use from several threads."""

    def __init__(self, source: str, *, bos: str, eos: str, control_spellings: Collection[str]) -> None:
        """Compile `source`.

        bos, eos: the spellings that the template may use as `bos_token` and `eos_token`; may be empty.
        control_spellings: what must never be read as a control token when it stands in a message.

        Raises `TemplateError`.
        """
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateError(f"The chat template does not compile: {error}") from error
        self._source = source
        self._bos = bos
        self._eos = eos
        self._spellings = sorted((spelling for spelling in control_spellings if spelling), key=len, reverse=True)
        self._beginnings = {spelling[:cut] for spelling in self._spellings for cut in range(1, len(spelling))}
        self._endings = {spelling[cut:] for spelling in self._spellings for cut in range(1, len(spelling))}
        self._edges = range(1, max(map(len, self._spellings), default=1))
        # The lookahead consumes only the first character, so that spellings that overlap are all found.
        self._whole = re.compile("(?=" + "|".join(map(re.escape, self._spellings)) + ")(.)", re.DOTALL)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The conversation as text, up to where the assistant's next words begin. Raises `TemplateError`."""
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                bos_token=self._bos,
                eos_token=self._eos,
            )
        except _Refused as error:
            raise TemplateError(str(error)) from error
        except Exception as error:
            # A template is a program: besides jinja's errors it can raise what any expression can.
            raise TemplateError(f"The chat template fails on these messages: {error}") from error

    def pieces(self, messages: Sequence[Mapping[str, str]]) -> list[Piece]:
        """The conversation's prompt as texts to be tokenized one after another.

        messages: dictionaries of strings, with `role`, `content` and perhaps `name`.

        Raises `TemplateError`.
        """
        texts = self._broken(messages) if self._suspicious(messages) else [self.render(messages)]
        # The template may write the token that begins a prompt itself; then the tokenizer must not add another.
        adds = not (self._bos and texts[0].startswith(self._bos))
        # A text of one character is the first of a spelling that was broken, or can be no spelling at all.
        return [Piece(text, adds and number == 0, len(text) > 1) for number, text in enumerate(texts)]

    def encode(self, messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> list[int]:
        """The tokens of the conversation's prompt. Raises `TemplateError`."""
        return encode_pieces(self.pieces(messages), tokenizer)

    def _suspicious(self, messages: Sequence[Mapping[str, str]]) -> bool:
        """Whether what a message says may be read as a control token: by itself, or by what the template puts beside it."""
        typed = _typed(messages)
        if not self._spellings:
            return False
        if any(self._whole.search(text) for text in typed):
            return True
        if not any(self._has_edge(text) for text in typed):
            return False
        plain = self._count(self.render(messages))
        return plain > self._count(self.render(_changed(messages, lambda _: _unused_character(self._source))))

    def _has_edge(self, text: str) -> bool:
        """Whether a text begins as a spelling ends, or ends as one begins."""
        return any(text[:length] in self._endings or text[-length:] in self._beginnings for length in self._edges)

    def _broken(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        """The rendered text, cut wherever a message spells out a control token."""
        mark = _unused_character(self._source, *_typed(messages))

        def broken(text: str) -> str:
            marked = self._whole.sub(lambda found: found[1] + mark, text)
            # A spelling of a single character has no inside: it becomes a piece of its own.
            for spelling in self._spellings:
                if len(spelling) == 1:
                    marked = marked.replace(spelling + mark, mark + spelling + mark)
            return mark + marked + mark if self._has_edge(text) else marked

        pieces = [piece for piece in self.render(_changed(messages, broken)).split(mark) if piece] or [""]
        # A template that rebuilds a spelling out of the broken one (by an encoding of its own, say) shows more whole
        # spellings than it does for the same messages with theirs taken out.
        harmless = self.render(_changed(messages, lambda text: self._whole.sub(mark, text)))
        if sum(map(self._count, pieces)) > sum(map(self._count, harmless.split(mark))):
            raise TemplateError("The chat template does not keep the control tokens that a message spells out as text.")
        return pieces

    def _count(self, text: str) -> int:
        return 0 if len(text) == 1 else sum(1 for _ in self._whole.finditer(text))


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer) -> list[int]:
    """The tokens of `ChatTemplate.pieces`."""
    tokens: list[int] = []
    for piece in pieces:
        tokens += tokenizer.encode(piece.text, add_special=piece.add_special, parse_special=piece.parse_special)
    return tokens


def _typed(messages: Iterable[Mapping[str, str]]) -> list[str]:
    """All that a client chose freely."""
    return [text for message in messages for key, text in message.items() if key != "role"]


def _changed(messages: Iterable[Mapping[str, str]], change: Any) -> list[dict[str, str]]:
    return [{key: text if key == "role" else change(text) for key, text in message.items()} for message in messages]


def _unused_character(*texts: str) -> str:
    used = set().union(*map(set, texts))
    return next(char for code in _PRIVATE_USE if (char := chr(code)) not in used)


class _Refused(Exception):
    """The template called raise_exception."""


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks for training what the assistant said: rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja declares it so

    def parse(self, parser: Parser) -> Node | list[Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_say"), [], [], body).set_lineno(line)

    def _say(self, caller: Any) -> str:
        return str(caller())


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment
