"""Grammars on their way to an engine: each is compiled first in a process of its own, within bounds of time and memory."""

import asyncio
import hashlib
import logging
import signal
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

import msgspec

from inferno_runtime.engine.constraint import MAX_BYTES, Constraint
from inferno_runtime.worker.errors import GrammarRefused, ServerEnding
from inferno_runtime.worker.helper import Helper, HelperClosed, HelperDied

logger = logging.getLogger(__name__)

SECONDS = 3.0  # of CPU time that a grammar may take; large schemas of those in use take some 100 ms
_REMEMBERED = 1024  # grammars whose fate is known


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
    """A frame's payload."""
    return _encoder.encode(frame)


class GrammarChecker:
    """Says which grammars compile. Its process is started by the first one that it does not know."""

    module: ClassVar[str] = "inferno_runtime.worker.compiler"  # what the process runs

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        """vocabulary: the model's, asked for when the process starts."""
        self._helper = Helper(self.module, lambda: written(vocabulary()))
        self._known: OrderedDict[bytes, str | None] = OrderedDict()  # what is wrong, by the grammar's digest
        self._turn = asyncio.Lock()

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
        await self._helper.close()

    def _remember(self, digest: bytes, error: str | None) -> None:
        self._known[digest] = error
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def _compile(self, lark: str) -> str | None:
        try:
            return _from_compiler.decode(await self._helper.ask(written(Grammar(lark)))).error
        except HelperClosed:
            raise ServerEnding from None
        except HelperDied as died:
            if died.code == -signal.SIGPROF:
                return f"it takes more than {SECONDS:g} seconds to compile"
            logger.warning("the process that compiles grammars ended (exit code %d)", died.code)
            return "it takes more memory to compile than it may"
