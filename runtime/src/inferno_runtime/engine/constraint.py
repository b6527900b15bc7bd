"""What form a text must have: a grammar in llguidance's dialect of Lark, whatever it was asked for as.

Only text is made here; `engine.grammar` compiles it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_BYTES = 128 * 1024  # of a grammar; what compiling takes grows with it

# Any white space between JSON's tokens would let a model go on with it for ever. This is a space, or a line's end and an
# indentation.
_SPACE = r" |\n[ \t]{0,32}"
_CONTROL = b"\xff"  # begins the control tokens, as no text does
_ESCAPE = re.compile(r"\\.|/|\n|\r", re.DOTALL)
_ESCAPED = {"/": r"\/", "\n": r"\n", "\r": r"\r", "\\\n": r"\n", "\\\r": r"\r"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar that a text must follow from its first token to its last.

    lark: as a client sends it, so perhaps no grammar at all.
    """

    lark: str


def json_term(schema: object) -> str:
    """What stands in a grammar for the JSON that a schema allows, in the order of its properties.

    schema: an object or a boolean, as decoded from JSON. Raises `RecursionError` where it nests too deep.
    """
    if isinstance(schema, dict):
        own = schema.get("x-guidance")
        options: dict[str, Any] = {"whitespace_pattern": _SPACE, **(own if isinstance(own, dict) else {})}
        schema = {**schema, "x-guidance": options}
    return "%json " + msgspec.json.encode(schema).decode()


def regex_term(pattern: str) -> str:
    """What stands for a text that a regular expression matches from its beginning to its end."""
    escaped = _ESCAPE.sub(lambda found: _ESCAPED.get(found[0], found[0]), pattern)
    return f"/{escaped}/" if escaped else '""'


def choice_term(choices: Sequence[str]) -> str:
    """What stands for one of these texts."""
    return " | ".join(msgspec.json.encode(choice).decode() for choice in choices)


def of_term(term: str) -> Constraint:
    """The grammar that has this term and nothing else."""
    return Constraint(f"start: {term}")


def token_bytes(pieces: Sequence[bytes], controls: Mapping[int, str]) -> list[bytes]:
    """The tokens as a grammar sees them.

    pieces: what each adds to a text; controls: the spellings of control tokens, which a grammar can name as `<|name|>`,
    and which match nothing else.
    """
    return [
        _CONTROL + controls[token].encode() if token in controls and not piece else piece
        for token, piece in enumerate(pieces)
    ]
