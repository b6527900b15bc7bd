"""A GGUF model that turns texts into vectors, or pairs of them into scores, on libllama.

Sequences are packed one behind the other, without padding.
"""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, ModelError, Span
from inferno_runtime.backends.llama_cpp.batch import Batch
from inferno_runtime.backends.llama_cpp.library import load
from inferno_runtime.backends.llama_cpp.model import (
    RANK,
    explain,
    is_causal,
    is_encoder,
    model_info,
    open_model,
    stated_pooling,
)
from inferno_runtime.backends.llama_cpp.threads import ThreadPool
from inferno_runtime.config import EngineConfig, Task
from inferno_runtime.cpu import cpu_quota
from inferno_runtime.memory import memory_available

_DEFAULT_CONTEXT = 8192  # tokens; what an input takes in memory grows with the most that it may have
_MAX_SEQUENCES = 64  # in a batch: libllama keeps a row of logits for each
_LOGITS_BYTES = 64 << 20  # that the rows of a usual batch may take, which libllama keeps though nobody wants them
_LEAST_BATCH, _MOST_BATCH = 64, 256  # tokens; larger ones were measured to be no faster by the token
_POOLINGS = {"mean": 1, "cls": 2, "last": 3}  # llama_pooling_type
_MEAN, _LAST = 1, 3
_PROBABILITIES = ("qwen3", "qwen3vl")  # whose heads end in a softmax over "yes" and "no"
_CERTAIN = 1e-7  # nearest that a 32-bit probability comes to 1, about
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}  # llama_flash_attn_type


