"""The memory that a pod needs, from what the model is and how it is to be evaluated.

It is an estimate from above, made before anything is loaded. What libllama allocates is followed where it is large:
weights, KV cache, recurrent state, logits and the buffers of one pass over the weights.
"""

from dataclasses import dataclass
from typing import Final

from inferno_runtime.config import EngineConfig, Task
from inferno_runtime.models.facts import ModelFacts
from inferno_runtime.units import MIB, shown

_PROCESSES: Final = 256 * MIB  # the server's process and the engine's, with a large vocabulary in both
_DEFAULT_CONTEXT: Final = 8192
_DEFAULT_MICRO_BATCH: Final = 512
_ENCODE_MICRO_BATCH: Final = 256
_SPARE_LOGITS: Final = 32
_CELLS: Final = 256  # a stream's cells are rounded up to this
# Of a model that reads images: what encoding one takes, the embeddings that are kept, and the process that decodes them.
_IMAGES: Final = 768 * MIB
# Bytes of 32 numbers of the cache.
_BLOCK_BYTES: Final = {"f32": 128, "f16": 64, "bf16": 64, "q8_0": 34, "q4_0": 18}
# Of an ONNX model's cache the graph says what the numbers are, and there are two, for one is read and one written.
_ONNX_BYTES: Final = {"F16": 2, "BF16": 2}
_ONNX_CACHES: Final = 2
# Vectors of a token's that lie side by side while a layer is evaluated.
_HIDDEN_COPIES: Final = 8
_FEED_FORWARD_COPIES: Final = 3


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes by what they are for."""

    weights: int
    cache: int
    buffers: int
    adapters: int = 0
    images: int = 0  # projector and buffers
    processes: int = _PROCESSES

    @property
    def total(self) -> int:
        """All of it, rounded up to 16 MiB, so that a trifle changes nothing."""
        step = 16 * MIB
        needed = self.weights + self.adapters + self.images + self.cache + self.buffers + self.processes
        return -(-needed // step) * step


def memory_need(facts: ModelFacts, engine: EngineConfig, task: Task | None = None) -> MemoryNeed | None:
    """What a pod that serves such a model needs; None where too little is known of the model."""
    if not facts.size_bytes or facts.format is None:
        return None
    made_for = "generate" if facts.capabilities is None or "generate" in facts.capabilities else "embed"
    encodes = (task or made_for) != "generate"  # embeds or reranks, which differ in nothing that takes memory
    context = engine.context_length or min(facts.context_length or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)
    cache = 0 if encodes else _cache(facts, engine, context)
    cache += (engine.prefix_cache_mb or 0) * MIB
    buffers = _buffers(facts, engine, context, encodes)
    sees = facts.capabilities is not None and "vision" in facts.capabilities
    images = (facts.projector_bytes or 0) + _IMAGES if sees else 0
    return MemoryNeed(facts.size_bytes, cache, buffers, adapters=facts.adapter_bytes or 0, images=images)


def explain(need: MemoryNeed) -> str:
    """The need in words, for a condition."""
    adapters = f", adapters {shown(need.adapters)}" if need.adapters else ""
    images = f", images {shown(need.images)}" if need.images else ""
    return (
        f"{shown(need.total)}: weights {shown(need.weights)}{adapters}{images}, cache {shown(need.cache)}, "
        f"buffers {shown(need.buffers)}, processes {shown(need.processes)}"
    )


def _cache(facts: ModelFacts, engine: EngineConfig, context: int) -> int:
    rounded = -(-context // _CELLS) * _CELLS
    cells = rounded if engine.kv_layout == "unified" else rounded * engine.slots
    values = (facts.cache_values_per_token or 0) * cells
    if facts.format == "onnx":
        return values * _ONNX_BYTES.get(facts.quantization or "", 4) * _ONNX_CACHES
    return values * _BLOCK_BYTES[engine.kv_cache_type] // 32 + (facts.state_bytes or 0) * engine.slots


def _buffers(facts: ModelFacts, engine: EngineConfig, context: int, encodes: bool) -> int:
    """Four bytes a number: the layers' intermediate results, the scores of attention that is not fused, and logits.

    Where it is to be measured whether attention is fused, it is taken to be: for a long context nothing else would do.
    """
    batch = engine.micro_batch or (_ENCODE_MICRO_BATCH if encodes else _DEFAULT_MICRO_BATCH)
    layer = batch * (_HIDDEN_COPIES * (facts.hidden_size or 0) + _FEED_FORWARD_COPIES * (facts.feed_forward_size or 0))
    seen = batch if encodes else context
    scores = (facts.heads or 0) * batch * seen if engine.flash_attention == "off" else 0
    logits = 0 if encodes else min(engine.slots + _SPARE_LOGITS, batch) * (facts.vocabulary_size or 0) * 2
    return 4 * (layer + scores + logits)
