"""What tells one model, and one way to serve it, from another."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from inferno_runtime import __version__
from inferno_runtime.models.files import model_files

_BLOCKS = 64  # of a file that are looked at
_BLOCK = 4096  # bytes
_LIBRARIES = ("llama-cpp-python", "onnxruntime", "tokenizers")


def identity(path: Path) -> str:
    """A digest of a model's file or folder by the names and sizes of its files and by samples spread over them.

    Reading many gigabytes at each start would take longer than loading them. Not by when they were written: a file that
    was fetched again is the same model.
    """
    digest = hashlib.sha256()
    files = model_files(path)
    for place in sorted(files):
        name, file_path = place if len(files) > 1 else "", files[place]  # a file is the same by another name
        size = file_path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
        with file_path.open("rb") as file:
            for start in sorted({number * max(size - _BLOCK, 0) // (_BLOCKS - 1) for number in range(_BLOCKS)}):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def fingerprint(facts: Mapping[str, Any]) -> str:
    """`system_fingerprint` of what these facts tell of a model and its settings, and of the builds that evaluate it."""
    builds = {name: build for name in _LIBRARIES if (build := _version(name))}
    told = {**facts, "builds": {**builds, "inferno": __version__}}
    return "fp_" + hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
