"""A server as a user starts it: a process of its own, over the tiny model."""

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

MODEL = "inferno-tiny"
_READY = re.compile(rf"^Serving {MODEL} at (http://127\.0\.0\.1:\d+/v1)$")
_START_SECONDS = 120.0
# All tests together ask for more in a minute than one client may by default.
UNLIMITED = ("--requests-per-minute", "0", "--tokens-per-minute", "0", "--max-connections", "0")


class ServerProcess:
    """`inferno serve` on a free port. `url` is the API's base URL; `log` the lines that it wrote to standard error."""

    def __init__(self, *flags: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        # One thread: the machine's other cores belong to other tests.
        command = [
            sys.executable,
            "-m",
            "inferno_runtime",
            "serve",
            "--port",
            "0",
            "--threads",
            "1",
            "--tuning",
            "off",
            *UNLIMITED,
            *flags,
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        try:
            self.url = self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.root = self.url.removesuffix("/v1")
        self.port = int(self.root.rpartition(":")[2])
        self.client = httpx.Client(base_url=self.root, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if error is not None:
            print(self.log)
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """What the server has logged."""
        return self._log.read_text()

    def chat(self, content: str = "What is the capital of France?", **fields: object) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        return self.client.post("/v1/chat/completions", json={"model": MODEL, "messages": messages, **fields})

    def complete(self, prompt: object, **fields: object) -> httpx.Response:
        return self.client.post("/v1/completions", json={"model": MODEL, "prompt": prompt, **fields})

    def active(self) -> int:
        """Sequences that the engine says it evaluates."""
        return int(self.client.get("/health").json()["engine"]["active"])

    def metric(self, name: str) -> float:
        """The value of a metric that has one for each model."""
        prefix = f'inferno_{name}{{model_name="{MODEL}"}} '
        lines = self.client.get("/metrics").text.splitlines()
        (value,) = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
        return float(value)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def engine_pid(self) -> int:
        """The process id of the engine."""
        (engine,) = children(self.pid, "inferno_runtime.worker")
        return engine

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = 60) -> int:
        """The exit status, once the process has ended."""
        return self._process.wait(seconds)

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _wait_until_ready(self) -> str:
        try:
            line = self._lines.get(timeout=_START_SECONDS)
        except queue.Empty:
            raise TimeoutError(f"the server was not ready after {_START_SECONDS:g} s") from None
        match = _READY.match(line) if line is not None else None
        if match is None:
            raise RuntimeError(f"the server said {line!r} instead of its address:\n{self.log}")
        return match[1]


def eventually(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until `true()`."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


def children(pid: int, module: str) -> list[int]:
    """The processes that this one has started to run a module."""
    started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child) for child in started if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    ]


def is_alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
