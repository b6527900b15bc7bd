from typing import Any

import pytest

from inferno_runtime.config import EngineConfig, Task
from inferno_runtime.models.facts import Capability, ModelFacts
from inferno_runtime.models.need import explain, memory_need
from inferno_runtime.units import MIB, shown

# Llama 3.1 8B as Q4_K_M: 32 layers of 8 shared heads with 128 numbers each.
LLAMA = ModelFacts(
    format="gguf",
    size_bytes=4_920_739_232,
    context_length=131_072,
    vocabulary_size=128_256,
    hidden_size=4096,
    feed_forward_size=14_336,
    heads=32,
    cache_values_per_token=2 * 32 * 8 * 128,
    capabilities=("generate", "chat"),
)
GIB = 1024 * MIB
CACHE: dict[str, tuple[dict[str, Any], int]] = {
    "8 slots of 8192 tokens": ({}, 8 * GIB),
    "one slot": ({"slots": 1}, GIB),
    "one pool for all": ({"kv_layout": "unified"}, GIB),
    "a longer context": ({"slots": 1, "context_length": 16_384}, 2 * GIB),
    "8 bits and a scale": ({"kv_cache_type": "q8_0"}, 8 * GIB * 34 // 64),
    "4 bits and a scale": ({"kv_cache_type": "q4_0"}, 8 * GIB * 18 // 64),
    "streams are rounded up": ({"slots": 1, "context_length": 100}, 256 * 2 * 65_536),
    "prefixes that are kept": ({"slots": 1, "prefix_cache_mb": 512}, GIB + 512 * MIB),
}


@pytest.mark.parametrize(("engine", "expected"), CACHE.values(), ids=CACHE)
def test_cache(engine: dict[str, Any], expected: int) -> None:
    need = memory_need(LLAMA, EngineConfig(**engine))
    assert need is not None
    assert need.cache == expected
    assert need.total >= need.weights + need.cache + need.buffers + need.processes
    assert need.total % (16 * MIB) == 0


@pytest.mark.parametrize(
    ("made_for", "task"), [("generate", "embed"), ("generate", "rerank"), ("embed", None), ("rerank", None)]
)
def test_an_encoder_has_no_cache(made_for: Capability, task: Task | None) -> None:
    need = memory_need(LLAMA.model_copy(update={"capabilities": (made_for,)}), EngineConfig(), task)
    assert need is not None
    assert need.cache == 0
    assert need == memory_need(LLAMA, EngineConfig(), "embed")


def test_adapters_lie_beside_the_weights() -> None:
    alone, adapted = (
        memory_need(LLAMA.model_copy(update={"adapter_bytes": size}), EngineConfig()) for size in (0, GIB)
    )
    assert alone is not None
    assert adapted is not None
    assert adapted.total - alone.total == GIB
    assert "adapters" not in explain(alone)
    assert ", adapters 1.0 GiB, " in explain(adapted)


def test_attention_that_is_not_fused_takes_its_scores() -> None:
    fused, loose = (memory_need(LLAMA, EngineConfig(flash_attention=kind)) for kind in ("on", "off"))
    assert fused is not None
    assert loose is not None
    assert loose.buffers - fused.buffers == 4 * 32 * 512 * 8192


def test_nothing_is_known() -> None:
    assert memory_need(ModelFacts(), EngineConfig()) is None


def test_in_words() -> None:
    need = memory_need(LLAMA, EngineConfig(slots=1))
    assert need is not None
    assert explain(need).startswith("6.0 GiB: weights 4.6 GiB, cache 1.0 GiB, ")
    assert [shown(size) for size in (0, 1023, 1024, 5 * MIB, 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "1024.0 GiB",
    ]


def test_a_model_that_sees_needs_room_for_images() -> None:
    blind, seeing = (
        memory_need(LLAMA.model_copy(update={"capabilities": can, "projector_bytes": GIB}), EngineConfig())
        for can in (("generate", "chat"), ("generate", "chat", "vision"))
    )
    assert blind is not None
    assert seeing is not None
    assert seeing.total - blind.total > GIB + GIB // 2
    assert ", images " in explain(seeing)
    assert "images" not in explain(blind)
