"""What a sequence's text is held to while it is generated."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar in llguidance's dialect of Lark. JSON schemas stand in it as `%json {…}`, and tokens as `<|name|>` or `<[id]>`."""

    lark: str
