"""What the engine asks of whatever evaluates a model.

A *slot* is the memory of one sequence: `Backend.context` cells, one per token. The engine numbers slots densely from 0,
keeps account of what each holds, and never asks which backend it has: what the memory can do stands in `MemoryTraits`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from inferno_runtime.config import Task
from inferno_runtime.models.adapters import AdapterFile as AdapterFile  # for those who load models
from inferno_runtime.models.errors import ModelError as ModelError  # for those who load models

if TYPE_CHECKING:  # the server's process uses these types too, and would pay for numpy's 20 MB
    import numpy as np
    from numpy.typing import NDArray


class BackendError(Exception):
    """An evaluation failed. The spans' slots hold an unknown number of cells past `Span.start` and must be cut."""


class OutOfMemory(BackendError):
    """There was no room for the batch; nothing was evaluated and no cell has changed."""


@dataclass(frozen=True, slots=True)
class MemoryTraits:
    """What a backend's sequence memory can do."""

    copy: bool  # the cells of one slot to another
    cut: bool  # the cells from some position on, removed
    save: bool  # the cells of a slot to bytes, and back
    shift: bool  # positions moved, so that the middle can be removed
    shared: bool = False  # slots draw on one pool, and a copy only refers to the cells that are there
    cell_bytes: int = 0  # what a cell takes, for weighing a copy against a computation


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model turned out to be."""

    format: str
    architecture: str
    quantization: str
    parameters: int
    size_bytes: int
    context_train: int  # tokens; 0 when the file does not say
    vocab_size: int
    task: Task = "generate"  # what it was loaded for
    dimensions: int = 0  # of a vector, if it embeds; a score is one number
    vision: bool = False  # whether it was loaded with a projector, and reads images


@dataclass(frozen=True, slots=True)
class Image:
    """An image's pixels, eight bits for each of red, green and blue, row by row from the top left."""

    digest: bytes  # 32 bytes that no other image has
    width: int
    height: int
    path: str  # of a file with nothing but the pixels


Layout = list[list[int] | int]
"""What stands for an image in a prompt: tokens, and between them chunks, each with the number of its cells."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What an encoded chunk of an image puts in the place of tokens."""

    rows: "NDArray[np.float32]"  # (cells, as wide as the backend wants it)
    positions: int  # that the chunk takes, which may be fewer than its cells
    grid: "NDArray[np.int32] | None" = None  # (4, cells): where each stands, from the chunk's first position on
    whole: bool = False  # the chunk attends to all of itself, so it must lie in one batch


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one sequence, to be evaluated into cells `start`, `start` + 1, … of its slot.

    All spans of a batch have one adapter, and so have all cells of a slot. A span with `embeddings` is alone in its batch.
    """

    slot: int
    start: int
    tokens: Sequence[int]
    logits: int  # after how many of the last tokens the logits are wanted; 0 for none
    adapter: int = 0  # the place among those loaded, from 1 on; 0 is the model itself
    steady: bool = (
        False  # whether the logits must be the same to the last bit whatever else is in the batch, if they can be
    )
    embeddings: Embeddings | None = None  # that are evaluated in place of the tokens, which only stand for them
    offset: int = 0  # rows of the embeddings that were evaluated before


class Setting(Protocol):
    """What the hardware may prefer one way or another."""

    @property
    def flash_attention(self) -> bool:
        """Whether attention is evaluated by the fused kernel."""

    @property
    def threads(self) -> int:
        """Threads that evaluate the model."""

    @property
    def micro_batch(self) -> int:
        """Most tokens in one pass over the weights."""


# The cells of a slot, as bytes.
Saved = bytes | memoryview
# Measures a setting for so many seconds: tokens a second of decoding alone, in company, and of prefill.
Measure = Callable[[Setting, float], tuple[float, float, float] | None]
# Makes ready to measure, beginning with a setting.
Measurer = Callable[[Setting], AbstractContextManager[Measure]]
# Chooses a setting for a loaded model; the facts of the library belong to what is remembered.
Tuner = Callable[[Measurer, dict[str, Any]], Setting]


class Vision(Protocol):
    """Encodes images for a model. Not thread-safe: one thread calls it."""

    on_progress: Callable[[], None]  # called now and then while one is encoded, which may take long

    def layout(self, width: int, height: int) -> Layout:
        """What stands for an image of this size. Raises `BackendError` where none can."""

    def encode(self, image: Image, chunk: int) -> Embeddings:
        """A chunk of an image, by its number. Raises `BackendError`."""


class Backend(Protocol):
    """Evaluates batches of tokens. Not thread-safe: one thread calls it."""

    info: ModelInfo
    description: str  # of the library and the devices in use, for the log
    memory: MemoryTraits
    slots: int
    context: int  # most cells of one slot
    cells: int  # of all slots together; less than slots * context where they share a pool
    max_batch: int  # most tokens in one call of evaluate
    max_logits: int  # most rows of logits that one call gives
    threads: int  # that evaluate; 0 where it is not ours to say
    settings: dict[str, Any]  # what it evaluates with besides what a tuner chose, for people

    @property
    def vision(self) -> Vision | None:
        """What encodes images; None of a model that reads text only."""

    def evaluate(self, spans: Sequence[Span]) -> "NDArray[np.float32]":
        """Evaluate `spans` in one batch.

        Returns the logits that the spans want, in order: shape (wanted, vocab_size). The array may be a view
        of the backend's own memory, valid until the next call; the caller may write to it.

        Raises `OutOfMemory` or `BackendError`.
        """

    def columns(self, slots: Sequence[int]) -> int:
        """How many sequences side by side a token for each of these slots costs as much as.

        More than there are where holes between them are computed, or the weights passed over again. slots: ascending.
        """

    def clear(self, slot: int) -> None:
        """Forget every cell of the slot."""

    def cut(self, slot: int, length: int) -> None:
        """Keep only the first `length` cells of the slot; only where `MemoryTraits.cut` says so."""

    def copy(self, source: int, target: int) -> bool:
        """Give `target` what `source` holds, in place of what it held. False if there was no room."""

    def save(self, slot: int) -> Saved | None:
        """The cells of a slot, to be restored in this process; None if they cannot be had now."""

    def restore(self, slot: int, data: Saved) -> bool:
        """Give a slot cells that were saved, in place of what it held. False if there was no room."""

    def set_threads(self, count: int) -> None:
        """Evaluate with so many threads from the next call on."""

    def close(self) -> None:
        """Free the model and its memory; the backend is not used afterwards."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts as one input of a model that scores them."""

    tokens: list[int]
    second: int  # where the model is told that the second begins; behind the last token if it is not told


