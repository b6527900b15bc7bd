"""A GGUF model on libllama: a memory stream per sequence, batches built in place.

Only the library's low-level functions are used; its high-level class serves one sequence at a time.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, MemoryTraits, ModelError, OutOfMemory, Span
from inferno_runtime.backends.llama_cpp.library import load
from inferno_runtime.backends.llama_cpp.model import explain, model_info, open_model
from inferno_runtime.config import EngineConfig
from inferno_runtime.cpu import cpu_quota

_DEFAULT_CONTEXT = 8192  # tokens; a model's own limit may be a million, and every slot's memory is taken up front
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}  # llama_flash_attn_type


class LlamaBackend:
    """`Backend` over libllama."""

    def __init__(self, path: Path, config: EngineConfig) -> None:
        """Load the model and take the memory of all slots. Raises `ModelError`."""
        self._library = load()
        api = self._api = self._library.api
        self._model = open_model(self._library, path, vocabulary_only=False, gpu_layers=config.gpu_layers)
        self.info = model_info(self._library, self._model)
        if not api.llama_model_has_decoder(self._model):
            raise ModelError(f"{path}: {self.info.architecture} models cannot generate text")
        self.slots = config.slots
        self.context = config.context_length or min(self.info.context_train or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)
        self.max_batch = max(config.micro_batch, config.slots)
        self._context = self._create_context(path, config)
        self._memory = api.llama_get_memory(self._context)
        recurrent = api.llama_model_is_recurrent(self._model) or api.llama_model_is_hybrid(self._model)
        sliding = api.llama_model_n_swa(self._model) > 0
        whole = not recurrent and not sliding
        self.memory = MemoryTraits(
            copy=True, cut=whole, save=True, shift=whole and bool(api.llama_memory_can_shift(self._memory))
        )
        self.description = f"libllama, CPU kernels: {self._library.cpu_variant}, {self._threads} threads"
        self._batch = _Batch(api, self.max_batch)

    def evaluate(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        wanted = self._batch.fill(spans)
        status = self._api.llama_decode(self._context, self._batch.struct)
        if status == 1:
            raise OutOfMemory("no room in the KV cache")
        if status != 0:
            raise BackendError(f"libllama: status {status}: {explain(self._library.recent_errors)}")
        if not wanted:
            return np.empty((0, self.info.vocab_size), dtype=np.float32)
        pointer = self._api.llama_get_logits(self._context)  # waits for the computation
        return np.ctypeslib.as_array(pointer, shape=(wanted, self.info.vocab_size))

    def clear(self, slot: int) -> None:
        self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def cut(self, slot: int, length: int) -> None:
        if not self._api.llama_memory_seq_rm(self._memory, slot, length, -1):
            raise BackendError(f"slot {slot} cannot be cut to {length} cells")

    def close(self) -> None:
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def _create_context(self, path: Path, config: EngineConfig) -> object:
        api = self._api
        params = api.llama_context_default_params()
        cells = -(-self.context // 256) * 256  # libllama rounds a stream's cells up to this
        params.n_ctx = cells * self.slots
        params.n_batch = self.max_batch
        params.n_ubatch = min(config.micro_batch, self.max_batch)
        params.n_seq_max = self.slots
        params.n_outputs_max = self.slots  # one row of logits per sequence, and not per token of a prompt
        params.kv_unified = False
        self._threads = config.threads or cpu_quota()
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn_type = _FLASH_ATTENTION[config.flash_attention]
        params.type_k = params.type_v = getattr(api, f"GGML_TYPE_{config.kv_cache_type.upper()}")
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


class _Batch:
    """A `llama_batch` over arrays of our own, filled without a Python object per token."""

    def __init__(self, api: object, capacity: int) -> None:
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._counts = np.ones(capacity, dtype=np.int32)  # every token belongs to one sequence
        self._slots = np.zeros(capacity, dtype=np.int32)
        self._slot_pointers = self._slots.ctypes.data + 4 * np.arange(capacity, dtype=np.uintp)
        self._wanted = np.zeros(capacity, dtype=np.int8)
        self.struct = api.llama_batch()  # type: ignore[attr-defined]
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._slot_pointers),
            ("logits", self._wanted),
        ):
            kind = dict(self.struct._fields_)[name]
            setattr(self.struct, name, array.ctypes.data_as(kind))

    def fill(self, spans: Sequence[Span]) -> int:
        """Lay the spans out; returns how many rows of logits they want."""
        at = wanted = 0
        for span in spans:
            end = at + len(span.tokens)
            self._tokens[at:end] = span.tokens
            self._positions[at:end] = range(span.start, span.start + len(span.tokens))
            self._slots[at:end] = span.slot
            self._wanted[at:end] = 0
            if span.logits:
                self._wanted[end - 1] = 1
                wanted += 1
            at = end
        self.struct.n_tokens = at
        return wanted
