"""Grammars on their way to an engine: each is compiled first in a process of its own, within bounds of time and memory."""

import asyncio
import hashlib
import logging
import signal
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import BinaryIO, ClassVar

import msgspec

from inferno_runtime.engine.constraint import MAX_BYTES, Constraint
from inferno_runtime.worker.errors import GrammarRefused, ServerEnding

logger = logging.getLogger(__name__)

SECONDS = 3.0  # of CPU time that a grammar may take; large schemas of those in use take some 100 ms
_REMEMBERED = 1024  # grammars whose fate is known
_HEADER = struct.Struct("<I")


class Vocabulary(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A model's tokens, as grammars see them."""

    tokens: list[bytes]
    end_tokens: list[int]


class Grammar(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A grammar to compile."""

    lark: str


class Checked(msgspec.Struct, frozen=True, array_like=True):
    """What came of it: what is wrong with it, if anything is."""

    error: str | None


from_server = msgspec.msgpack.Decoder(Vocabulary | Grammar)
_from_compiler = msgspec.msgpack.Decoder(Checked)
_encoder = msgspec.msgpack.Encoder()


def written(frame: Vocabulary | Grammar | Checked) -> bytes:
    """A frame as it goes over a pipe."""
    payload = _encoder.encode(frame)
    return _HEADER.pack(len(payload)) + payload


def read(source: BinaryIO) -> bytes | None:
    """The payload of the next frame; None at the end."""
    header = source.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack(header)
    payload = source.read(length)
    return payload if len(payload) == length else None


class GrammarChecker:
    """Says which grammars compile. Its process is started by the first one that it does not know."""

    module: ClassVar[str] = "inferno_runtime.worker.compiler"  # what the process runs

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        """vocabulary: the model's, asked for when the process starts."""
        self._vocabulary = vocabulary
        self._known: OrderedDict[bytes, str | None] = OrderedDict()  # what is wrong, by the grammar's digest
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._stopped = False

    async def check(self, constraint: Constraint) -> None:
        """See whether a grammar compiles; several take turns. Raises `GrammarRefused`, or `ServerEnding`."""
        data = constraint.lark.encode()
        if len(data) > MAX_BYTES:
            raise GrammarRefused(f"it has {len(data)} bytes, and may have {MAX_BYTES}")
        digest = hashlib.sha256(data).digest()
        if digest not in self._known:
            async with self._turn:
                if digest not in self._known:
                    self._remember(digest, await self._compile(constraint.lark))
        self._known.move_to_end(digest)
        if (error := self._known[digest]) is not None:
            raise GrammarRefused(error)

    async def stop(self) -> None:
        """End the process, and take no more grammars."""
        self._stopped = True
        await self._kill()

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _remember(self, digest: bytes, error: str | None) -> None:
        self._known[digest] = error
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def _compile(self, lark: str) -> str | None:
        if self._stopped:
            raise ServerEnding
        try:
            process = self._process or await self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(written(Grammar(lark)))
            (length,) = _HEADER.unpack(await process.stdout.readexactly(_HEADER.size))
            return _from_compiler.decode(await process.stdout.readexactly(length)).error
        except (asyncio.IncompleteReadError, ConnectionError):
            if self._stopped:
                raise ServerEnding from None
            return await self._end()
        except asyncio.CancelledError:  # its answer must not be taken for another's
            await self._kill()
            raise

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(written(self._vocabulary()))
        return process

    async def _end(self) -> str:
        """Why the process has ended, as a fault of the grammar's."""
        process, self._process = self._process, None
        assert process is not None
        code = await process.wait()
        if code == -signal.SIGPROF:
            return f"it takes more than {SECONDS:g} seconds to compile"
        logger.warning("the process that compiles grammars ended (exit code %d)", code)
        return "it takes more memory to compile than it may"
