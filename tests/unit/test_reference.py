"""The generated pages match what they are generated from."""

import subprocess
import sys
from pathlib import Path


def test_the_pages_are_up_to_date() -> None:
    script = Path(__file__).parents[2] / "scripts" / "reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
