"""Processes under test: started, watched, weighed, and stopped by their id."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loads import Load
from benchmarks.model import CACHE_BYTES_PER_TOKEN
from benchmarks.peers import CORES, Server

_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_MEGA = 1e6
_NEIGHBOUR = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


class ServerError(Exception):
    """A server did not start, or did not stay."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers on 127.0.0.1."""

    port: int
    pid: int


@contextlib.contextmanager
def running(server: Server, load: Load) -> Iterator[Running]:
    """Start a server for a load, and stop it. Raises `ServerError`."""
    with tempfile.TemporaryDirectory(prefix="inferno-bench-") as name:
        folder = Path(name)
        port = free_port()
        start = server.start(load, port, folder)
        for file, text in start.files.items():
            (folder / file).write_text(text)
        # Settings that a person has for their own work must not change what is measured.
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("LLAMA_", "GGML_", "INFERNO_"))}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                start.command,
                cwd=folder,
                env=clean | start.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_until_ready(process, port, server.ready, folder / "log")
            yield Running(port, process.pid)
            if process.poll() is not None:
                raise ServerError(f"{server.title} ended with {process.returncode}:\n{_tail(folder / 'log')}")
        finally:
            _stop(process)


@contextlib.contextmanager
def neighbours(wanted: bool, seconds: float) -> Iterator[None]:
    """Keep half of the cores busy, or do nothing. They end by themselves after `seconds` if nobody ends them."""
    count = max(1, CORES // 2) if wanted else 0
    busy = [subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(seconds)]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def overhead(pid: int, cache_tokens: int, model: Path) -> float:
    """Megabytes that a server and its children hold beside the model and the cache of so many tokens.

    It is the proportional set size: what processes share is counted once. A server that repacks weights holds them in
    memory of its own instead of the file's, so the model counts by its size, or by what of the file is mapped if that
    is more.
    """
    total = in_file = 0
    for process in family(pid):
        try:
            text = Path(f"/proc/{process}/smaps").read_text()
        except OSError:
            continue
        whole, mapped = proportional(text, str(model))
        total += whole
        in_file += mapped
    cache = cache_tokens * CACHE_BYTES_PER_TOKEN
    return (total - max(in_file, model.stat().st_size) - cache) / _MEGA


def proportional(smaps: str, path: str) -> tuple[int, int]:
    """Bytes of PSS in all mappings, and in those of one file."""
    total = in_file = 0
    of_file = False
    for line in smaps.splitlines():
        head = line.split(maxsplit=5)
        if "-" in head[0] and not head[0].endswith(":"):
            of_file = len(head) == 6 and head[5] == path
        elif head[0] == "Pss:":
            size = int(head[1]) * 1024
            total += size
            in_file += size if of_file else 0
    return total, in_file


def family(pid: int) -> list[int]:
    """A process and all that it and its children have started."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    members = [pid]
    for member in members:
        members += [child for child, parent in parents.items() if parent == member]
    return members


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.poll() is not None:
            raise ServerError(f"it ended with {process.returncode} before it served:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise ServerError(f"it did not serve within {_START_SECONDS:g} s:\n{_tail(log)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, and what it started: they share a session that nobody else is in."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with contextlib.suppress(ProcessLookupError):  # the usual case: everybody has gone
        os.killpg(process.pid, signal.SIGKILL)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
