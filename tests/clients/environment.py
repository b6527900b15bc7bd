"""Where clients are installed: environments of their own in the user's cache, made once for each set of versions."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parent / "requirements"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferno" / "clients"
_SECONDS = 600


def python(name: str) -> Path:
    """An interpreter that has the packages of `requirements/NAME.txt`. Skips the test where they cannot be had."""
    uv = Path(sys.executable).with_name("uv")
    wanted = REQUIREMENTS / f"{name}.txt"

    def install(folder: Path) -> None:
        _run([uv, "venv", "-q", "--python", sys.executable, folder])
        # What is only published as source would have to be built, which is not what is tested here.
        options: list[str | Path] = [
            "-q",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--python",
            folder / "bin/python",
        ]
        _run([uv, "pip", "install", *options, "-r", wanted])

    return _made(wanted, install) / "bin" / "python"


def node_folder() -> Path:
    """A folder in whose `node_modules` are the packages of `requirements/package-lock.json`. Skips as `python` does."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")

    def install(folder: Path) -> None:
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(REQUIREMENTS / name, folder)
        _run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], folder)

    return _made(REQUIREMENTS / "package-lock.json", install)


def _made(wanted: Path, install: Callable[[Path], None]) -> Path:
    """The folder for these versions; one that was not finished is made again."""
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _CACHE / f"{wanted.stem}-{digest}"
    finished = folder / ".finished"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        install(folder)
        finished.touch()
    return folder


def _run(command: Sequence[str | Path], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"clients cannot be installed: {error}")
    if done.returncode:
        pytest.skip(f"clients cannot be installed: {(done.stderr or done.stdout).strip()[-500:]}")
