"""From a model's source to a file or folder on this machine."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inferno_runtime.backends.base import AdapterFile, ModelError
from inferno_runtime.backends.onnx.layout import Layout
from inferno_runtime.config import AdapterConfig, ModelConfig

DEFAULT_MODEL = Path(__file__).with_name("inferno-tiny-Q8_0.gguf")  # so that there is always something to try
_MAGIC = b"GGUF"


def locate(config: ModelConfig) -> Path:
    """The model's file or folder, checked as far as that is cheap, and its digest where one is given. Raises `ModelError`."""
    path = path_of(config.source)
    try:
        if path.is_dir():
            Layout.find(path)
        elif path.suffix != ".onnx" or not path.exists():
            _check_magic(path)
        if config.sha256:
            _check_digest(path, config.sha256)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    return path


def locate_adapters(config: ModelConfig) -> tuple[AdapterFile, ...]:
    """The model's LoRA adapters, checked like the model. Raises `ModelError`."""
    return tuple(AdapterFile(str(_locate_adapter(adapter)), adapter.scale) for adapter in config.adapters)


def _locate_adapter(adapter: AdapterConfig) -> Path:
    path = path_of(adapter.source)
    if path.is_dir():
        raise ModelError(
            f"{path}: an adapter is a GGUF file, not a folder; convert_lora_to_gguf.py makes one of PEFT's"
        )
    return locate(ModelConfig(source=adapter.source, sha256=adapter.sha256))


def path_of(source: str) -> Path:
    """The path that a ``file:///PATH`` source names. Raises `ModelError`."""
    parts = urlsplit(source)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise ModelError(f"source {source!r} cannot be served here: only file:///PATH can")
    return Path(unquote(parts.path))


def digest(path: Path) -> str:
    """The SHA-256 digest of a file, or of a folder: that of what `sha256sum` prints for its files.

    ``cd FOLDER && find -L . -type f -not -path '*/.*' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum``
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = hashlib.sha256()
    for name in sorted(map(os.fsencode, _files(path))):
        lines.update(digest(path / os.fsdecode(name)).encode() + b"  ./" + name + b"\n")
    return lines.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    """The files in a folder and below, by their names from there, but for those that are hidden."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in names if not name.startswith("."))


def _check_magic(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic != _MAGIC:
        raise ModelError(f"{path}: not a GGUF file" + (" (it is empty)" if not magic else ""))


def _check_digest(path: Path, wanted: str) -> None:
    found = digest(path)
    if found != wanted:
        raise ModelError(f"{path}: its SHA-256 digest is {found}, not {wanted}")
