"""Where a model comes from: the forms that ``spec.model.source`` may take.

One pair of regular expressions serves both judges: the API server, as CEL, and the operator.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

MAX_LENGTH: Final = 1024

_CLAIM: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
# No white space, no control characters, and nothing that has a meaning in a URL or a glob: nobody has to guess whether
# it is decoded.
_PATH: Final = r"(/[^/\x00-\x20\x7f?#%*\\]+)+"
SHAPE: Final = f"^(pvc://{_CLAIM}|file://){_PATH}$"
DOTS: Final = r"/[.][.]?(/|$)"

SHAPE_MESSAGE: Final = (
    "source must be pvc://CLAIM/PATH or file:///PATH, with neither white space nor any of ? # % * \\ in the path"
)
DOTS_MESSAGE: Final = "the path in source must not have . or .. as a component"


def _cel_string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\") + "'"


CEL_RULES: Final[Any] = [
    {"rule": f"self.matches({_cel_string(SHAPE)})", "message": SHAPE_MESSAGE},
    {"rule": f"!self.matches({_cel_string(DOTS)})", "message": DOTS_MESSAGE},
]


@dataclass(frozen=True, slots=True)
class ClaimSource:
    """``pvc://CLAIM/PATH``: a file in a PersistentVolumeClaim of the model's namespace; ``path`` is relative to its
    root.
    """

    claim: str
    path: str


@dataclass(frozen=True, slots=True)
class FileSource:
    """``file:///PATH``: a file that the runtime's image carries; ``path`` is absolute."""

    path: str


Source = ClaimSource | FileSource


def parse_source(text: str) -> Source:
    """What ``text`` names. Raises ValueError, in the words of the CEL rules, if it names nothing."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"source must be at most {MAX_LENGTH} characters long")
    if re.search(SHAPE, text) is None or text.endswith("\n"):
        raise ValueError(SHAPE_MESSAGE)
    if re.search(DOTS, text):
        raise ValueError(DOTS_MESSAGE)
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        return FileSource(rest)
    claim, _, path = rest.partition("/")
    return ClaimSource(claim, path)
