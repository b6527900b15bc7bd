"""A graph as nodes and the tensors between them: who makes and who reads each, their shapes, and parts cut out of it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

_SMALL = 1024  # numbers of a constant that shapes may follow from; anything larger is a weight
# Sizes that tell a tensor's axes apart when shapes are inferred. A graph without a cache has no past.
ROWS, TOKENS, PAST = 2, 3, 5
FLOATS = frozenset({TensorProto.FLOAT})

Shape = tuple[int, ...]
Step = Callable[[str], Iterable[str]]
"""From a tensor to those next to it."""


class Nodes:
    """A model's nodes, with the shapes that its tensors have for `ROWS` sequences of `TOKENS` tokens behind `PAST`.

    pasts: the inputs that are the cache.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = model.graph.node
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.inputs = {value.name: value for value in model.graph.input}
        self._constants = {
            tensor.name: tensor for tensor in model.graph.initializer if np.prod(tensor.dims, dtype=int) <= _SMALL
        }
        self.pasts = [name for name in self.inputs if name.startswith("past")]
        self.types: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {}
        self._infer()

    def above(self, name: str) -> Iterable[str]:
        """What a tensor is made of."""
        return self.makers[name].input if name in self.makers else ()

    def made_of(self, names: Iterable[str]) -> set[str]:
        """What follows from these tensors and from constants alone, constants included."""
        found = {tensor.name for tensor in self.model.graph.initializer} | set(names)
        for node in self.nodes:
            if found.issuperset(filter(None, node.input)):
                found.update(node.output)
        return found

    def value(self, name: str) -> NDArray[Any] | None:
        """What a small constant is; None of anything else."""
        tensor = self._constants.get(name)
        if tensor is None and name in self.makers and self.makers[name].op_type == "Constant":
            tensor = next((a.t for a in self.makers[name].attribute if a.name == "value"), None)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def below(self, name: str) -> Iterable[str]:
        """What is made of it."""
        return (output for node in self.readers.get(name, ()) for output in node.output)

    def nearest(self, start: str, step: Step, shape: Shape, stops: Iterable[str] = ()) -> str:
        """The nearest tensor of floats of a shape, whose zeros stand for any size; empty if there is none."""
        for name in self._walk(start, step, stops):
            own = self.shapes.get(name, ())
            fits = len(own) == len(shape) and all(want in (0, size) for want, size in zip(shape, own, strict=True))
            if fits and self.types.get(name) in FLOATS:
                return name
        return ""

    def all(self, start: str, step: Step, stops: Iterable[str] = ()) -> list[str]:
        """The tensors that follow step by step, nearest first, up to `stops`."""
        return list(self._walk(start, step, stops))

    def _walk(self, start: str, step: Step, stops: Iterable[str]) -> Iterator[str]:
        """What follows step by step, nearest first."""
        passed, queue = {start, *stops}, deque([start])
        while queue:
            for name in step(queue.popleft()):
                if name not in passed:
                    passed.add(name)
                    queue.append(name)
                    yield name

    def part(self, outputs: Sequence[str], inputs: Sequence[str]) -> onnx.ModelProto:
        """What computes some tensors of others."""
        nodes = reachable([node for node in self.nodes if not set(inputs).intersection(node.output)], outputs)
        read = {name for node in nodes for name in node.input}
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
        values += [value for name, value in self.inputs.items() if name in read or name == "attention_mask"]
        weights = [tensor for tensor in self.model.graph.initializer if tensor.name in read]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(nodes, "part", values, results, weights)
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)

    def _infer(self) -> None:
        """Shapes for `ROWS` sequences of `TOKENS` tokens behind `PAST`. Weights are only known by their shapes."""
        graph = onnx.GraphProto()
        graph.name = "skeleton"
        graph.node.extend(self.nodes)
        graph.output.extend(self.model.graph.output)
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
        sizes = dict.fromkeys(("input_ids", "position_ids", "token_type_ids"), (ROWS, TOKENS))
        sizes["attention_mask"] = (ROWS, PAST + TOKENS if self.pasts else TOKENS)
        for name, value in self.inputs.items():
            own = value.type.tensor_type
            shape: Sequence[int | None] = sizes.get(name, [dim.dim_value for dim in own.shape.dim])
            if name in self.pasts and len(shape) == 4:
                shape = (ROWS, shape[1], PAST, shape[3])
            graph.input.append(helper.make_tensor_value_info(name, own.elem_type, shape))
        for tensor in self.model.graph.initializer:
            self.types[tensor.name], self.shapes[tensor.name] = tensor.data_type, tuple(tensor.dims)
            if tensor.name in self._constants:
                graph.initializer.append(tensor)
            else:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        skeleton = helper.make_model(graph, opset_imports=self.model.opset_import)
        known = shape_inference.infer_shapes(skeleton, data_prop=True).graph
        for value in (*known.value_info, *known.input, *known.output):
            own = value.type.tensor_type
            self.types[value.name] = own.elem_type
            self.shapes[value.name] = tuple(dim.dim_value or -1 for dim in own.shape.dim)


def reachable(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that some tensors need, in their order."""
    makers = {name: number for number, node in enumerate(nodes) for name in node.output}
    wanted, queue = set[int](), [makers[name] for name in outputs if name in makers]
    while queue:
        number = queue.pop()
        if number not in wanted:
            wanted.add(number)
            queue += [makers[name] for name in _read(nodes[number]) if name in makers]
    return [node for number, node in enumerate(nodes) if number in wanted]


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, or the nodes inside it."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read(inner)
