"""Writes what an answer is held to as a grammar, in llguidance's dialect of Lark."""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

MOST_CALLS = 16  # in an answer that is held to a grammar: a model that has lost its way must come to an end

# As templates write JSON, which is how models have learnt it; and no white space that could go on for ever.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ANY = "/(?s:.*)/"
_NUMBERED = "<["  # begins what stands for a token


def literal(text: str) -> str:
    """A text that stands for itself."""
    return json.dumps(text)


def schema(definition: Mapping[str, Any]) -> str:
    """JSON that a schema allows."""
    return "%json " + json.dumps({**definition, "x-guidance": _JSON_STYLE})


def either(alternatives: Iterable[str]) -> str:
    """One of several."""
    return " | ".join(alternatives)


def repeated(item: str, between: str, most: int) -> str:
    """An item, or up to `most` with something between them. Both are names of rules, or literals."""
    return f"{item} ({between} {item}){{0,{most - 1}}}" if most > 1 else item


class Grammar:
    """Rules under way to a text."""

    def __init__(self, marks: Mapping[str, int] = MappingProxyType({})) -> None:
        """marks: those that are tokens without a text in the vocabulary, by their spellings."""
        self._rules: dict[str, str] = {}
        self._marks = marks

    def rule(self, name: str, body: str) -> str:
        """Add a rule; gives its name."""
        self._rules[name] = body
        return name.partition("[")[0]

    def mark(self, text: str) -> str:
        """A marker: the token that it is, or its text."""
        number = self._marks.get(text)
        return literal(text) if number is None else f"{_NUMBERED}{number}]>"

    def words(self) -> str:
        """Any text. The spelling of a mark that is a token would be read as that, so it is none."""
        if not self._marks:
            return self.rule("WORDS", _ANY)
        return self.rule("WORDS", f"{_ANY} & ~({_ANY} ({either(map(literal, self._marks))}) {_ANY})")

    def up_to(self, mark: str, name: str, unless: str = "") -> str:
        """Any text up to the first `mark`, and that.

        mark: a token, a literal or a regular expression; name: for a rule, in lower case; unless: a terminal with which the
        text does not begin.
        """
        text, lone = self.words(), mark.startswith(_NUMBERED)
        if not lone:
            text = f"{text} {mark}"
        if unless:
            text = self.rule(name.upper(), f"({text}) & ~({unless} {_ANY})")
        if lone:
            return f"{text} {mark}"
        # Lazy, or the text would go on behind the mark.
        return self.rule(f"{name}[lazy]", text)

    def __str__(self) -> str:
        return "".join(f"{name}: {body}\n" for name, body in self._rules.items())
