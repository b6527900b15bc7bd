"""Measures a loaded GGUF model under one setting after another.

Loading is what takes long; a context is made in milliseconds. So there is one for each setting of flash attention, filled
once to a realistic depth, and the rest varies on it: threads between evaluations, the micro-batch by the size of pieces.
"""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import TracebackType
from typing import Any, NamedTuple, Self

from inferno_runtime.backends.base import Setting
from inferno_runtime.backends.llama_cpp.library import Library

_DEPTH = 512  # cells before what is measured, if there is time to fill them
_PROMPT = 512  # tokens of a measured prompt
_TOGETHER = 4  # sequences in a batch
_STEPS = 16  # most decoded tokens of a sequence
_PIECE = 32  # tokens by whose cost the rest is planned; also the least depth and prompt
_LEAST_STEPS = 3
_GRACE = 3.0  # times the time given: what takes longer, because it was disturbed, is broken off


class _Unmeasurable(Exception):
    """The library refused, or the time is up."""


@dataclass(slots=True)
class _Stage:
    """A context and what its sequences hold."""

    context: Any
    memory: Any
    depth: int = 0  # cells of each sequence


class _Load(NamedTuple):
    """What every setting is measured under; the first decides, so that all are comparable."""

    depth: int
    prompt: int


class Bench:
    """Measures one model; a context manager, since it holds contexts. Never more memory than the service will take."""

    def __init__(
        self, library: Library, model: Any, *, first: Setting, slots: int, context: int, kv_cache_type: str
    ) -> None:
        """model: a `llama_model *`; first: the setting to begin with; context: cells per slot."""
        self._api = library.api
        self._errors = library.recent_errors
        self._model = model
        self._first = first
        self._sequences = min(slots, _TOGETHER)
        self._cells = min(_DEPTH + _PROMPT + _STEPS, slots * context // (2 * self._sequences))
        self._kind = getattr(self._api, f"GGML_TYPE_{kv_cache_type.upper()}")
        # What was computed cannot be taken back from a state: such models are measured without any depth.
        self._cuttable = not (self._api.llama_model_is_recurrent(model) or self._api.llama_model_is_hybrid(model))
        vocabulary = self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(model))
        # Of all kinds, so that a mixture of experts is asked for all of them.
        self._tokens = random.Random(0).choices(range(vocabulary), k=self._cells + 1)  # noqa: S311
        self._batch = self._api.llama_batch_init(max(_PROMPT, _TOGETHER), 0, 1)
        self._stages: dict[bool, _Stage] = {}
        self._load: _Load | None = None
        self._deadline = float("inf")
        self._abort = self._api.ggml_abort_callback(lambda _: time.monotonic() > self._deadline)
        self._never = self._api.ggml_abort_callback()

    def __enter__(self) -> Self:
        """Evaluate a token, for as long as it takes: the weights are read from the disk now, as the start needs anyway."""
        logging.getLogger(Library.__module__).addFilter(_mute)
        try:
            stage = self._stages[self._first.flash_attention] = self._open(self._first.flash_attention)
            self._api.llama_set_n_threads(stage.context, self._first.threads, self._first.threads)
            self._evaluate(stage, [0], 0, 1)
            self._cut(stage)
        except _Unmeasurable:
            self._close(self._first.flash_attention)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for flash_attention in list(self._stages):
            self._close(flash_attention)
        self._api.llama_batch_free(self._batch)
        logging.getLogger(Library.__module__).removeFilter(_mute)
        self._errors.clear()

    def measure(self, setting: Setting, seconds: float) -> tuple[float, float, float] | None:
        """Tokens per second: one sequence decoding, several together, and a prompt.

        Takes about as many seconds as it is given, or fewer. None if they are too few, if the library cannot do it, or
        if the prompt that there is time for fits into this micro-batch and the first setting's alike.
        """
        self._deadline = time.monotonic() + _GRACE * seconds
        try:
            stage = self._stages.get(setting.flash_attention)
            if stage is None:
                stage = self._stages[setting.flash_attention] = self._open(setting.flash_attention)
            self._api.llama_set_n_threads(stage.context, setting.threads, setting.threads)
            load = self._load = self._load or self._plan(stage, setting.threads, seconds)
            if setting.micro_batch != self._first.micro_batch >= load.prompt <= setting.micro_batch:
                return None
            self._fill(stage, load.depth)
            prefill = self._prefill(stage, load.prompt, setting.micro_batch, seconds / 4)
            decode = self._decode(stage, 1, seconds / 5)
            batched = self._decode(stage, self._sequences, seconds / 5) if self._sequences > 1 else decode
        except _Unmeasurable:
            self._close(setting.flash_attention)  # a batch that was broken off leaves nobody knows what
            return None
        return decode, batched, prefill

    def _open(self, flash_attention: bool) -> _Stage:
        if self._api.llama_model_has_encoder(self._model) or not self._api.llama_model_has_decoder(self._model):
            raise _Unmeasurable  # an encoder puts out every token, for which these contexts have no room
        params = self._api.llama_context_default_params()
        params.n_ctx = -(-self._cells // 256) * 256 * self._sequences  # libllama rounds a sequence's cells up to this
        params.n_batch = params.n_ubatch = _PROMPT
        params.n_seq_max = params.n_outputs_max = self._sequences
        params.kv_unified = False
        params.flash_attn_type = int(flash_attention)
        params.type_k = params.type_v = self._kind
        params.offload_kqv = params.no_perf = True
        context = self._api.llama_init_from_model(self._model, params)
        if not context:
            raise _Unmeasurable
        return _Stage(context, self._api.llama_get_memory(context))

    def _close(self, flash_attention: bool) -> None:
        if stage := self._stages.pop(flash_attention, None):
            self._api.llama_free(stage.context)

    def _plan(self, stage: _Stage, threads: int, seconds: float) -> _Load:
        """The load that fits: the time once for the depth, which is filled twice in all, and a third of it for a prompt."""
        most = (self._cells - _STEPS) // 2
        if most < _PIECE:
            raise _Unmeasurable
        rate = 0.0
        self._bound(stage)
        for count in (threads, threads, 1):  # one, since beside a busy neighbour several may be slower by far
            self._api.llama_set_n_threads(stage.context, count, count)
            began = time.monotonic()
            self._evaluate(stage, [0], 0, _PIECE)
            rate = max(rate, _PIECE / (time.monotonic() - began))
            self._cut(stage)
            if began + 2 * _PIECE / rate > self._deadline - seconds:
                break
        self._api.llama_set_n_threads(stage.context, threads, threads)
        depth, prompt = (_whole_pieces(rate * seconds * share, most) for share in (1, 1 / 3))
        return _Load(depth if self._cuttable else 0, prompt)

    def _fill(self, stage: _Stage, depth: int) -> None:
        """Bring every sequence to the depth, unless it has been brought there for another setting."""
        if stage.depth == depth:
            return
        self._bound(stage)
        for start in range(0, depth, _PROMPT):
            self._evaluate(stage, [0], start, min(_PROMPT, depth - start))
        for sequence in range(1, self._sequences):
            self._api.llama_memory_seq_cp(stage.memory, 0, sequence, -1, -1)
        stage.depth = depth

    def _prefill(self, stage: _Stage, prompt: int, micro_batch: int, seconds: float) -> float:
        """The best of several times."""
        times: list[float] = []
        self._bound(stage)
        while not times or (sum(times) < seconds and len(times) < 4):
            began = time.monotonic()
            for start in range(0, prompt, micro_batch):
                self._evaluate(stage, [0], stage.depth + start, min(micro_batch, prompt - start))
            times.append(time.monotonic() - began)
            self._cut(stage)
        return prompt / min(times)

    def _decode(self, stage: _Stage, sequences: int, seconds: float) -> float:
        # The callback is a call into Python for every node of the graph, which would show in a step that is this short.
        self._api.llama_set_abort_callback(stage.context, self._never, None)
        times: list[float] = []
        while len(times) < _LEAST_STEPS or (sum(times) < seconds and len(times) < _STEPS):
            began = time.monotonic()
            if times and began + times[-1] > self._deadline:
                raise _Unmeasurable
            self._evaluate(stage, range(sequences), stage.depth + len(times), 1)
            times.append(time.monotonic() - began)
        self._cut(stage)
        return sequences / sorted(times)[len(times) // 4]  # what disturbs a step only adds to it

    def _bound(self, stage: _Stage) -> None:
        """Have evaluations broken off at the deadline: a piece of a prompt may take a large model minutes."""
        self._api.llama_set_abort_callback(stage.context, self._abort, None)

    def _cut(self, stage: _Stage) -> None:
        """Bring every sequence back to its depth."""
        for sequence in range(self._sequences):
            self._api.llama_memory_seq_rm(stage.memory, sequence, stage.depth or -1, -1)

    def _evaluate(self, stage: _Stage, sequences: Sequence[int], start: int, count: int) -> None:
        """Evaluate so many tokens of each sequence, with the logits of the last."""
        batch = self._batch
        at = 0
        for sequence in sequences:
            for position in range(start, start + count):
                batch.token[at] = self._tokens[position]
                batch.pos[at] = position
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = sequence
                batch.logits[at] = position == start + count - 1
                at += 1
        batch.n_tokens = at
        if self._api.llama_decode(stage.context, batch) != 0:
            raise _Unmeasurable
        self._api.llama_synchronize(stage.context)


def library_facts(library: Library) -> dict[str, str]:
    """The build of libllama and what it makes of this machine, GPUs included."""
    return {
        "library": f"llama-cpp-python {version('llama-cpp-python')}",
        "variant": library.cpu_variant,
        "system": library.api.llama_print_system_info().decode("utf-8", "replace"),
    }


def _mute(record: logging.LogRecord) -> bool:
    """A log filter: the library calls it an error that an evaluation is broken off."""
    return record.levelno >= logging.CRITICAL


def _whole_pieces(tokens: float, most: int) -> int:
    """So many tokens or fewer, at least a piece, at most `most` and what a batch holds."""
    if tokens < _PIECE:
        raise _Unmeasurable
    return int(min(tokens, most, _PROMPT)) // _PIECE * _PIECE
