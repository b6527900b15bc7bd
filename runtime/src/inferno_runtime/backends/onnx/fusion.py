"""Attention as one operator, in place of the dozens that exporters write for each layer.

What lies between a layer's projections and its attention's output is found by its ends alone: the tensors of the cache, and
the nearest ones of the right shape around them. However it is written, it is replaced if it computes on random numbers what
onnxruntime's GroupQueryAttention does, at the beginning of a text and at the end of the longest; otherwise the graph stays
as it is. The operator turns the positions, keeps the cache where it is, and reads no more of it than a sequence has.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from inferno_runtime.backends.onnx.session import CPU, FOLDER_OPTION, chosen_providers
from inferno_runtime.config import EngineConfig
from inferno_runtime.memory import memory_available
from inferno_runtime.models.layout import Layout

OPERATOR, DOMAIN = "GroupQueryAttention", "com.microsoft"
_SMALL = 1024  # numbers of a constant that shapes may follow from; anything larger is a weight
_COPIES = 3  # of a file's weights that there are for a moment while it is rewritten
_LARGEST = 1 << 30  # bytes of a graph's file: a message ends at 2 GiB, and larger ones have their weights beside them
# Sizes that tell a tensor's axes apart when shapes are inferred.
_ROWS, _TOKENS, _PAST = 2, 3, 5
_TOLERANCE = 1e-3
_PIECE = 4096  # positions that angles are asked for at a time
_FLOATS = {TensorProto.FLOAT: np.float32}
_COS, _SIN, _SEEN, _TOTAL, _AXIS, _ONE, _FLAT = (
    f"inferno.{name}" for name in ("cos", "sin", "seen", "total", "axis", "one", "flat")
)

Shape = tuple[int, ...]
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to load in the place of a model's file: None for the file itself. in_place: whether attention is the operator."""

    graph: bytes | None
    in_place: bool


def prepare(layout: Layout, config: EngineConfig, context: int) -> Prepared:
    """Have a model use the operator if it can be done here, and find out whether it does already.

    context: tokens of the longest sequence that it will be given.
    """
    path = layout.model
    size = path.stat().st_size
    elsewhere = chosen_providers(config)[0] != CPU  # where the operator is for other types, or for none
    if elsewhere or size > _LARGEST or size * _COPIES > memory_available():
        return Prepared(None, in_place=False)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # what onnxruntime says of it is better said
        return Prepared(None, in_place=False)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    kept = [makers.get(output.name) for output in model.graph.output if output.name.startswith("present")]
    if kept and set(kept) == {OPERATOR}:
        return Prepared(None, in_place=True)
    fused = config.onnx_fusion == "auto" and fuse(model, path.parent, context)
    return Prepared(model.SerializeToString() if fused else None, in_place=fused)


def fuse(model: onnx.ModelProto, folder: Path, context: int) -> bool:
    """Have a graph use the operator. False, and nothing has changed, if its attention is anything else.

    folder: where the graph's file is; context: tokens of the longest sequence that it will be given, 4 or more.
    """
    graph = _Graph(model, folder)
    sites = list(graph.sites())
    if not sites or len(sites) != len(graph.pasts) // 2:
        return False
    for interleaved in (False, True):
        angles = graph.angles(sites[0], context, interleaved=interleaved)
        turning = [replace(site, interleaved=interleaved) for site in sites]
        if angles and all(graph.holds(site, context, angles) for site in turning):
            graph.rewrite(turning, angles)
            return True
    turned = [graph.behind_positions(site, context) for site in sites]
    if all(turned):
        graph.rewrite([site for site in turned if site], {})
    return all(turned)


