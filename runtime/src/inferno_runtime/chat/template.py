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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, NoReturn

import jinja2
import jinja2.meta
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inferno_runtime.backends.base import Image, Layout, Tokenizer
from inferno_runtime.engine.images import Chunk, place

Message = Mapping[str, Any]
"""A message or a tool as templates know it: what is a string in it, and not `Fixed`, a client chose."""

# By which templates find their way, and which are no client's even if a vocabulary has such a token.
_KEYS = frozenset(
    [
        "role",
        "content",
        "text",
        "name",
        "type",
        "id",
        "function",
        "arguments",
        "parameters",
        "description",
        "tool_calls",
        "tool_call_id",
        "reasoning_content",
        "thinking",
    ]
)

GIVEN = frozenset(["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"])
"""The variables that every template is given, and which nobody else sets."""

Options = Mapping[str, Any]
"""Other variables, which a client chose."""

# Planes 15 and 16 of Unicode are for private use throughout: nobody writes them, and a byte-level vocabulary has no
# token for them.
_PRIVATE_USE = range(0xF0000, 0xF0000 + 0xFFFE)


class Fixed(str):
    """A text in a message that no client chose, and that templates compare."""

    __slots__ = ()


class TemplateError(ValueError):
    """A template that cannot be compiled, or that refuses a conversation; the message is the template's own."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is tokenized by itself; the flags are those of `Tokenizer.encode`. Or an image's place, by its number."""

    text: str
    add_special: bool
    parse_special: bool
    image: int | None = None


