"""Installs a lock and the distributions of this repository into `.venv`; says what takes long, while it does.

    scripts/install.py runtime|dev

libllama is compiled once per user and machine, and kept in the user's cache as it is installed. uv has such a cache, too,
but gives up what it built whenever an index answers that the source may have changed.
"""

import fcntl
import hashlib
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
UV = VENV / "bin" / "uv"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferno" / "libllama"
DISTRIBUTIONS = {"runtime": ["runtime"], "dev": ["runtime", "operator"]}
HEARTBEAT = 30  # seconds


def main() -> None:
    """Install the lock named by the first argument."""
    name = sys.argv[1]
    lock = ROOT / "requirements" / f"{name}.txt"
    shutil.copytree(libllama(requirement(lock.read_text(), "llama-cpp-python")), site_packages(), dirs_exist_ok=True)
    print(f"Installing requirements/{name}.txt", flush=True)
    # Without an exact sync: the lock for running must not remove what the one for tests has installed.
    uv("pip", "install", "--require-hashes", "--requirements", str(lock))
    editable = itertools.chain.from_iterable(("--editable", f"./{folder}") for folder in DISTRIBUTIONS[name])
    uv("pip", "install", "--no-deps", *editable)


def requirement(lock: str, package: str) -> str:
    """A package's lines in a lock: its version and its hashes."""
    found = re.search(rf"^{package}==.*\n(?:[ \t].*\n)*", lock, re.MULTILINE)
    if found is None:
        sys.exit(f"the lock does not name {package}")
    return found[0]


def libllama(pinned: str) -> Path:
    """The folder with llama-cpp-python as it is installed, compiled if it is not there yet."""
    settings = (
        (ROOT / "pyproject.toml").read_text().partition("[tool.uv.config-settings-package")[2].partition("\n\n")[0]
    )
    build = (ROOT / "requirements" / "build.txt").read_text()
    facts = [
        pinned,
        settings,
        build,
        sys.implementation.cache_tag or "",
        platform.platform(terse=True),
        platform.machine(),
    ]
    folder = CACHE / hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not folder.exists():
            print("Compiling libllama for every kind of CPU, once: some 8 minutes on two cores", flush=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                lines = Path(scratch) / "requirements.txt"
                lines.write_text(pinned)
                target = Path(scratch) / "tree"
                uv(
                    "pip",
                    "install",
                    "--no-deps",
                    "--require-hashes",
                    "--requirements",
                    str(lines),
                    "--target",
                    str(target),
                )
                (target / ".lock").unlink(missing_ok=True)
                target.rename(folder)
    return folder


def site_packages() -> Path:
    """Where the virtual environment keeps its packages."""
    (folder,) = VENV.glob("lib/python3*/site-packages")
    return folder


def uv(*words: str) -> None:
    """Run uv in the repository, whose pyproject.toml says how libllama is built; exit where it fails."""
    command = [str(UV), *words, "--quiet", "--python", str(VENV), "--build-constraints", "requirements/build.txt"]
    with heartbeat():
        code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(f"{' '.join(command)} failed with exit code {code}")


@contextmanager
def heartbeat() -> Iterator[None]:
    """Show now and then that something is still happening."""
    done = threading.Event()

    def beat() -> None:
        began = time.monotonic()
        while not done.wait(HEARTBEAT):
            print(f"… still at it, {time.monotonic() - began:.0f} s", flush=True)

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        done.set()


if __name__ == "__main__":
    main()