class Encoder(Protocol):
    """Turns sequences of tokens into vectors, or into scores. Not thread-safe: one thread calls it."""

    info: ModelInfo
    description: str  # of the library and the devices in use, for the log
    context: int  # most tokens of one sequence
    max_batch: int  # most tokens in one call of encode, unless it has one sequence alone
    max_sequences: int  # in one call of encode
    threads: int  # that evaluate; 0 where it is not ours to say
    settings: dict[str, Any]  # what it evaluates with, for people

    def encode(self, sequences: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> "NDArray[np.float32]":
        """The vector of each sequence, of any length: shape (sequences, info.dimensions); the caller may keep it.

        A score is a logit: its logistic function is the probability that the second text answers the first.

        sequences: of 1 to `context` tokens each; none sees another. seconds: where they are pairs, `Pair.second` of each.
        Raises `OutOfMemory` or `BackendError`.
        """

    def set_threads(self, count: int) -> None:
        """Evaluate with so many threads from the next call on."""

    def close(self) -> None:
        """Free the model and its memory; the encoder is not used afterwards."""


class Tokenizer(Protocol):
    """A model's vocabulary. Safe to call from several threads."""

    @property
    def task(self) -> Task:
        """What the file says that the model was made for."""

    @property
    def context_train(self) -> int:
        """Tokens that the model was trained for; 0 when the file does not say."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """The text of each token; empty for control tokens."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a generation."""

    @property
    def controls(self) -> Mapping[int, str]:
        """The control tokens and their spellings."""

    @property
    def control_spellings(self) -> frozenset[str]:
        """The spellings that `encode` turns into control tokens when `parse_special` is set."""

    @property
    def infill(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, before a suffix and before what is to stand between; None of a model without them."""

    @property
    def bos(self) -> str:
        """The spelling of the token that begins a text; empty without one."""

    @property
    def eos(self) -> str:
        """The spelling of the token that ends a text; empty without one."""

    @property
    def chat_template(self) -> str | None:
        """The model's own jinja template."""

    def spelling(self, token: int) -> str:
        """How a token is written, also one without text; empty for a number that no token has."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The tokens of `text`.

        add_special: put the tokens around it that the model wants at a prompt's beginning (and end).
        parse_special: read the spelling of a control token as that token and not as text.
        """

    def encode_pair(self, query: str, document: str) -> Pair:
        """Both as a model that reranks wants them. No spelling in them is read as a control token."""
