"""A GGUF model on libllama: a memory stream per sequence, batches built in place.

Only the library's low-level functions are used; its high-level class serves one sequence at a time.
"""

import ctypes
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import (
    AdapterFile,
    BackendError,
    Embeddings,
    Measure,
    MemoryTraits,
    ModelError,
    OutOfMemory,
    Saved,
    Setting,
    Span,
    Tuner,
)
from inferno_runtime.backends.llama_cpp.adapters import Adapters
from inferno_runtime.backends.llama_cpp.batch import TILE, Batch, EmbeddingBatch, columns, padding
from inferno_runtime.backends.llama_cpp.library import load
from inferno_runtime.backends.llama_cpp.model import explain, is_encoder, model_info, open_model
from inferno_runtime.backends.llama_cpp.positions import Positions
from inferno_runtime.backends.llama_cpp.threads import ThreadPool
from inferno_runtime.backends.llama_cpp.tune import Bench, library_facts
from inferno_runtime.backends.llama_cpp.vision import LlamaVision
from inferno_runtime.config import EngineConfig
from inferno_runtime.cpu import cpu_quota

_DEFAULT_CONTEXT = 8192  # tokens; a model's own limit may be a million, and every slot's memory is taken up front
_DEFAULT_MICRO_BATCH = 512  # tokens
_FEW_CELLS = 256  # next to nothing to attend to
_SPARE_LOGITS = 32  # rows beside one for each slot, for drafts
_FLOATS = frozenset({"all F32", "F16", "BF16"})  # weights whose products are not added up as integers
_NOTHING = memoryview(bytearray())
_SCRATCH = 32 << 20  # bytes that are kept for the next copy: memory that is new is several times as slow as a copy
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}  # llama_flash_attn_type


