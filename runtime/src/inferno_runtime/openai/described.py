"""How a field of a request is described."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request.

    meaning: in Markdown; default: the value that leaving it out stands for, None where there is none or `meaning` says it;
    refused: the values that this server knows and refuses, in words; ignored: whether it changes nothing.
    """

    meaning: str
    default: bool | float | str | None = None
    refused: str = ""
    ignored: bool = False

    @property
    def told(self) -> str:
        """All that there is to say of it, but the default."""
        refused = f" Refused: {self.refused}." if self.refused else ""
        return self.meaning + refused + (" Accepted, and changes nothing." if self.ignored else "")
