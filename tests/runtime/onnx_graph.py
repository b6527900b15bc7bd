"""Writes ONNX graphs node by node, for models that a test makes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8

Value = tuple[str, Any, Sequence[Any]]


class Graph:
    """A graph in the making: each call adds a node and gives the name of what it puts out."""

    def __init__(self, prefix: str = "", weights: "list[TensorProto] | None" = None) -> None:
        """prefix, weights: of a branch of another graph, whose weights are with that one's."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = [] if weights is None else weights
        self._prefix = prefix

    def op(self, kind: str, *inputs: str, to: Sequence[str] = (), **attributes: Any) -> str:
        """A node with one output, or with those that `to` names; the first is returned."""
        outputs = list(to) or [f"{self._prefix}{kind}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs[0]

    def value(self, array: ArrayLike, kind: Any = np.float32) -> str:
        """A constant."""
        name = f"value_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype=kind), name))
        return name

    def ints(self, *numbers: int) -> str:
        """A constant list of numbers, as shapes and axes are."""
        return self.value(numbers, np.int64)

    def cast(self, x: str, kind: Any) -> str:
        """The same values as another type."""
        name = f"{self._prefix}Cast_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [x], [name], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind))))
        return name

    def linear(self, x: str, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> str:
        """weight: shape (out, in)."""
        product = self.op("MatMul", x, self.value(np.ascontiguousarray(weight.T)))
        return product if bias is None else self.op("Add", product, self.value(bias))

    def heads(self, x: str, *shape: int) -> str:
        """Shape (batch, tokens, width) as (batch, heads, tokens, size), or with groups of heads: a tensor of more axes."""
        split = self.op("Reshape", x, self.ints(0, 0, *shape))
        axes = list(range(2, 1 + len(shape)))
        return self.op("Transpose", split, perm=[0, *axes, 1, 1 + len(shape)])

    def size(self, x: str, axis: int) -> str:
        """The number of elements along an axis, without dimensions."""
        return self.op("Gather", self.op("Shape", x), self.value(axis, np.int64))

    def branch(self, outputs: Sequence[str]) -> onnx.GraphProto:
        """What there is so far, as a branch of another graph."""
        values = [onnx.ValueInfoProto(name=name) for name in outputs]
        return helper.make_graph(self.nodes, "branch", [], values)

    def model(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.ModelProto:
        """What there is so far. inputs, outputs: names, types and shapes."""
        return helper.make_model(
            helper.make_graph(self.nodes, "graph", _values(inputs), _values(outputs), self.weights),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)],
            ir_version=IR_VERSION,
        )

    def save(self, path: Path, inputs: Sequence[Value], outputs: Sequence[Value], *, external: bool = False) -> Path:
        """Write the model. external: with the weights in a file of their own."""
        path.parent.mkdir(parents=True, exist_ok=True)
        model = self.model(inputs, outputs)
        onnx.save_model(model, path, save_as_external_data=external, location=f"{path.name}_data", size_threshold=256)
        return path


def _values(given: Sequence[Value]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
        for name, kind, shape in given
    ]
