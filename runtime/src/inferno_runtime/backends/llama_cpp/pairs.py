"""A query and a document as one input of a GGUF model that reranks."""

import re
from collections.abc import Callable, Iterator, Set

from inferno_runtime.backends.base import Pair

_TEXTS = re.compile(r"(\{query\}|\{document\})")
Encode = Callable[[str, bool], list[int]]  # a text, and whether spellings of control tokens are read as such


class Template:
    """The prompt that a decoder was made to judge by.

    What the two texts say is text. They are tokenized together with the words around them, up to the control tokens of the
    template itself, since words may begin in one and end in the other.
    """

    def __init__(self, template: str, control_spellings: Set[str]) -> None:
        """template: has {query} and {document} in it."""
        spelled = sorted(control_spellings, key=len, reverse=True)
        self._control = re.compile("(" + "|".join(map(re.escape, spelled)) + ")") if spelled else None
        self._parts = _TEXTS.split(template)

    def encode(self, query: str, document: str, encode: Encode) -> Pair:
        """Both in the prompt."""
        tokens: list[int] = []
        text = ""
        for part, control in self._pieces(query, document):
            if not control:
                text += part
                continue
            tokens += encode(text, False) if text else []
            tokens += encode(part, True)
            text = ""
        tokens += encode(text, False) if text else []
        return Pair(tokens, len(tokens))

    def _pieces(self, query: str, document: str) -> Iterator[tuple[str, bool]]:
        """Pieces of the prompt, and whether each is the spelling of a control token."""
        for part in self._parts:
            if part in ("{query}", "{document}"):
                yield (query if part == "{query}" else document), False
            elif self._control is None:
                yield part, False
            else:
                for number, piece in enumerate(self._control.split(part)):
                    yield piece, number % 2 == 1


class Joined:
    """The two texts with control tokens around and between them."""

    def __init__(self, before: list[int], between: list[int], behind: list[int]) -> None:
        self._before = before
        self._between = between
        self._behind = behind

    def encode(self, query: str, document: str, encode: Encode) -> Pair:
        """Both, so joined."""
        first = [*self._before, *encode(query, False), *self._between]
        tokens = [*first, *encode(document, False), *self._behind]
        return Pair(tokens, len(first))
