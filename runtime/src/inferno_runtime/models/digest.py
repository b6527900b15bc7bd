"""The digest by which a model is pinned: of a file, its SHA-256; of several, that of what ``sha256sum`` prints of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from inferno_runtime.sources import split_parts


def file_digest(path: Path) -> str:
    """The SHA-256 digest of a file in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_digest(digests: Mapping[str, str]) -> str:
    """The digest of a model whose files have these digests by name: of a single file its own, else that of the lines
    ``DIGEST  NAME``, sorted by name.
    """
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def model_digest(path: Path) -> str:
    """The digest of the model in a file, with all its parts if it is split, or in a folder. Raises `OSError`."""
    if path.is_dir():
        files = {str(each.relative_to(path)): each for each in path.rglob("*") if each.is_file()}
    else:
        files = {name: path.with_name(name) for name in split_parts(path.name) or [path.name]}
    return set_digest({name: file_digest(each) for name, each in files.items()})
