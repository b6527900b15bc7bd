"""onnxruntime's operator for attention, GroupQueryAttention: where it goes, and the nodes that it takes there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPERATOR, DOMAIN = "GroupQueryAttention", "com.microsoft"
COS, SIN = "inferno.cos", "inferno.sin"  # the tables of angles
_SEEN, _TOTAL, _AXIS, _ONE, _FLAT = (f"inferno.{name}" for name in ("seen", "total", "axis", "one", "flat"))

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Site:
    """A layer's attention: `out` of queries, keys and values, each of shape (rows, tokens, heads times size)."""

    query: str
    key: str
    value: str
    out: str
    past: tuple[str, str]  # keys and values
    present: tuple[str, str]
    heads: int
    kv_heads: int
    size: int
    turned: bool = False  # queries and keys have their positions already: shape (rows, heads, tokens, size)
    interleaved: bool = False  # neighbours are turned, and not numbers that lie half a head apart


def counts() -> list[onnx.NodeProto]:
    """How many tokens stand before each row's last, and how many columns there are."""
    node = helper.make_node
    return [
        node("Cast", ["attention_mask"], ["inferno.mask"], to=TensorProto.INT32),
        node("ReduceSum", ["inferno.mask", _AXIS], ["inferno.counts"], keepdims=0),
        node("Sub", ["inferno.counts", _ONE], [_SEEN]),
        node("Shape", ["attention_mask"], ["inferno.columns"], start=1, end=2),
        node("Squeeze", ["inferno.columns"], ["inferno.width"]),
        node("Cast", ["inferno.width"], [_TOTAL], to=TensorProto.INT32),
    ]


def operator(site: Site, angles: Arrays, renamed: Mapping[str, str] = {}) -> list[onnx.NodeProto]:
    """What stands in a site's place. renamed: outputs that have other names."""
    nodes, names = [], []
    for name in (site.query, site.key, site.value):
        if site.turned and name != site.value:
            rows = f"{name}.inferno"
            nodes.append(helper.make_node("Transpose", [name], [f"{rows}.rows"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"{rows}.rows", _FLAT], [rows]))
            name = rows
        names.append(name)
    outputs = [renamed.get(name, name) for name in (site.out, *site.present)]
    nodes.append(
        helper.make_node(
            OPERATOR,
            [*names, *site.past, _SEEN, _TOTAL, *angles],
            outputs,
            domain=DOMAIN,
            num_heads=site.heads,
            kv_num_heads=site.kv_heads,
            do_rotary=int(bool(angles)),
            rotary_interleaved=int(site.interleaved),
        )
    )
    return nodes


def add_constants(model: onnx.ModelProto, angles: Arrays) -> None:
    """What the operator's nodes refer to, and its domain."""
    fixed = {_AXIS: np.array([1]), _ONE: np.array(1, dtype=np.int32), _FLAT: np.array([0, 0, -1])}
    for name, value in (fixed | angles).items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
