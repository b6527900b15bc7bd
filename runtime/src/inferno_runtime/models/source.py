"""From a model's source to a file on this machine."""

import fcntl
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inferno_runtime.backends.base import ModelError
from inferno_runtime.config import ModelConfig
from inferno_runtime.models.digest import model_digest
from inferno_runtime.models.gguf import MAGIC
from inferno_runtime.models.inspect import NoModel, model_file

DEFAULT_MODEL = Path(__file__).with_name("inferno-tiny-Q8_0.gguf")  # so that there is always something to try


def locate(config: ModelConfig) -> Path:
    """The model's file, checked as far as that is cheap, and its digest where one is given. Raises `ModelError`."""
    given = path_of(config.source)
    try:
        path = _in_folder(given) if given.is_dir() else given
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
        if magic != MAGIC:
            raise ModelError(f"{path}: not a GGUF file" + (" (it is empty)" if not magic else ""))
        if config.sha256 and (digest := model_digest(given)) != config.sha256:
            raise ModelError(f"{given}: its SHA-256 digest is {digest}, not {config.sha256}")
    except FileNotFoundError:
        raise ModelError(f"{given}: no such file") from None
    except OSError as error:
        raise ModelError(f"{given}: {error.strerror}") from error
    return path


def hold(path: Path) -> None:
    """Keep the file from being evicted from a cache for as long as this process lives: those that evict ask for a lock.

    A file system without locks has none who evict either.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # never closed: the lock ends with the process
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
    try:
        return folder / model_file(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
    except NoModel as error:
        raise ModelError(f"{folder}: a folder, and {error}") from error
