"""Installs a lock and the distributions of this repository into `.venv`; says what takes long, while it does.

scripts/install.py runtime|dev
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".venv" / "bin" / "uv"
DISTRIBUTIONS = {"runtime": ["runtime"], "dev": ["runtime", "operator"]}
HEARTBEAT = 30  # seconds


def main() -> None:
    """Install the lock named by the first argument."""
    lock = sys.argv[1]
    print(
        f"Installing requirements/{lock}.txt. The first time on a machine this compiles libllama for every kind of CPU,\n"
        "which takes some 8 minutes on two cores; after that it comes from the cache.",
        flush=True,
    )
    # Without an exact sync: the lock for running must not remove what the one for tests has installed.
    uv("pip", "install", "--require-hashes", "-r", f"requirements/{lock}.txt")
    editable = [word for name in DISTRIBUTIONS[lock] for word in ("-e", f"./{name}")]
    uv("pip", "install", "--no-deps", *editable)


def uv(*words: str) -> None:
    """Run uv in the repository, whose pyproject.toml says how libllama is built; exit where it fails."""
    done = threading.Event()
    threading.Thread(target=heartbeat, args=(done,), daemon=True).start()
    command = [
        str(UV),
        *words,
        "--quiet",
        "--python",
        str(ROOT / ".venv"),
        "--build-constraints",
        "requirements/build.txt",
    ]
    code = subprocess.run(command, cwd=ROOT).returncode
    done.set()
    if code:
        sys.exit(f"{' '.join(command)} failed with exit code {code}")


def heartbeat(done: threading.Event) -> None:
    """Show that something is still happening."""
    began = time.monotonic()
    while not done.wait(HEARTBEAT):
        print(f"… still installing, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
