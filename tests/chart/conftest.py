"""Helm, as the tests of the chart use it."""

import subprocess
from collections.abc import Callable

import pytest

from tests.cluster import build

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Runs Helm."""
    binary = build.helm()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(binary), *arguments], capture_output=True, text=True, check=False)

    return run