class ChatTemplate:
    """A compiled chat template. Safe to use from several threads."""

    def __init__(self, source: str, *, bos: str, eos: str, control_spellings: Collection[str]) -> None:
        """Compile `source`.

        bos, eos: the spellings that the template may use as `bos_token` and `eos_token`; may be empty.
        control_spellings: what must never be read as a control token when it stands in a message.

        Raises `TemplateError`.
        """
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(environment.parse(source)))
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateError(f"The chat template does not compile: {error}") from error
        self.source = source
        self._bos = bos
        self._eos = eos
        self._spellings = sorted((spelling for spelling in control_spellings if spelling), key=len, reverse=True)
        self._beginnings = {spelling[:cut] for spelling in self._spellings for cut in range(1, len(spelling))}
        self._endings = {spelling[cut:] for spelling in self._spellings for cut in range(1, len(spelling))}
        self._edges = range(1, max(map(len, self._spellings), default=1))
        # The lookahead consumes only the first character, so that spellings that overlap are all found.
        self._whole = re.compile("(?=" + "|".join(map(re.escape, self._spellings)) + ")(.)", re.DOTALL)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        options: Options = MappingProxyType({}),
    ) -> str:
        """The conversation as text, up to where the assistant's next words begin. Raises `TemplateError`."""
        try:
            return self._template.render(
                **options,
                messages=[dict(message) for message in messages],
                tools=tools,
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

    def pieces(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        options: Options = MappingProxyType({}),
        images: Sequence[str] = (),
    ) -> list[Piece]:
        """The conversation's prompt as texts to be tokenized one after another, with images between them.

        messages, tools: as the template wants them; options: without those of `GIVEN`. All are nested no deeper than Python
        can follow. images: a character for each, which stands for it in the messages and that nobody typed.

        Raises `TemplateError`.
        """
        talk = _Talk([{**message, "role": Fixed(message["role"])} for message in messages], tools, options)
        # A text of one character is the first of a spelling that was broken, or can be no spelling at all.
        texts = self._broken(talk) if self._suspicious(talk) else [self._rendered(talk)]
        # The template may write the token that begins a prompt itself; then the tokenizer must not add another.
        adds = not (self._bos and texts[0].startswith(self._bos))
        pieces = _with_images(texts, images) if images else [Piece(text, False, len(text) > 1) for text in texts]
        pieces[0] = replace(pieces[0], add_special=adds)
        return pieces

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The tokens of the conversation's prompt. Raises `TemplateError`."""
        return encode_pieces(self.pieces(messages), tokenizer)

    def _rendered(self, talk: "_Talk") -> str:
        return self.render(talk.messages, talk.tools, talk.options)

    def _suspicious(self, talk: "_Talk") -> bool:
        """Whether what a client typed may be read as a control token: by itself, or by what the template puts beside it."""
        if not self._spellings:
            return False
        typed = talk.typed()
        if any(self._whole.search(text) for text in typed):
            return True
        if not any(self._has_edge(text) for text in typed):
            return False
        plain = self._count(self._rendered(talk))
        return plain > self._count(self._rendered(talk.changed(self._without_edges)))

    def _without_edges(self, text: str) -> str:
        return _unused_character(self.source) if self._has_edge(text) else text

    def _has_edge(self, text: str) -> bool:
        """Whether a text begins as a spelling ends, or ends as one begins."""
        return any(text[:length] in self._endings or text[-length:] in self._beginnings for length in self._edges)

    def _broken(self, talk: "_Talk") -> list[str]:
        """The rendered text, cut wherever a client spells out a control token."""
        mark = _unused_character(self.source, *talk.typed())

        def broken(text: str) -> str:
            marked = self._whole.sub(lambda found: found[1] + mark, text)
            # A spelling of a single character has no inside: it becomes a piece of its own.
            for spelling in self._spellings:
                if len(spelling) == 1:
                    marked = marked.replace(spelling + mark, mark + spelling + mark)
            return mark + marked + mark if self._has_edge(text) else marked

        pieces = [piece for piece in self._rendered(talk.changed(broken)).split(mark) if piece] or [""]
        # A template that rebuilds a spelling out of the broken one (by an encoding of its own, say) shows more whole
        # spellings than it does for the same messages with theirs taken out.
        harmless = self._rendered(talk.changed(lambda text: self._whole.sub(mark, text)))
        if sum(map(self._count, pieces)) > sum(map(self._count, harmless.split(mark))):
            raise TemplateError("The chat template does not keep the control tokens that a message spells out as text.")
        return pieces

    def _count(self, text: str) -> int:
        return 0 if len(text) == 1 else sum(1 for _ in self._whole.finditer(text))


def _with_images(texts: Iterable[str], images: Sequence[str]) -> list[Piece]:
    """Pieces of these texts, cut where images stand in them."""
    numbers = {mark: number for number, mark in enumerate(images)}
    cut = re.compile(f"([{''.join(images)}])")
    parts = [part for text in texts for part in cut.split(text)]
    pieces = [
        Piece("", False, False, numbers[part]) if part in numbers else Piece(part, False, len(part) > 1)
        for number, part in enumerate(parts)
        if part or not number  # the first may begin with a token of the tokenizer's own
    ]
    if sorted(piece.image for piece in pieces if piece.image is not None) != list(numbers.values()):
        raise TemplateError("The chat template does not show each of the images once.")
    if not pieces[-1].text:
        raise TemplateError("The chat template puts nothing behind an image.")
    return pieces


def encode_pieces(pieces: Iterable[Piece], tokenizer: Tokenizer) -> list[int]:
    """The tokens of `ChatTemplate.pieces` without images."""
    return encode_with_images(pieces, tokenizer, ())[0]


def encode_with_images(
    pieces: Iterable[Piece], tokenizer: Tokenizer, images: Sequence[tuple[Image, Layout]]
) -> tuple[list[int], list[Chunk]]:
    """The tokens of `ChatTemplate.pieces`, with what stands for the images, and where it stands."""
    tokens: list[int] = []
    chunks: list[Chunk] = []
    for piece in pieces:
        if piece.image is None:
            tokens += tokenizer.encode(piece.text, add_special=piece.add_special, parse_special=piece.parse_special)
            continue
        placed, own = place(*images[piece.image], len(tokens))
        tokens += placed
        chunks += own
    return tokens, chunks


@dataclass(frozen=True, slots=True)
class _Talk:
    """What a template renders."""

    messages: Sequence[Message]
    tools: Sequence[Message] | None
    options: Options

    def typed(self) -> list[str]:
        """All texts that a client chose freely."""
        return list(_texts((self.messages, self.tools, list(self.options.values()))))

    def changed(self, change: Callable[[str], str]) -> "_Talk":
        """The same with these texts changed."""
        options = {name: _changed(value, change) for name, value in self.options.items()}
        return _Talk(_changed(self.messages, change), _changed(self.tools, change), options)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _KEYS:
                yield key
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and not isinstance(value, Fixed):
        yield value


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key if key in _KEYS else change(key): _changed(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(item, change) for item in value]
    return change(value) if isinstance(value, str) and not isinstance(value, Fixed) else value


def unused_characters(count: int, texts: Iterable[str]) -> list[str]:
    """Characters that are in none of the texts, and that nobody writes."""
    used = set().union(*map(set, texts))
    return list(islice((char for code in _PRIVATE_USE if (char := chr(code)) not in used), count))


def _unused_character(*texts: str) -> str:
    return unused_characters(1, texts)[0]


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
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=list,  # what `map` and its like give, which other renderers take for lists
    )


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