class _Graph:
    """A graph, with the shapes that its tensors have for one set of sizes."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._nodes = model.graph.node
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._inputs = {value.name: value for value in model.graph.input}
        self._constants = {
            tensor.name: tensor for tensor in model.graph.initializer if np.prod(tensor.dims, dtype=int) <= _SMALL
        }
        self.pasts = [name for name in self._inputs if name.startswith("past")]
        self._types: dict[str, int] = {}
        self._shapes: dict[str, Shape] = {}
        self._infer()

    def sites(self) -> Iterator[Site]:
        """The layers whose attention's ends can be told."""
        for name in self.pasts if "attention_mask" in self._inputs else ():
            if name.endswith(".key"):
                site = self._site(name, name.removesuffix("key") + "value")
                if site is not None:
                    yield site

    def behind_positions(self, site: Site, context: int) -> Site | None:
        """The same, cut behind whatever is done to queries and keys before they meet; None where that does not hold."""
        new_key = self._makers[site.present[0]].input[1]
        met = self._all(site.present[0], self._below)
        shape = (_ROWS, site.heads, _TOKENS, site.size)
        for name in reversed(self._all(site.query, self._below, met)):
            if self._shapes.get(name) == shape:
                turned = replace(site, query=name, key=new_key, turned=True)
                if self.holds(turned, context, {}):
                    return turned
        return None

    def angles(self, site: Site, context: int, *, interleaved: bool) -> Arrays:
        """Cosines and sines of every position, as keys are turned by them: shape (context, half of a head). Nothing if it is
        something else that is done to them."""
        half = site.size // 2
        firsts, seconds = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
        part = self._part([self._makers[site.present[0]].input[1]], [site.key])
        cosines, sines = [], []
        try:
            session = self._session(part)
            for start in range(0, context, _PIECE):
                tokens = min(_PIECE, context - start)
                heads = np.zeros((1, tokens, site.kv_heads, site.size), dtype=np.float32)
                heads[..., firsts] = 1
                (turned,) = _run(session, self._feeds(tokens, start) | {site.key: heads.reshape(1, tokens, -1)})
                cosines.append(turned[0, 0][:, firsts])
                sines.append(turned[0, 0][:, seconds])
        except Exception:  # it takes something else than positions, so anything may come
            return {}
        return {_COS: np.concatenate(cosines), _SIN: np.concatenate(sines)}

    def holds(self, site: Site, context: int, angles: Arrays) -> bool:
        """Whether the operator computes what stands in its place."""
        outputs = [site.out, *site.present]
        renamed = {name: f"inferno.{number}" for number, name in enumerate(outputs)}
        part = self._part(outputs, [site.query, site.key, site.value])
        part.graph.node.extend([*_counts(), *_operator(site, angles, renamed)])
        part.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in renamed.values()
        )
        _add_constants(part, angles)
        random = np.random.default_rng(1)
        try:
            session = self._session(part)
            for tokens, past in ((4, 0), (3, min(5, context - 3)), (1, context - 1)):
                feeds = self._feeds(tokens, past) | self._random(site, random, tokens, past)
                values = _run(session, feeds)
                for theirs, ours in zip(values[:3], values[3:], strict=True):
                    if theirs.shape != ours.shape or not np.allclose(theirs, ours, rtol=_TOLERANCE, atol=_TOLERANCE):
                        return False
        except Exception:  # it is no attention, so anything may come
            return False
        return True

    def rewrite(self, sites: Sequence[Site], angles: Arrays) -> None:
        """Put the operator in its places, and leave out what nobody reads any more."""
        graph = self._model.graph
        places = {site.out: site for site in sites}
        replaced = {name for site in sites for name in (site.out, *site.present)}
        nodes = _counts()
        for node in self._nodes:
            for name in node.output:
                if name in places:
                    nodes += _operator(places[name], angles)
            if not replaced.intersection(node.output):
                nodes.append(node)
        kept = _reachable(nodes, [output.name for output in graph.output])
        del graph.node[:]
        graph.node.extend(kept)
        read = {name for node in kept for name in node.input}
        _keep(graph.initializer, lambda tensor: tensor.name in read)
        _keep(graph.input, lambda value: value.name in read)
        del graph.value_info[:]
        _add_constants(self._model, angles)

    def _site(self, past_key: str, past_value: str) -> Site | None:
        joined = [self._joined(name) for name in (past_key, past_value)]
        shape = self._shapes.get(past_key, ())
        if None in joined or len(shape) != 4 or self._types[past_key] not in _FLOATS:
            return None
        (present_key, new_key), (present_value, new_value) = [pair for pair in joined if pair]
        kv_heads, size = shape[1], shape[3]
        width = (_ROWS, _TOKENS, kv_heads * size)
        key, value = (self._nearest(name, self._above, width) for name in (new_key, new_value))
        out = self._nearest(present_value, self._below, (_ROWS, _TOKENS, 0))
        if not (key and value and out) or self._shapes[out][2] % (kv_heads * size):
            return None
        query = self._nearest(out, self._above, self._shapes[out], {key, value})
        if not query:
            return None
        heads = self._shapes[out][2] // size
        present = (present_key, present_value)
        return Site(query, key, value, out, (past_key, past_value), present, heads, kv_heads, size)

    def _joined(self, past: str) -> tuple[str, str] | None:
        """What a tensor of the cache becomes, and what is put behind it."""
        for node in self._readers.get(past, ()):
            joins = node.op_type == "Concat" and len(node.input) == 2 and node.input[0] == past
            if joins and node.output[0] in {output.name for output in self._model.graph.output}:
                return node.output[0], node.input[1]
        return None

    def _above(self, name: str) -> Iterable[str]:
        return self._makers[name].input if name in self._makers else ()

    def _below(self, name: str) -> Iterable[str]:
        return (output for node in self._readers.get(name, ()) for output in node.output)

    def _nearest(
        self, start: str, step: Callable[[str], Iterable[str]], shape: Shape, stops: Iterable[str] = ()
    ) -> str:
        """The nearest tensor of floats of a shape, whose zeros stand for any size; empty if there is none."""
        for name in self._walk(start, step, stops):
            own = self._shapes.get(name, ())
            fits = len(own) == len(shape) and all(want in (0, size) for want, size in zip(shape, own, strict=True))
            if fits and self._types.get(name) in _FLOATS:
                return name
        return ""

    def _all(self, start: str, step: Callable[[str], Iterable[str]], stops: Iterable[str] = ()) -> list[str]:
        return list(self._walk(start, step, stops))

    def _walk(self, start: str, step: Callable[[str], Iterable[str]], stops: Iterable[str]) -> Iterator[str]:
        """What follows step by step, nearest first."""
        passed, queue = {start, *stops}, deque([start])
        while queue:
            for name in step(queue.popleft()):
                if name not in passed:
                    passed.add(name)
                    queue.append(name)
                    yield name

    def _part(self, outputs: Sequence[str], inputs: Sequence[str]) -> onnx.ModelProto:
        """What computes some tensors of others."""
        nodes = _reachable([node for node in self._nodes if not set(inputs).intersection(node.output)], outputs)
        read = {name for node in nodes for name in node.input}
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
        values += [value for name, value in self._inputs.items() if name in read or name == "attention_mask"]
        weights = [tensor for tensor in self._model.graph.initializer if tensor.name in read]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(nodes, "part", values, results, weights)
        return helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)

    def _session(self, part: onnx.ModelProto) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # of what fails here, nobody needs to know
        options.add_session_config_entry(FOLDER_OPTION, str(self._folder))
        return onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def _feeds(self, tokens: int, past: int) -> Arrays:
        """The graph's own inputs for one sequence, but for the cache."""
        made = {
            "input_ids": np.zeros((1, tokens)),
            "attention_mask": np.ones((1, past + tokens)),
            "position_ids": np.arange(past, past + tokens)[None],
        }
        return {
            name: value.astype(helper.tensor_dtype_to_np_dtype(self._types[name]))
            for name, value in made.items()
            if name in self._inputs
        }

    def _random(self, site: Site, random: np.random.Generator, tokens: int, past: int) -> Arrays:
        heads = {site.query: site.heads, site.key: site.kv_heads, site.value: site.kv_heads}
        made: Arrays = {}
        for name, count in heads.items():
            split = site.turned and name != site.value
            shape = (1, count, tokens, site.size) if split else (1, tokens, count * site.size)
            made[name] = random.standard_normal(shape, dtype=np.float32)
        for name in site.past:
            made[name] = random.standard_normal((1, site.kv_heads, past, site.size), dtype=np.float32)
        return made

    def _infer(self) -> None:
        """Shapes for `_ROWS` sequences of `_TOKENS` tokens behind `_PAST`. Weights are only known by their shapes."""
        graph = onnx.GraphProto()
        graph.name = "skeleton"
        graph.node.extend(self._nodes)
        graph.output.extend(self._model.graph.output)
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
        sizes = {
            "input_ids": (_ROWS, _TOKENS),
            "position_ids": (_ROWS, _TOKENS),
            "attention_mask": (_ROWS, _PAST + _TOKENS),
        }
        for name, value in self._inputs.items():
            own = value.type.tensor_type
            shape: Sequence[int | None] = sizes.get(name, [dim.dim_value for dim in own.shape.dim])
            if name in self.pasts and len(shape) == 4:
                shape = (_ROWS, shape[1], _PAST, shape[3])
            graph.input.append(helper.make_tensor_value_info(name, own.elem_type, shape))
        for tensor in self._model.graph.initializer:
            if tensor.name in self._constants:
                graph.initializer.append(tensor)
            else:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        skeleton = helper.make_model(graph, opset_imports=self._model.opset_import)
        known = shape_inference.infer_shapes(skeleton, data_prop=True).graph
        for value in (*known.value_info, *known.input, *known.output):
            own = value.type.tensor_type
            self._types[value.name] = own.elem_type
            self._shapes[value.name] = tuple(dim.dim_value or -1 for dim in own.shape.dim)


def _counts() -> list[onnx.NodeProto]:
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


def _operator(site: Site, angles: Arrays, renamed: Mapping[str, str] = {}) -> list[onnx.NodeProto]:
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


def _add_constants(model: onnx.ModelProto, angles: Arrays) -> None:
    """What the operator's nodes refer to, and its domain."""
    fixed = {_AXIS: np.array([1]), _ONE: np.array(1, dtype=np.int32), _FLAT: np.array([0, 0, -1])}
    for name, value in (fixed | angles).items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _reachable(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
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


def _keep(values: Any, wanted: Callable[[Any], bool]) -> None:
    kept = [value for value in values if wanted(value)]
    del values[:]
    values.extend(kept)


def _run(session: Any, feeds: Arrays) -> list[NDArray[Any]]:
    known = {value.name for value in session.get_inputs()}
    values: list[NDArray[Any]] = session.run(None, {name: value for name, value in feeds.items() if name in known})
    return values
