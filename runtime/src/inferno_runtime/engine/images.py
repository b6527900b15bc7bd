"""Images in a prompt: the ids that stand for their cells, and what was encoded of them.

Wherever tokens are compared (prefixes, slots, the store) an image is a row of numbers that follow from its digest and that
no token has. So what was evaluated of an image is found again like any other prefix, and by no other image.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from inferno_runtime.backends.base import Embeddings, Image, Layout, Vision

_WORD = 4  # bytes of a digest that an id is made of: it must fit into 32 bits with its sign
_WORDS = 32 // _WORD
_LIMIT = 256 << 20  # bytes of embeddings that are kept for whoever may send the same image again


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A part of an image, and which cells of a prompt it takes."""

    image: Image
    number: int  # among the image's chunks
    start: int
    cells: int

    @property
    def end(self) -> int:
        """The first cell behind it."""
        return self.start + self.cells


def place(image: Image, layout: Layout, start: int) -> tuple[list[int], list[Chunk]]:
    """The tokens and ids that stand for an image in a prompt from a cell on, and where its chunks are."""
    tokens: list[int] = []
    chunks: list[Chunk] = []
    for part in layout:
        if isinstance(part, list):
            tokens += part
            continue
        chunks.append(Chunk(image, len(chunks), start + len(tokens), part))
        tokens += ids(image.digest, len(chunks) - 1, part)
    return tokens, chunks


def ids(digest: bytes, chunk: int, cells: int) -> list[int]:
    """Numbers below 0 that stand for a chunk's cells; any eight of them tell the image from all others."""
    words = [int.from_bytes(digest[at : at + _WORD], "little") for at in range(0, _WORDS * _WORD, _WORD)]
    row = [-1 - ((word + chunk) & 0x7FFF_FFFF) for word in words]
    return (row * -(-cells // _WORDS))[:cells]


def settled(length: int, chunks: Sequence[Chunk]) -> int:
    """How many of so many cells do not end in the middle of a chunk: one is used whole, or not at all."""
    return next((chunk.start for chunk in chunks if chunk.start < length < chunk.end), length)


class Gallery:
    """Encodes images, and keeps what was encoded last under a byte limit."""

    def __init__(self, vision: Vision | None, limit: int = _LIMIT) -> None:
        self._vision = vision
        self._limit = limit
        self._kept: OrderedDict[tuple[bytes, int], Embeddings] = OrderedDict()  # least recently used first
        self._used = 0  # bytes

    def find(self, chunk: Chunk) -> Embeddings | None:
        """What was encoded of a chunk, if it is still here."""
        key = (chunk.image.digest, chunk.number)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def encode(self, chunk: Chunk) -> Embeddings:
        """Encode a chunk. Raises `BackendError`."""
        assert self._vision is not None
        embeddings = self._vision.encode(chunk.image, chunk.number)
        self._kept[chunk.image.digest, chunk.number] = embeddings
        self._used += embeddings.rows.nbytes
        while self._used > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._used -= dropped.rows.nbytes
        return embeddings


def piece(start: int, most: int, chunks: Sequence[Chunk]) -> tuple[Chunk | None, int]:
    """What the cells from `start` on are a piece of: a chunk, or None for text; and how many of `most` belong to it."""
    for chunk in chunks:
        if start < chunk.start:
            return None, min(most, chunk.start - start)
        if start < chunk.end:
            return chunk, min(most, chunk.end - start)
    return None, most
