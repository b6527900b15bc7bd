"""The examples of clients do what they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.process import MODEL, ServerProcess

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"


def said(*command: str | Path) -> str:
    """What an example prints."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chat(server: ServerProcess) -> None:
    lines = said(sys.executable, CLIENTS / "chat.py", server.url).splitlines()
    assert "Paris" in lines[0]
    assert re.fullmatch(r"\([1-9][0-9]* tokens\)", lines[-1])


def test_logprobs(server: ServerProcess) -> None:
    *words, right, wrong = said(sys.executable, CLIENTS / "logprobs.py", server.url).splitlines()
    assert any(word.startswith("' Paris'") for word in words)
    likely, unlikely = (float(re.fullmatch(r"' \w+\.': ([\d.]+)%", line)[1]) for line in (right, wrong))  # type: ignore[index]
    assert likely > 50 > unlikely


def test_embeddings() -> None:
    with ServerProcess("--task", "embed") as server:
        lines = said(sys.executable, CLIENTS / "embeddings.py", server.url).splitlines()
    scores = [float(line.split()[0]) for line in lines]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)


def test_websocket(server: ServerProcess) -> None:
    short, long = said(sys.executable, CLIENTS / "websocket_stream.py", server.url, MODEL).splitlines()
    assert re.fullmatch(r"short \((stop|length), [1-8] tokens\): (['\"]).+\2", short)
    assert re.fullmatch(r"long \(cancelled, [1-9][0-9]* tokens\): (['\"]).+\1", long)


def test_curl(server: ServerProcess) -> None:
    out = said(CLIENTS / "curl.sh", server.url, MODEL)
    assert f'"id":"{MODEL}"' in out
    assert "Paris" in out
    assert "data: [DONE]" in out
    assert "event: complete" in out


def test_fetch(server: ServerProcess) -> None:
    assert "Paris" in said("node", CLIENTS / "stream.mjs", server.url, MODEL)
