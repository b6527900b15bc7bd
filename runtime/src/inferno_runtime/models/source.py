"""From a model's source to a file on this machine."""

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inferno_runtime.backends.base import ModelError
from inferno_runtime.config import ModelConfig

DEFAULT_MODEL = Path(__file__).with_name("inferno-tiny-Q8_0.gguf")  # so that there is always something to try
_MAGIC = b"GGUF"


def locate(config: ModelConfig) -> Path:
    """The model's file, checked as far as that is cheap, and its digest where one is given. Raises `ModelError`."""
    path = path_of(config.source)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC:
                raise ModelError(f"{path}: not a GGUF file" + (" (it is empty)" if not magic else ""))
            if config.sha256:
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != config.sha256:
                    raise ModelError(f"{path}: its SHA-256 digest is {digest}, not {config.sha256}")
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ModelError(f"{path}: a folder, not a GGUF file") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    return path


def path_of(source: str) -> Path:
    """The path that a ``file:///PATH`` source names. Raises `ModelError`."""
    parts = urlsplit(source)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise ModelError(f"source {source!r} cannot be served here: only file:///PATH can")
    return Path(unquote(parts.path))
