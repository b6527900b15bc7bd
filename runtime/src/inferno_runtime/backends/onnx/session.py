"""An onnxruntime session over a model's file, and the one line that says why there is none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike

from inferno_runtime.backends.base import BackendError, ModelError, ModelInfo, OutOfMemory
from inferno_runtime.config import EngineConfig, Task
from inferno_runtime.cpu import cpu_quota
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.onnx import Description

CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
FOLDER_OPTION = "session.model_external_initializers_file_folder_path"
_FATAL = 4  # of onnxruntime's severities: anything less is in the exceptions as well
# What its messages begin with: a code, what it was doing, and the function of C++ that says it.
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOADING = re.compile(
    r"^(Load model from .{1,4096}? failed: ?|Exception during (loading|initialization): ?)", re.DOTALL
)
_SIGNATURE = r"[^()]*::[^()]*\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)?(?: \[with [^\]]*\])? "
_FUNCTION = re.compile(rf"^\S+\.(?:cc|h|cpp):\d+ (?:{_SIGNATURE}|\w+ )")
_RUNNING = re.compile(
    r"^Non-zero status code returned while running (\w+) node\..*?Status Message: (\S+\.(?:cc|h|cpp):\d+ \w+ )?"
)
_OPSET = re.compile(r"Opset (\d+) is under development.*?domain (\S+) is till opset (\d+)", re.DOTALL)
_NO_MEMORY = re.compile(r"bad_alloc|bad allocation|failed to allocate|out of memory", re.IGNORECASE)
_LONGEST_LINE = 400  # characters
TYPES: dict[str, DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Node:
    """An input or output of the graph."""

    name: str
    type: DTypeLike
    shape: tuple[int | None, ...]  # None where any number will do


class Session:
    """A loaded graph."""

    def __init__(self, layout: Layout, config: EngineConfig, graph: bytes | None = None) -> None:
        """graph: what there is to load instead of the layout's file, whose place it takes. Raises `ModelError`."""
        self._model = layout.model
        self.threads = config.threads or cpu_quota()
        self.arena = config.onnx_arena == "on"
        try:
            self.inner = onnxruntime.InferenceSession(
                graph or str(layout.model), self._options(), providers=chosen_providers(config), enable_fallback=0
            )
        except Exception as error:  # its exceptions have no common class of their own
            raise ModelError(f"{layout.model}: {explain(error)}") from None
        if graph is not None:
            self.inner._model_bytes = None  # which it keeps to begin anew with another provider: a copy of all weights
        self.providers: list[str] = self.inner.get_providers()  # of those, the ones that it could set up
        self.inputs = {node.name: self._node(node) for node in self.inner.get_inputs()}
        self.outputs = {node.name: self._node(node) for node in self.inner.get_outputs()}

    @property
    def description(self) -> str:
        """Of the library and the devices, for the log."""
        names = "+".join(name.removesuffix("ExecutionProvider") for name in self.providers)
        return f"onnxruntime {onnxruntime.__version__}, {names}, {self.threads} threads"

    @property
    def settings(self) -> dict[str, Any]:
        """What the session was opened with."""
        return {"threads": self.threads, "providers": self.providers, "arena": self.arena}

    def run(self, outputs: Sequence[str], feeds: dict[str, Any]) -> list[Any]:
        """The values of the outputs. Raises `BackendError`."""
        try:
            values: list[Any] = self.inner.run(outputs, feeds)
        except Exception as error:
            raise failure(error) from error
        return values

    def _options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = self.arena
        options.enable_mem_pattern = False  # it keeps a plan for every shape, and here each step has another
        options.log_severity_level = _FATAL
        # Threads spin while a graph runs, and not when it is done: the core is the server's then.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Where weights beside the graph are looked for if it comes without its own place.
        options.add_session_config_entry(FOLDER_OPTION, str(self._model.parent))
        return options

    def _node(self, node: Any) -> Node:
        if node.type not in TYPES:
            raise ModelError(f"{self._model}: '{node.name}' is a {node.type}, which is not supported")
        return Node(node.name, TYPES[node.type], tuple(n if isinstance(n, int) else None for n in node.shape))


def chosen_providers(config: EngineConfig) -> list[str]:
    """What evaluates the graph, the first that can."""
    usable = onnxruntime.get_available_providers()
    return [name for name in (_CUDA, CPU) if name in usable and (name == CPU or config.gpu_layers)]


def explain(error: Exception) -> str:
    """What onnxruntime says, in one line and without the names of its functions."""
    text = _CODE.sub("", str(error))
    text = _RUNNING.sub(r"\1: ", _FUNCTION.sub("", _LOADING.sub("", text)))
    if opset := _OPSET.search(text):
        wanted, domain, known = opset.groups()
        text = f"it needs opset {wanted} of {domain}, and this onnxruntime knows them up to {known}"
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…"


def failure(error: Exception) -> BackendError:
    """What a run that failed is for the engine."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return OutOfMemory("onnxruntime had no memory for the batch")
    return BackendError(f"onnxruntime: {explain(error)}")


def model_info(
    layout: Layout, description: Description, *, task: Task, context: int, vocabulary: int, dimensions: int = 0
) -> ModelInfo:
    """What the model turned out to be. vocabulary: its tokens; dimensions: of a vector."""
    size = layout.size + sum((layout.model.parent / name).stat().st_size for name in description.data_files)
    return ModelInfo(
        format="onnx",
        architecture=str(layout.config.get("model_type") or "unknown"),
        quantization=description.quantization,
        parameters=description.parameters,
        size_bytes=size,
        context_train=context,
        vocab_size=vocabulary,
        task=task,
        dimensions=dimensions,
    )
