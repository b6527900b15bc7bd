"""A model's graph to be rewritten before it is loaded."""

import onnx

from inferno_runtime.backends.onnx.session import CPU, chosen_providers
from inferno_runtime.config import EngineConfig
from inferno_runtime.memory import memory_available
from inferno_runtime.models.layout import Layout

_COPIES = 3  # of a file's weights that there are for a moment while it is rewritten
_LARGEST = 1 << 30  # bytes of a graph's file: a message ends at 2 GiB, and larger ones have their weights beside them


def readable(layout: Layout, config: EngineConfig) -> onnx.ModelProto | None:
    """The graph without the weights beside it; None where rewriting it is of no use or there is no memory for it."""
    size = layout.model.stat().st_size
    elsewhere = chosen_providers(config)[0] != CPU  # where the operators are for other types, or for none
    if elsewhere or size > _LARGEST or size * _COPIES > memory_available():
        return None
    try:
        return onnx.load(str(layout.model), load_external_data=False)
    except Exception:  # of what is no model; what onnxruntime says of it is better said
        return None
