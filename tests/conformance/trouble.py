"""Servers that are busy, that stand still, and whose engines die."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.runtime.process import MODEL, ServerProcess

# A request that is far from its end while a test looks at it, and the flags of a server that takes it.
ENDLESS: dict[str, Any] = {"max_tokens": 90_000, "ignore_eos": True, "temperature": 0}
LONG_CONTEXT = ("--context-length", "100000", "--slots", "2")
ONE_SLOT = ("--context-length", "100000", "--slots", "1")


@contextmanager
def occupied(server: ServerProcess) -> Iterator[None]:
    """A slot is taken meanwhile. The server must take an `ENDLESS` request."""
    body = {"model": MODEL, "prompt": "Once upon a time", "stream": True, **ENDLESS}
    with httpx.stream("POST", f"{server.url}/completions", json=body, timeout=60, trust_env=False) as response:
        lines = response.iter_lines()  # kept, since one that is dropped closes the response
        next(lines)
        yield


def queued(server: ServerProcess) -> int:
    """Sequences that wait for a slot."""
    return int(server.client.get("/health").json()["engine"]["queued"])


@contextmanager
def standing_still(server: ServerProcess) -> Iterator[None]:
    """The engine does nothing meanwhile."""
    engine = server.engine_pid()
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


def kill_engine(server: ServerProcess) -> None:
    """Have the engine's process end without a word."""
    os.kill(server.engine_pid(), signal.SIGKILL)