class LlamaBackend:
    """`Backend` over libllama."""

    def __init__(
        self,
        path: Path,
        config: EngineConfig,
        tuner: Tuner | None = None,
        adapters: Sequence[AdapterFile] = (),
        projector: Path | None = None,
    ) -> None:
        """Load the model with its adapters and its projector, and take the memory of all slots. Raises `ModelError`."""
        self._library = load()
        api = self._api = self._library.api
        self._model = open_model(self._library, path, vocabulary_only=False, gpu_layers=config.gpu_layers)
        self.info = model_info(self._library, self._model)
        if is_encoder(self._library, self._model):
            raise ModelError(f"{path}: {self.info.architecture} models can embed, but not generate text")
        self._floats = self.info.quantization in _FLOATS
        self._adapters = Adapters(self._library, self._model, adapters)
        self.slots = config.slots
        self.context = config.context_length or min(self.info.context_train or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)
        self._unified = config.kv_layout == "unified"
        self.cells = self.context if self._unified else self.context * self.slots
        setting = tuner(lambda first: self._bench(first, config), library_facts(self._library)) if tuner else None
        self.threads = setting.threads if setting else config.threads or cpu_quota()
        micro_batch = setting.micro_batch if setting else config.micro_batch or _DEFAULT_MICRO_BATCH
        self.vision = None
        if projector is not None:
            gpu = config.gpu_layers != 0
            self.vision = LlamaVision(self._library, self._model, projector, threads=self.threads, gpu=gpu)
            self.info = replace(self.info, vision=True)
            micro_batch = max(micro_batch, self.vision.whole_cells)
        self.max_batch = max(micro_batch, self.slots)
        self.max_logits = min(self.slots + _SPARE_LOGITS, self.max_batch)
        flash_attention = int(setting.flash_attention) if setting else _FLASH_ATTENTION[config.flash_attention]
        self._context = self._create_context(path, config.kv_cache_type, micro_batch, flash_attention)
        self._thread_pool = ThreadPool(api, max(self.threads, cpu_quota()))
        self._thread_pool.attach(self._context)
        self._memory = api.llama_get_memory(self._context)
        self.memory = self._memory_traits()
        self.description = f"libllama, CPU kernels: {self._library.cpu_variant}, {self.threads} threads"
        self.settings: dict[str, Any] = {"kernels": self._library.cpu_variant}
        self._batch = Batch(api, self.max_batch)
        self._positions = Positions(self.slots)
        self._embedding_batch = EmbeddingBatch(api, self.max_batch) if self.vision else None
        self._copied: tuple[int, Saved] | None = None  # the slot that was last copied, while nothing has changed it
        self._scratch = _NOTHING

    def evaluate(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        self._copied = None
        self._adapters.use(self._context, spans[0].adapter)
        if spans[0].embeddings is not None:
            (span,) = spans
            return self._decode_embeddings(span, spans[0].embeddings)
        pads = self._padding(spans)
        if not pads:
            return self._decode(spans)
        try:
            logits = self._decode(sorted((*spans, *pads), key=_by_slot))
        finally:
            for pad in pads:
                self._remove(pad.slot, pad.start)
        return _without(logits, [pad.slot for pad in pads], [span.slot for span in spans])

    def _padding(self, spans: Sequence[Span]) -> list[Span]:
        """Tokens to add to those of running sequences, since the batch is faster with them, or its sums do not change."""
        steady = self._floats and any(span.steady for span in spans)
        if (len(spans) < 2 and not steady) or self._unified or not self.memory.cut:
            return []
        slots = [span.slot for span in spans]
        if slots != sorted(set(slots)) or any(len(span.tokens) != 1 or not span.logits for span in spans):
            return []
        near = range(min(self.slots, slots[-1] + TILE))
        ends = [self._end(slot) for slot in near]
        usable = [end < self.context for end in ends]
        deepest = max(_FEW_CELLS, *(span.start for span in spans))
        shallow = [end <= deepest for end in ends]
        return [Span(slot, ends[slot], [0], logits=1) for slot in padding(slots, usable, shallow, steady=steady)]

    def _decode(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        firsts = [self._positions.of(span.slot, span.start) for span in spans]
        return self._logits(self._batch.struct, self._batch.fill(spans, firsts))

    def _decode_embeddings(self, span: Span, embeddings: Embeddings) -> NDArray[np.float32]:
        assert self._embedding_batch is not None
        begin = span.start - span.offset
        wanted = self._embedding_batch.fill(span, embeddings, self._positions.of(span.slot, begin))
        if embeddings.whole:
            self._api.llama_set_causal_attn(self._context, False)
        try:
            logits = self._logits(self._embedding_batch.struct, wanted)
        finally:
            if embeddings.whole:
                self._api.llama_set_causal_attn(self._context, True)
        cells = len(embeddings.rows)
        if span.offset + len(span.tokens) == cells:
            self._positions.add(span.slot, begin + cells, cells - embeddings.positions)
        return logits

    def _logits(self, batch: Any, wanted: int) -> NDArray[np.float32]:
        """Evaluate a `llama_batch` that wants so many rows."""
        status = self._api.llama_decode(self._context, batch)
        if status == 1:
            raise OutOfMemory("no room in the KV cache")
        if status != 0:
            raise BackendError(f"libllama: status {status}: {explain(self._library.recent_errors)}")
        if not wanted:
            return np.empty((0, self.info.vocab_size), dtype=np.float32)
        pointer = self._api.llama_get_logits(self._context)  # waits for the computation
        return np.ctypeslib.as_array(pointer, shape=(wanted, self.info.vocab_size))

    def columns(self, slots: Sequence[int]) -> int:
        return len(slots) if self._unified else columns(slots, self.slots)

    def clear(self, slot: int) -> None:
        self._copied = None
        self._positions.cut(slot, 0)
        self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def cut(self, slot: int, length: int) -> None:
        self._copied = None
        self._positions.cut(slot, length)
        if not self._remove(slot, length):
            raise BackendError(f"slot {slot} cannot be cut to {length} cells")

    def copy(self, source: int, target: int) -> bool:
        if self._unified:
            self.clear(target)
            self._api.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._positions.copy(source, target)
            return True
        # libllama's own copy between streams moves their whole capacity, and not before the next evaluation; this moves
        # what is used, now. Followers of one leader come one after another, and it is saved for all of them at once.
        if self._copied is None or self._copied[0] != source:
            self._copied = None  # it may lie in the same place
            data = self._save(source, self._scratch)
            if data is None:
                return False
            self._copied = (source, data)
            if len(self._scratch) < len(data) <= _SCRATCH:
                self._scratch = data
        copied = self._copied
        done = self.restore(target, copied[1])
        self._copied = copied
        return done

    def save(self, slot: int) -> Saved | None:
        return self._save(slot, _NOTHING)

    def _save(self, slot: int, place: memoryview) -> memoryview | None:
        """Save a slot's cells, in this place if there is room."""
        size = self._api.llama_state_seq_get_size_ext(self._context, slot, 0)
        if not size:
            return None
        positions = self._positions.saved(slot)
        length = size + len(positions)
        # Not zeroed before, nor copied afterwards: it is megabytes.
        data = place if len(place) >= length else memoryview(np.empty(length, dtype=np.uint8).data)
        buffer = (ctypes.c_uint8 * size).from_buffer(data)
        written = self._api.llama_state_seq_get_data_ext(self._context, buffer, size, slot, 0)
        data[written : written + len(positions)] = positions
        return data[: written + len(positions)] if written else None

    def restore(self, slot: int, data: Saved) -> bool:
        self.clear(slot)
        size = self._positions.restore(slot, memoryview(data))
        kind = ctypes.c_uint8 * size
        buffer = kind.from_buffer_copy(data) if isinstance(data, bytes) else kind.from_buffer(data)
        if self._api.llama_state_seq_set_data_ext(self._context, buffer, size, slot, 0):
            return True
        self._positions.cut(slot, 0)
        return False

    def set_threads(self, count: int) -> None:
        self._api.llama_set_n_threads(self._context, count, count)
        self.threads = count

    def close(self) -> None:
        if self.vision is not None:
            self.vision.close()
        self._api.llama_free(self._context)
        self._thread_pool.close()
        self._api.llama_model_free(self._model)

    def _end(self, slot: int) -> int:
        """How many cells of a slot are used."""
        position = int(self._api.llama_memory_seq_pos_max(self._memory, slot)) + 1
        return self._positions.cells(slot, position)

    def _remove(self, slot: int, cell: int) -> bool:
        """Remove the cells of a slot from this one on."""
        return bool(self._api.llama_memory_seq_rm(self._memory, slot, self._positions.of(slot, cell), -1))

    def _memory_traits(self) -> MemoryTraits:
        """What this model's memory can do, from what the library says of it."""
        api = self._api
        recurrent = api.llama_model_is_recurrent(self._model) or api.llama_model_is_hybrid(self._model)
        whole = not recurrent and api.llama_model_n_swa(self._model) == 0
        return MemoryTraits(
            copy=True,
            cut=whole,
            save=True,
            shift=whole and bool(api.llama_memory_can_shift(self._memory)),
            shared=self._unified,
            cell_bytes=self._cell_bytes(),
        )

    def _cell_bytes(self) -> int:
        """What a cell takes, measured on one, since architectures lay their caches out in different ways."""
        api = self._api
        batch = Batch(api, 2)
        sizes = []
        for position in (0, 1):
            batch.fill([Span(0, position, [0], logits=0)])
            if api.llama_decode(self._context, batch.struct) != 0:
                return 0
            sizes.append(api.llama_state_seq_get_size_ext(self._context, 0, 0))
        api.llama_memory_seq_rm(self._memory, 0, -1, -1)
        return max(int(sizes[1]) - int(sizes[0]), 0)

    def _bench(self, first: Setting, config: EngineConfig) -> AbstractContextManager[Measure]:
        @contextmanager
        def measuring() -> Iterator[Measure]:
            with Bench(
                self._library,
                self._model,
                first=first,
                slots=self.slots,
                context=self.context,
                kv_cache_type=config.kv_cache_type,
            ) as bench:
                yield bench.measure

        return measuring()

    def _create_context(self, path: Path, kv_cache_type: str, micro_batch: int, flash_attention: int) -> object:
        api = self._api
        params = api.llama_context_default_params()
        rounded = -(-self.context // 256) * 256  # libllama rounds a stream's cells up to this
        params.n_ctx = rounded if self._unified else rounded * self.slots
        params.n_batch = self.max_batch
        params.n_ubatch = micro_batch
        params.n_seq_max = self.slots
        params.n_outputs_max = self.max_logits  # a row per sequence and draft token, and not per token of a prompt
        params.kv_unified = self._unified
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = flash_attention
        params.type_k = params.type_v = getattr(api, f"GGML_TYPE_{kv_cache_type.upper()}")
        params.offload_kqv = True
        params.no_perf = True
        self._library.recent_errors.clear()
        context = api.llama_init_from_model(self._model, params)
        if not context:
            raise ModelError(
                f"{path}: no context of {self.slots} slots with {self.context} tokens each: "
                f"{explain(self._library.recent_errors)}"
            )
        return context


def _by_slot(span: Span) -> int:
    return span.slot


def _without(logits: NDArray[np.float32], pads: list[int], slots: list[int]) -> NDArray[np.float32]:
    """The rows of `slots` alone, moved up to where those of `pads` stood: a copy would be megabytes of fresh memory."""
    row = logits.strides[0]
    before = [bisect_left(slots, pad) for pad in pads] + [len(slots)]  # rows that stand before each of the pads
    for shift, (start, end) in enumerate(pairwise(before), 1):
        if start < end:
            target = logits.ctypes.data + start * row
            ctypes.memmove(target, target + shift * row, (end - start) * row)
    return logits[: len(slots)]
