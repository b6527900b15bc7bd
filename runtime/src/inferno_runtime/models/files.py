"""Which files a model consists of, and from which of them it is loaded."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from inferno_runtime.models.errors import ModelError
from inferno_runtime.sources import is_hidden, split_parts

GENAI_CONFIG: Final = "genai_config.json"
"""What onnxruntime-genai keeps beside a graph, and names it in."""
ONNX_FOLDER: Final = "onnx"  # where many repositories keep the graph; its other files are one level up
_WEIGHTS: Final = (".onnx", ".onnx_data", ".onnx.data")
MOST_SETTINGS: Final = 16 * 1024 * 1024  # bytes of a file of settings
# Of several graphs the first of these is taken: full precision before anything smaller, and one graph before its parts.
_PREFERRED: Final = (
    "model.onnx",
    "decoder_model_merged.onnx",
    "model_fp16.onnx",
    "decoder_model_merged_fp16.onnx",
    "model_quantized.onnx",
    "decoder_model_merged_quantized.onnx",
)


def model_files(path: Path) -> dict[str, Path]:
    """The files of the model in a file, with all its parts if it is split, or in a folder, by their names from there.

    Hidden files are nobody's model. Raises `OSError`.
    """
    if path.is_dir():
        return {name: path / name for name in _below(path)}
    return {name: path.with_name(name) for name in split_parts(path.name) or [path.name]}


def main_file(folder: Path, names: Iterable[str]) -> str:
    """Of the names of a model's files, the one that it is loaded from. Raises `ModelError`.

    ``folder``: where a genai_config.json is read, if ``names`` has one; the other files need not be there.
    """
    names = sorted(names)
    named = _named_by_genai(folder) if GENAI_CONFIG in names else None
    if named is not None and named not in names:
        raise ModelError(f"{GENAI_CONFIG} names {named}, and there is no such file")
    return _gguf(names) or named or _onnx(names) or _only(names)


def loaded_names(main: str, names: Iterable[str]) -> list[str]:
    """Those of a model's files that it takes to load it: not other graphs in its folder, nor their data."""
    return [name for name in names if name.startswith(main) or not name.endswith(_WEIGHTS)]


def is_projector(name: str) -> bool:
    """Whether this is a GGUF file that only turns images into what the model beside it understands."""
    return name.rpartition("/")[2].startswith("mmproj")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file. Raises `ModelError`."""
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object")
    return content


def read_json(path: Path) -> Any:
    """What a JSON file of settings holds. Raises `ModelError`."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error


def read_text(path: Path) -> str:
    """What a file of settings holds. Raises `ModelError`."""
    try:
        if path.stat().st_size > MOST_SETTINGS:
            raise ModelError(f"{path}: larger than any file of settings")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not a text: {error}") from error


def _gguf(names: Iterable[str]) -> str | None:
    ggufs = [name for name in names if name.endswith(".gguf") and not is_projector(name)]
    firsts = [name for name in ggufs if (split_parts(name) or [name])[0] == name]
    if len(firsts) > 1:
        raise ModelError(f"there are several GGUF models ({_listed(firsts)}); name one of the files")
    return firsts[0] if firsts else None


def _named_by_genai(folder: Path) -> str | None:
    named: Any = read_object(folder / GENAI_CONFIG)
    for key in ("model", "decoder", "filename"):
        named = named.get(key) if isinstance(named, dict) else None
    return named if isinstance(named, str) else None


def _onnx(names: Iterable[str]) -> str | None:
    graphs = [name for name in names if name.endswith(".onnx")]
    usual = [name for name in graphs if name.rpartition("/")[0] in ("", ONNX_FOLDER)]
    usual.sort(key=lambda name: "/" in name)
    for preferred in _PREFERRED:
        for name in usual:
            if name.rpartition("/")[2] == preferred:
                return name
    found = [name for name in usual if name.rpartition("/")[2].startswith("model")] or usual or graphs
    if len(found) > 1:
        raise ModelError(f"there are several ONNX models ({_listed(found)}); name one of the files")
    return found[0] if found else None


def _only(names: list[str]) -> str:
    """A single file, whatever it is called; its first bytes show what it is."""
    if len(names) == 1 and split_parts(names[0]) is None:
        return names[0]
    raise ModelError(f"there is neither a GGUF nor an ONNX model among {len(names)} files")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _below(folder: Path) -> Iterator[str]:
    """The files in a folder and below. Links are followed, but for those that lead back up."""
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(place)
        folders[:] = [
            name for name in folders if not is_hidden(name) and not _leads_up(os.path.join(place, name), here)
        ]
        for name in names:
            path = os.path.join(place, name)
            if not is_hidden(name) and os.path.isfile(path):
                yield os.path.relpath(path, folder)


def _leads_up(path: str, here: str) -> bool:
    return os.path.islink(path) and Path(here).is_relative_to(os.path.realpath(path))