class LlamaEncoder:
    """`Encoder` over libllama, for encoders as for decoders whose last hidden states are pooled."""

    def __init__(self, path: Path, config: EngineConfig, task: Task = "embed") -> None:
        """Load the model. Raises `ModelError`."""
        self._path = path
        self._ranks = task == "rerank"
        self._library = load()
        api = self._api = self._library.api
        self._model = open_model(self._library, path, vocabulary_only=False, gpu_layers=config.gpu_layers)
        info = model_info(self._library, self._model)
        dimensions = 1 if self._ranks else api.llama_model_n_embd_out(self._model)
        self.info = replace(info, task=task, dimensions=dimensions)
        if api.llama_model_has_encoder(self._model) and api.llama_model_has_decoder(self._model):
            raise ModelError(f"{path}: {info.architecture} models have an encoder and a decoder and cannot embed here")
        self._encoder = is_encoder(self._library, self._model)
        self._pooling = self._choose_pooling(config)
        self.context = self._choose_context(config)
        fitting = _LOGITS_BYTES // (4 * info.vocab_size)
        self.max_batch = config.micro_batch or max(_LEAST_BATCH, min(fitting, _MOST_BATCH))
        self.max_sequences = min(_MAX_SEQUENCES, self.max_batch)  # libllama ends the process where there may be more
        self.threads = config.threads or cpu_quota()
        # The last token has seen those before it in whatever pieces they came; anything else must come whole.
        in_pieces = is_causal(self._library, self._model) and self._pooling == _LAST
        self._room = self.max_batch if in_pieces else max(self.max_batch, self.context)  # tokens in one pass
        self._check_memory()
        self._context = self._create_context(config)
        self._thread_pool = ThreadPool(api, max(self.threads, cpu_quota()))
        self._thread_pool.attach(self._context)
        self._memory = api.llama_get_memory(self._context)
        self._evaluate = api.llama_encode if self._encoder else api.llama_decode
        self.description = f"libllama, CPU kernels: {self._library.cpu_variant}, {self.threads} threads"
        self.settings: dict[str, Any] = {}
        self._batch = Batch(api, self._room)

    def encode(self, sequences: Sequence[Sequence[int]], seconds: Sequence[int] = ()) -> NDArray[np.float32]:
        # Of `seconds` libllama knows nothing: a model of segments gets the first one's embedding for all tokens.
        if self._memory:
            self._api.llama_memory_clear(self._memory, False)
        for spans in self._pieces(sequences):
            self._batch.fill(spans)
            status = self._evaluate(self._context, self._batch.struct)
            if status != 0:
                raise BackendError(f"libllama: status {status}: {explain(self._library.recent_errors)}")
        vectors = self._vectors(len(sequences))
        return logits(vectors) if self._ranks and self.info.architecture in _PROBABILITIES else vectors

    def set_threads(self, count: int) -> None:
        self._api.llama_set_n_threads(self._context, count, count)
        self.threads = count

    def close(self) -> None:
        self._api.llama_free(self._context)
        self._thread_pool.close()
        self._api.llama_model_free(self._model)

    def _pieces(self, sequences: Sequence[Sequence[int]]) -> Iterator[list[Span]]:
        """The batches that evaluate the sequences: one, unless a single sequence is too long for it."""
        if sum(map(len, sequences)) <= self._room:
            yield [Span(slot, 0, tokens, logits=len(tokens)) for slot, tokens in enumerate(sequences)]
            return
        (tokens,) = sequences
        for start in range(0, len(tokens), self._room):
            piece = tokens[start : start + self._room]
            yield [Span(0, start, piece, logits=len(piece))]

    def _vectors(self, count: int) -> NDArray[np.float32]:
        vectors = np.empty((count, self.info.dimensions), dtype=np.float32)
        address, row = vectors.ctypes.data, vectors.strides[0]
        for slot in range(count):
            pointer = self._api.llama_get_embeddings_seq(self._context, slot)  # waits for the computation
            if not pointer:
                raise BackendError("libllama gave no vector")
            ctypes.memmove(address + slot * row, pointer, row)
        return vectors

    def _choose_pooling(self, config: EngineConfig) -> int:
        if self._ranks:
            self._check_head()
            return RANK
        if config.pooling is not None:
            return _POOLINGS[config.pooling]
        stated = stated_pooling(self._library, self._model)
        if stated == RANK:
            raise ModelError(
                f"{self._path}: a reranker, which gives scores and no vectors: serve it with task: rerank; "
                "with engine.pooling (mean, cls or last) it embeds all the same"
            )
        if stated in _POOLINGS.values():
            return stated
        return _MEAN if self._encoder else _LAST

    def _check_head(self) -> None:
        if stated_pooling(self._library, self._model) != RANK:
            raise ModelError(f"{self._path}: not a reranker: the file names no pooling of that kind")
        labels = self._api.llama_model_n_cls_out(self._model)
        if labels != 1 and self.info.architecture not in _PROBABILITIES:
            raise ModelError(f"{self._path}: a classifier of {labels} labels; a reranker has one")

    def _choose_context(self, config: EngineConfig) -> int:
        trained = self.info.context_train
        asked = config.context_length
        if asked and trained and asked > trained:
            # Positions are often learnt one by one, and libllama ends the process at one that is not there.
            raise ModelError(f"{self._path}: contextLength is {asked}, and the model has only {trained} positions")
        return asked or min(trained or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)

    def _check_memory(self) -> None:
        """Refuse a window that there is no memory for: libllama takes it only when an input of that length comes."""
        needed = 4 * self.info.vocab_size * self._room
        left = memory_available()
        if needed > left:
            raise ModelError(
                f"{self._path}: an input of {self._room} tokens takes {needed >> 20} MiB beside the model, "
                f"and {left >> 20} MiB are left; set a smaller engine.contextLength"
            )

    def _create_context(self, config: EngineConfig) -> object:
        api = self._api
        params = api.llama_context_default_params()
        params.n_ctx = max(self._room, self.context)
        params.n_batch = params.n_ubatch = self._room  # what attends to itself must lie in one pass
        params.n_seq_max = self.max_sequences
        params.kv_unified = True  # a decoder's cells are of use within a batch only
        params.embeddings = True
        params.pooling_type = self._pooling
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = _FLASH_ATTENTION[config.flash_attention]
        params.type_k = params.type_v = getattr(api, f"GGML_TYPE_{config.kv_cache_type.upper()}")
        params.offload_kqv = True
        params.no_perf = True
        self._library.recent_errors.clear()
        context = api.llama_init_from_model(self._model, params)
        if not context:
            raise ModelError(
                f"{self._path}: no context for inputs of {self.context} tokens: {explain(self._library.recent_errors)}"
            )
        return context


def logits(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the logistic function makes these probabilities of."""
    within = np.clip(probabilities.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    return np.log(within / (1 - within)).astype(np.float32)
