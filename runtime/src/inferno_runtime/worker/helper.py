"""A process beside the server's for what may take too much or crash: it answers one question after another, or dies of one."""

import asyncio
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

HEADER = struct.Struct("<I")


class HelperDied(Exception):
    """The process ended over a question; `code` is its exit status, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class HelperClosed(Exception):
    """There are no more answers: the server ends."""


def framed(payload: bytes) -> bytes:
    """A payload as it goes over a pipe."""
    return HEADER.pack(len(payload)) + payload


def read_frame(source: BinaryIO) -> bytes | None:
    """The payload of the next frame; None at the end."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    payload = source.read(length)
    return payload if len(payload) == length else None


def limit_memory(more: int) -> None:
    """Bound what this process may take, to so many bytes beside what it has now."""
    with open("/proc/self/statm", "rb") as file:
        limit = more + int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """End this process, by SIGPROF, if what follows takes longer.

    CPU time and not the clock's: what a question takes must not depend on who else uses the machine. And a signal, since
    nothing else ends what a library is doing.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class Helper:
    """Runs a module as a process, started by the first question that there is none for."""

    def __init__(self, module: str, greeting: Callable[[], bytes] | None = None) -> None:
        """module: reads questions from its standard input; greeting: a payload that comes before the first of them."""
        self._module = module
        self._greeting = greeting
        self._process: asyncio.subprocess.Process | None = None
        self._closed = False

    async def ask(self, question: bytes) -> bytes:
        """The answer to a question; one is asked at a time. Raises `HelperDied`, or `HelperClosed`."""
        if self._closed:
            raise HelperClosed
        try:
            process = self._process or await self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(framed(question))
            (length,) = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
            return await process.stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            if self._closed:
                raise HelperClosed from None
            raise HelperDied(await self._end()) from None
        except asyncio.CancelledError:  # its answer must not be taken for another's
            await self._kill()
            raise

    async def close(self) -> None:
        """End the process, and start no other."""
        self._closed = True
        await self._kill()

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        if self._greeting is not None:
            process.stdin.write(framed(self._greeting()))
        return process

    async def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        return await process.wait()
