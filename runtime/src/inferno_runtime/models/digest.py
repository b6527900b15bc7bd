"""The digest by which a model is pinned: of a file, its SHA-256; of several, that of what ``sha256sum`` prints of them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from inferno_runtime.models.files import model_files
from inferno_runtime.sources import is_hidden


def file_digest(path: Path) -> str:
    """The SHA-256 digest of a file in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_digest(digests: Mapping[str, str]) -> str:
    """The digest of a model whose files have these digests by name: of a single file its own, else what this prints::

    cd FOLDER && find -L . -type f -not -path '*/.*' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum
    """
    counted = {os.fsencode(name): digest for name, digest in digests.items() if not is_hidden(name)}
    if len(counted) == 1:
        return next(iter(counted.values()))
    lines = hashlib.sha256()
    for name in sorted(counted):
        lines.update(counted[name].encode() + b"  ./" + name + b"\n")
    return lines.hexdigest()


def model_digest(path: Path) -> str:
    """The digest of the model in a file, with all its parts if it is split, or in a folder. Raises `OSError`."""
    return set_digest({name: file_digest(each) for name, each in model_files(path).items()})
