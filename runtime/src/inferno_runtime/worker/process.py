"""An engine's process: started, spoken to, and ended."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from typing import ClassVar

from inferno_runtime.worker.frames import FromEngine, Reader, ToEngine, encode, from_engine

_CHUNK = 1 << 20  # bytes read at a time


class EngineProcess:
    """A running engine and the socket to it."""

    module: ClassVar[str] = "inferno_runtime.worker"  # what it runs; given the number of its socket

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._frames: Reader[FromEngine] = Reader(from_engine)

    @classmethod
    async def spawn(cls) -> "EngineProcess":
        """Start a process that waits for its `Load` frame."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                cls.module,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def send(self, frame: ToEngine) -> None:
        """Send a frame; one that the process no longer reads is lost, and `frames` ends."""
        self._writer.write(encode(frame))

    async def frames(self) -> AsyncIterator[list[FromEngine]]:
        """What the engine sends, as many frames at a time as have come, until its end."""
        while True:
            try:
                data = await self._reader.read(_CHUNK)
            except ConnectionError:
                return
            if not data:
                return
            yield list(self._frames.feed(data))

    async def kill(self) -> str:
        """End the process, if it has not ended, and say how it did."""
        self._writer.close()  # the engine ends at the socket's end
        if self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), timeout=2.0)
            except TimeoutError:
                self._process.kill()
        code = await self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def kill_now(self) -> None:
        """End a process that does not answer."""
        if self._process.returncode is None:
            self._process.kill()
