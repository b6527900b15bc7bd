"""A backend without a model, for tests and for measuring the engine itself.

The next token is a function of the sequence's own tokens and its adapter alone, so a test knows what every sequence must
say however it was scheduled; and every misuse of a slot (a gap, an overwrite, too long a batch, two adapters in one) is an
error.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import (
    BackendError,
    Embeddings,
    Image,
    Layout,
    MemoryTraits,
    ModelInfo,
    OutOfMemory,
    Saved,
    Span,
)
from inferno_runtime.config import Task

_CAPABLE = MemoryTraits(copy=True, cut=True, save=True, shift=False, cell_bytes=4)


def successor(tokens: Sequence[int], vocab_size: int) -> int:
    """The token that the fake model likes best after `tokens`; never 0, which tests take for the end token."""
    return 1 + zlib.crc32(np.asarray(tokens, dtype=np.int32).tobytes()) % (vocab_size - 1)


def cell(token: int, adapter: int, vocab_size: int) -> int:
    """What stands for a token that was evaluated with an adapter: without one the token itself."""
    return token + adapter * vocab_size


class FakeBackend:
    """Keeps the tokens that a real backend would keep the keys and values of."""

    def __init__(
        self,
        *,
        slots: int = 4,
        context: int = 64,
        vocab_size: int = 128,
        max_batch: int = 64,
        memory: MemoryTraits = _CAPABLE,
        cells: int = 0,
        choose: Callable[[Sequence[int], int], int] = successor,
        on_evaluate: Callable[[Sequence[Span]], None] = lambda spans: None,
        vision: "FakeVision | None" = None,
    ) -> None:
        """cells: of all slots together, if they share a pool; choose: the likeliest next token; on_evaluate: called
        first, and may raise or advance a clock."""
        self.info = ModelInfo("fake", "fake", "none", 0, 0, context, vocab_size)
        self.description = "fake"
        self.memory = memory
        self.slots = slots
        self.context = context
        self.max_batch = max_batch
        self.max_logits = slots * 16
        self.threads = 0
        self.settings: dict[str, Any] = {}
        self.cells = cells or slots * context
        self.vision = vision
        self.held: list[list[int]] = [[] for _ in range(slots)]
        self._choose = choose
        self._on_evaluate = on_evaluate
        self._logits = np.zeros((self.max_logits, vocab_size), dtype=np.float32)

    def evaluate(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        self._on_evaluate(spans)
        if (count := sum(len(span.tokens) for span in spans)) > self.max_batch:
            raise BackendError(f"{count} tokens in a batch of at most {self.max_batch}")
        if sum(map(len, self.held)) + count > self.cells:
            raise OutOfMemory("the pool is full")
        if len({span.adapter for span in spans}) > 1:
            raise BackendError("a batch of several adapters")
        wanted = 0
        self._logits[:] = 0
        for span in spans:
            cells = self.held[span.slot]
            if span.start != len(cells):
                raise BackendError(f"slot {span.slot} holds {len(cells)} cells, not {span.start}")
            if span.start + len(span.tokens) > self.context:
                raise BackendError(f"slot {span.slot} is full")
            if cells and cells[0] // self.info.vocab_size != span.adapter:
                raise BackendError(f"slot {span.slot} holds cells of another adapter than {span.adapter}")
            for at, token in enumerate(_content(span, len(spans))):
                cells.append(cell(token, span.adapter, self.info.vocab_size))
                if at >= len(span.tokens) - span.logits:
                    self._logits[wanted, self._choose(cells, self.info.vocab_size)] = 10.0
                    wanted += 1
        return self._logits[:wanted]

    def columns(self, slots: Sequence[int]) -> int:
        return slots[-1] - slots[0] + 1  # as if holes were computed

    def clear(self, slot: int) -> None:
        self.held[slot].clear()

    def cut(self, slot: int, length: int) -> None:
        if not self.memory.cut or length > len(self.held[slot]):
            raise BackendError(f"slot {slot} cannot be cut to {length} cells")
        del self.held[slot][length:]

    def copy(self, source: int, target: int) -> bool:
        if source == target:
            raise BackendError("a slot cannot be copied to itself")
        return self.restore(target, self.save(source))

    def save(self, slot: int) -> Saved:
        return np.asarray(self.held[slot], dtype=np.int32).tobytes()

    def restore(self, slot: int, data: Saved) -> bool:
        self.held[slot] = []
        if sum(map(len, self.held)) + len(data) // 4 > self.cells:
            return False
        self.held[slot] = np.frombuffer(data, dtype=np.int32).tolist()
        return True

    def set_threads(self, count: int) -> None:
        self.threads = count

    def close(self) -> None:
        pass


def _content(span: Span, spans: int) -> Sequence[int]:
    """What a span puts into its cells. Refuses ids of an image without embeddings, and embeddings that are out of place."""
    if span.embeddings is None:
        if min(span.tokens) < 0:
            raise BackendError("a cell of an image without its embeddings")
        return span.tokens
    rows = span.embeddings.rows[span.offset : span.offset + len(span.tokens)]
    if spans > 1 or len(rows) < len(span.tokens) or max(span.tokens) >= 0:
        raise BackendError("embeddings that are not those of the cells, or not alone in their batch")
    if span.embeddings.whole and len(rows) < len(span.embeddings.rows):
        raise BackendError("a part of what must lie in one batch")
    return [int(number) for number in rows[:, 0]]


def seen(digest: bytes, chunk: int, cells: int) -> list[int]:
    """The tokens that the fake model sees in a chunk of an image."""
    return [zlib.crc32(digest + bytes([chunk, cell % 256])) % 100 for cell in range(cells)]


class FakeVision:
    """Sees tokens in images, so that a test knows what a sequence must say that has some."""

    def __init__(
        self, parts: Layout, *, whole: bool = False, on_encode: Callable[[Image, int], None] = lambda image, chunk: None
    ) -> None:
        """parts: of any image; on_encode: called first, and may raise or advance a clock."""
        self.on_progress: Callable[[], None] = lambda: None
        self._parts = parts
        self._whole = whole
        self._on_encode = on_encode

    def layout(self, width: int, height: int) -> Layout:
        return self._parts

    def encode(self, image: Image, chunk: int) -> Embeddings:
        self._on_encode(image, chunk)
        cells = [part for part in self._parts if isinstance(part, int)][chunk]
        rows = np.array(seen(image.digest, chunk, cells), dtype=np.float32)[:, np.newaxis]
        return Embeddings(rows, cells, None, self._whole)


def meaning(tokens: Sequence[int], dimensions: int) -> NDArray[np.float32]:
    """The vector that the fake encoder gives to `tokens`."""
    seed = zlib.crc32(np.asarray(tokens, dtype=np.int32).tobytes())
    return np.random.default_rng(seed).normal(size=dimensions).astype(np.float32)


class FakeEncoder:
    """Gives each sequence a vector that follows from its own tokens alone, and takes no batch that is too large."""

    def __init__(
        self,
        *,
        context: int = 64,
        max_batch: int = 32,
        max_sequences: int = 8,
        dimensions: int = 6,
        task: Task = "embed",
        on_encode: Callable[[Sequence[Sequence[int]]], None] = lambda sequences: None,
    ) -> None:
        """on_encode: called first, and may raise or advance a clock."""
        self.info = ModelInfo("fake", "fake", "none", 0, 0, context, 128, task, dimensions)
        self.description = "fake"
        self.context = context
        self.max_batch = max_batch
        self.max_sequences = max_sequences
        self.threads = 0
        self.settings: dict[str, Any] = {}
        self._on_encode = on_encode

    def encode(self, sequences: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> NDArray[np.float32]:
        self._on_encode(sequences)
        if not sequences or len(sequences) > self.max_sequences:
            raise BackendError(f"{len(sequences)} sequences in a batch of 1 to {self.max_sequences}")
        if not all(1 <= len(tokens) <= self.context for tokens in sequences):
            raise BackendError(f"a sequence of more than {self.context} tokens, or of none")
        if len(sequences) > 1 and (count := sum(map(len, sequences))) > self.max_batch:
            raise BackendError(f"{count} tokens in a batch of at most {self.max_batch}")
        if seconds:  # which are part of what is said, as another token would be
            sequences = [[*tokens, -second] for tokens, second in zip(sequences, seconds, strict=True)]
        return np.stack([meaning(tokens, self.info.dimensions) for tokens in sequences])

    def set_threads(self, count: int) -> None:
        self.threads = count

    def close(self) -> None:
        pass
