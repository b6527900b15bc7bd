"""What a server holds, as it can be seen from outside."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tests.runtime.process import ServerProcess, eventually


@dataclass(frozen=True, slots=True)
class Counters:
    """Files are the server's open descriptors, its connections among them; the rest is what its engine says of itself."""

    files: int
    running: float
    waiting: float
    paused: float
    cells: float  # share of the KV cache that sequences hold


def count(server: ServerProcess) -> Counters:
    """What the server holds now, with the connection of `server.client` open."""
    gauges = ("num_requests_running", "num_requests_waiting", "num_requests_paused", "kv_cache_usage_ratio")
    running, waiting, paused, cells = [server.metric(name) for name in gauges]
    return Counters(len(os.listdir(f"/proc/{server.pid}/fd")), running, waiting, paused, cells)


@contextlib.contextmanager
def nothing_lost(server: ServerProcess) -> Iterator[None]:
    """Whatever happens meanwhile, the server soon holds what it held before."""
    before = count(server)
    yield
    with contextlib.suppress(AssertionError):
        eventually(lambda: count(server) == before, "the server holds what it held before")
    assert count(server) == before
