"""Texts without their padding, wherever a graph treats each token by itself.

A graph is given texts as rows of one length, and what fills up the shorter ones costs as much as their tokens. Products with
weights, norms and activations know nothing of a token's neighbours, so they are given the tokens alone, one text behind the
other. What brings tokens together, as attention does, is given rows again, and stays as it was exported: where a row has no
token there is one of its neighbours, which the mask hides as it hides padding. Inputs and outputs are what they were.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inferno_runtime.backends.onnx.nodes import ROWS, TOKENS, Nodes

_ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "Cast",
        "Div",
        "Erf",
        "Exp",
        "Gelu",
        "Identity",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "Relu",
        "Sigmoid",
    }
    | {"Sqrt", "Sub", "Tanh", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"}
)
_ALONG_WIDTH = frozenset({"LayerNormalization", "ReduceMean", "RMSNormalization", "Split"})
_PRODUCTS = frozenset({"MatMul", "MatMulInteger"})
_TOKENS, _PLACES, _SHAPE = (f"inferno.{name}" for name in ("tokens", "places", "shape"))


def unpad(model: onnx.ModelProto) -> bool:
    """Have a graph do without padding. False, and nothing has changed, if there is none to be saved at any product with
    weights, or no mask that says where it is."""
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return False  # branches may read any tensor
    unpadding = _Unpadding(model)
    if unpadding.possible:
        unpadding.rewrite()
    return unpadding.possible


class _Unpadding:
    """Keeps apart a tensor's two forms: rows, shape (rows, tokens, width), under its own name; and without padding, shape
    (tokens of all rows, width), in which onnxruntime makes one operator of a product and what is added to it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._nodes = Nodes(model)
        shapes = [name for node in self._graph.node if node.op_type == "Shape" for name in node.output]
        self._constants = self._nodes.made_of([])
        self._masks = self._nodes.made_of(["attention_mask", *shapes]) - self._nodes.made_of(shapes)
        self._chosen = self._stretches()  # nodes by their first outputs
        self._unpadded: set[str] = set()  # tensors that there are without padding
        self._no_rows: set[str] = set()  # of these, those that there are only so

    @property
    def possible(self) -> bool:
        """Whether there is something to gain."""
        return bool(self._chosen) and self._nodes.shapes.get("attention_mask") == (ROWS, TOKENS)

    def rewrite(self) -> None:
        """Put nodes that change a tensor's form where it is read in the other."""
        nodes = _indices()
        for node in self._graph.node:
            if node.output[0] in self._chosen:
                nodes += self._without_padding(node)
            elif node.op_type == "Shape" and node.input[0] in self._no_rows and not node.attribute:
                nodes += self._shape(node)
            else:
                nodes += [*self._as_rows(node.input), node]
        nodes += self._as_rows(output.name for output in self._graph.output)
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        del self._graph.value_info[:]

    def _without_padding(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """A node that is given tokens alone."""
        given = [name for name in node.input if self._of_tokens(name)]
        for name in given:
            if name not in self._unpadded:
                self._unpadded.add(name)
                yield _constant(f"{name}.shape", [-1, self._nodes.shapes[name][2]])
                yield helper.make_node("Reshape", [name, f"{name}.shape"], [f"{name}.line"])
                yield helper.make_node("Gather", [f"{name}.line", _TOKENS], [_unpadded(name)])
        put_out = [name for name in node.output if self._of_tokens(name)]
        self._unpadded.update(put_out)
        self._no_rows.update(put_out)
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        renamed.input[:] = [_unpadded(name) if name in given else name for name in node.input]
        renamed.output[:] = [_unpadded(name) if name in put_out else name for name in node.output]
        yield renamed

    def _as_rows(self, names: Iterable[str]) -> Iterator[onnx.NodeProto]:
        """What makes rows of tensors where there are none yet."""
        for name in names:
            if name in self._no_rows:
                self._no_rows.remove(name)
                yield helper.make_node("Gather", [_unpadded(name), _PLACES], [name])

    def _shape(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """What tells the shape of rows without making them."""
        (output,) = node.output
        yield _constant(f"{output}.width", [self._nodes.shapes[node.input[0]][-1]])
        yield helper.make_node("Concat", [_SHAPE, f"{output}.width"], [output], axis=0)

    def _stretches(self) -> set[str]:
        """The nodes that can be given tokens alone, up to the next that cannot: those around products with weights."""
        alone = {node.output[0]: node for node in self._graph.node if self._treats_tokens_alone(node)}
        found = set[str]()
        queue = deque(name for name, node in alone.items() if node.op_type in _PRODUCTS)
        while queue:
            first = queue.popleft()
            if first in found:
                continue
            found.add(first)
            for name in filter(self._of_tokens, (*alone[first].input, *alone[first].output)):
                beside = [*self._nodes.readers.get(name, ()), *filter(None, [self._nodes.makers.get(name)])]
                queue += [node.output[0] for node in beside if node.output[0] in alone]
        return found

    def _treats_tokens_alone(self, node: onnx.NodeProto) -> bool:
        given = [name for name in node.input if name]
        if node.domain or not given or not self._of_tokens(node.output[0]):
            return False
        if node.op_type in _PRODUCTS:
            first, weights, *others = given
            product = self._of_tokens(first) and weights in self._constants and len(self._nodes.shapes[weights]) == 2
            return product and all(map(self._of_none, others))
        if node.op_type in _ALONG_WIDTH:
            if self._axes(node) != [-1]:  # counted from the end, it is the same one in both forms
                return False
        elif node.op_type not in _ELEMENTWISE:
            return False
        of_tokens = [name for name in given if self._of_tokens(name)]
        # Where a mask is applied, it is for something that reads padding.
        masked = not self._masks.isdisjoint(of_tokens)
        return bool(of_tokens) and not masked and all(map(self._of_none, set(given).difference(of_tokens)))

    def _axes(self, node: onnx.NodeProto) -> list[int]:
        """The axes that a node works along; none where they are computed."""
        stated = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type != "ReduceMean":
            return [stated.get("axis", -1 if node.op_type != "Split" else 0)]
        given = self._nodes.value(node.input[1]) if len(node.input) > 1 else None
        return list(stated.get("axes", [] if given is None else given))

    def _of_tokens(self, name: str) -> bool:
        """Whether a tensor has numbers for each token."""
        shape = self._nodes.shapes.get(name, ())
        return len(shape) == 3 and shape[:2] == (ROWS, TOKENS) and shape[2] > 0

    def _of_none(self, name: str) -> bool:
        """Whether a tensor is the same for all tokens, in whichever form they are."""
        return len(self._nodes.shapes.get(name, (0, 0))) <= 1


def _unpadded(name: str) -> str:
    return f"{name}.unpadded"


def _constant(name: str, values: list[int] | int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, dtype=np.int64)))


def _indices() -> list[onnx.NodeProto]:
    """Where in the rows, one behind the other, the tokens are; and for each place in them its token, or the one before."""
    node = helper.make_node
    return [
        _constant("inferno.flat", [-1]),
        _constant("inferno.first", 0),
        _constant("inferno.one", 1),
        node("Cast", ["attention_mask"], ["inferno.mask"], to=TensorProto.INT64),
        node("Shape", ["inferno.mask"], [_SHAPE]),
        node("Reshape", ["inferno.mask", "inferno.flat"], ["inferno.seen"]),
        node("NonZero", ["inferno.seen"], ["inferno.found"]),
        node("Reshape", ["inferno.found", "inferno.flat"], [_TOKENS]),
        node("CumSum", ["inferno.seen", "inferno.first"], ["inferno.counted"]),
        node("Sub", ["inferno.counted", "inferno.one"], ["inferno.numbered"]),
        node("Reshape", ["inferno.numbered", _SHAPE], [_PLACES]),
    ]
