"""From a model's source to a file or folder on this machine."""

import fcntl
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inferno_runtime.config import ModelConfig
from inferno_runtime.models.digest import model_digest
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.files import main_file, model_files
from inferno_runtime.models.gguf import MAGIC
from inferno_runtime.models.layout import is_onnx

DEFAULT_MODEL = Path(__file__).with_name("inferno-tiny-Q8_0.gguf")  # so that there is always something to try


def locate(config: ModelConfig) -> Path:
    """What a backend loads: a GGUF file, or an ONNX model's file or folder.

    It is checked as far as that is cheap, and its digest where one is given. Raises `ModelError`.
    """
    given = path_of(config.source)
    try:
        path = _in_folder(given) if given.is_dir() else given
        if not is_onnx(path) or not path.exists():
            _check_magic(path)
        if config.sha256 and (digest := model_digest(given)) != config.sha256:
            raise ModelError(f"{given}: its SHA-256 digest is {digest}, not {config.sha256}")
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename or given}: no such file") from None
    except OSError as error:
        raise ModelError(f"{given}: {error.strerror}") from error
    return path


def hold(path: Path) -> None:
    """Keep the model's files from being evicted from a cache for as long as this process lives.

    Those that evict ask for a lock. A file system without locks has none who evict either.
    """
    for file in model_files(path).values():
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # never closed: the lock ends with the process
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)


def path_of(source: str) -> Path:
    """The path that a ``file:///PATH`` source names. Raises `ModelError`."""
    parts = urlsplit(source)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise ModelError(f"source {source!r} cannot be served here: only file:///PATH can")
    return Path(unquote(parts.path))


def _in_folder(folder: Path) -> Path:
    """What is loaded of a folder: a GGUF file in it, or all of it."""
    try:
        name = main_file(folder, model_files(folder))
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    return folder if name.endswith(".onnx") else folder / name


def _check_magic(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise ModelError(f"{path}: not a GGUF file" + (" (it is empty)" if not magic else ""))
