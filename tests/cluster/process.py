"""Server processes that start on ports of their own choosing and never outlive the tests."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.cluster.waiting import until

T = TypeVar("T")

STOP_SECONDS = 20.0
PORT_ATTEMPTS = 8
# Below the ports that Linux gives to outgoing connections: one of those could otherwise take a server's port while it
# restarts. Below Kubernetes' node ports too.
PORTS = range(12000, 30000)
# The kernel ends a process when the *thread* that started it ends, so that must be one that lives as long as we do.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-starter")
# The child itself asks for that, then becomes the server: no Python of ours runs between fork and exec, beside threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class ProcessError(Exception):
    """A process did not start; the message has the end of its log."""


class PortTaken(ProcessError):
    """A process did not start because another one listens on a port that it was to have."""


class ServerProcess:
    """A server that runs; what it prints is appended to the file ``log``."""

    def __init__(self, program: Path, arguments: Sequence[str], log: Path) -> None:
        self.name = program.name
        self.log = log
        self._command = (program, tuple(arguments))
        self._log_start = log.stat().st_size if log.exists() else 0
        wrapper = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        self._process = _starter.submit(self._start, [*wrapper, str(program), *arguments]).result()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C reaches the tests alone, and they stop their servers in order.
        with self.log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.log.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def again(self) -> "ServerProcess":
        """Starts the same program with the same arguments once more."""
        return ServerProcess(*self._command, self.log)

    def wait_until(self, what: str, look: Callable[[], T | None], timeout: float) -> T:
        """What ``look`` returns, once that is true. Raises PortTaken or ProcessError if it ends, or takes too long."""

        def look_while_alive() -> T | None:
            if self._process.poll() is not None:
                problem = PortTaken if "address already in use" in self._printed() else ProcessError
                raise problem(f"{self.name} ended with {self._process.returncode}; it printed last:\n{self.tail()}")
            return look()

        try:
            return until(what, look_while_alive, timeout)
        except TimeoutError as error:
            raise ProcessError(f"{self.name}: {error}; it printed last:\n{self.tail()}") from error

    def tail(self, lines: int = 30) -> str:
        """The end of what it has printed."""
        return "\n".join(self._printed().splitlines()[-lines:])

    def stop(self) -> None:
        """Asks it to end, and ends it if it takes too long. Does nothing if it has ended already."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _printed(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")


def on_free_port(start: Callable[[int], T]) -> T:
    """What ``start`` returns for a port that is free; it must raise PortTaken if that turns out not to be so."""
    for _ in range(PORT_ATTEMPTS - 1):
        try:
            return start(free_port())
        except PortTaken:
            continue
    return start(free_port())


def free_port() -> int:
    """A TCP port on which nothing listened a moment ago. Somebody may take it before you do: see on_free_port."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("", port))
            except OSError:
                continue
        return port
