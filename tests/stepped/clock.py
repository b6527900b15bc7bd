"""Processes whose wall clock is set while they run, as an administrator or a time server does it.

A namespace of Linux's can move every clock but that one, so it is moved in the C library of the process.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("clock.c")


class SteppedClock:
    """A clock for the processes that are started with ``environment``; it is right until it is stepped.

    The library and the file with the step are in ``folder``, which is ``seen_as`` another one by those processes.
    """

    def __init__(self, folder: Path, seen_as: Path | None = None) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("stepping a clock needs a C compiler")
        library, self._step = folder / "clock.so", folder / "clock-step"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        self._step.touch()
        self.step(0)
        place = seen_as or folder
        self.environment = {"LD_PRELOAD": str(place / library.name), "CLOCK_STEP": str(place / self._step.name)}

    def step(self, seconds: float) -> None:
        """Sets the clock so far ahead of the machine's, or back where it is negative."""
        with self._step.open("r+b") as file:
            file.write(struct.pack("d", seconds))
