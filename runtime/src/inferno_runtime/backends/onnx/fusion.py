"""Attention as one operator, in place of the dozens that exporters write for each layer.

What lies between a layer's projections and its attention's output is found by its ends alone: the tensors of the cache, and
the nearest ones of the right shape around them. However it is written, it is replaced if it computes on random numbers what
onnxruntime's GroupQueryAttention does, at the beginning of a text and at the end of the longest; otherwise the graph stays
as it is. The operator turns the positions, keeps the cache where it is, and reads no more of it than a sequence has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from inferno_runtime.backends.onnx import gqa
from inferno_runtime.backends.onnx.attention import sites
from inferno_runtime.backends.onnx.gqa import Arrays, Site
from inferno_runtime.backends.onnx.nodes import ROWS, TOKENS, Nodes, reachable
from inferno_runtime.backends.onnx.rewriting import readable
from inferno_runtime.backends.onnx.session import FOLDER_OPTION
from inferno_runtime.config import EngineConfig
from inferno_runtime.memory import memory_available
from inferno_runtime.models.layout import Layout

_TRIED = 16  # tensors of a cache's size that there are while a layer is tried
_TOLERANCE = 1e-3
_PIECE = 4096  # positions that angles are asked for at a time


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to load in the place of a model's file: None for the file itself. in_place: whether attention is the operator."""

    graph: bytes | None
    in_place: bool


def prepare(layout: Layout, config: EngineConfig, context: int) -> Prepared:
    """Have a model use the operator if it can be done here, and find out whether it does already.

    context: tokens of the longest sequence that it will be given.
    """
    model = readable(layout, config)
    if model is None:
        return Prepared(None, in_place=False)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    kept = [makers.get(output.name) for output in model.graph.output if output.name.startswith("present")]
    if kept and set(kept) == {gqa.OPERATOR}:
        return Prepared(None, in_place=True)
    try:
        fused = config.onnx_fusion == "auto" and fuse(model, layout.model.parent, context)
    except Exception:  # of a graph that contradicts itself; what onnxruntime says of it is better said
        fused = False
    return Prepared(model.SerializeToString() if fused else None, in_place=fused)


def fuse(model: onnx.ModelProto, folder: Path, context: int) -> bool:
    """Have a graph use the operator. False, and nothing has changed, if its attention is anything else.

    folder: where the graph's file is; context: tokens of the longest sequence that it will be given, 4 or more.
    """
    fusion = _Fusion(model, folder)
    found = list(sites(fusion.nodes))
    if not found or len(found) != len(fusion.nodes.pasts) // 2:
        return False
    # What a claimed shape takes to be tried: keys, values and scores, several times over.
    if max(site.heads * site.size for site in found) * context * 4 * _TRIED > memory_available():
        return False
    for interleaved in (False, True):
        angles = fusion.angles(found[0], context, interleaved=interleaved)
        turning = [replace(site, interleaved=interleaved) for site in found]
        if angles and all(fusion.holds(site, context, angles) for site in turning):
            fusion.rewrite(turning, angles)
            return True
    turned = [fusion.behind_positions(site, context) for site in found]
    if all(turned):
        fusion.rewrite([site for site in turned if site], {})
    return all(turned)


class _Fusion:
    """Tries the operator in a graph's places, and puts it there."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self.nodes = Nodes(model)

    def behind_positions(self, site: Site, context: int) -> Site | None:
        """The same, cut behind whatever is done to queries and keys before they meet; None where that does not hold."""
        new_key = self.nodes.makers[site.present[0]].input[1]
        met = self.nodes.all(site.present[0], self.nodes.below)
        shape = (ROWS, site.heads, TOKENS, site.size)
        for name in reversed(self.nodes.all(site.query, self.nodes.below, met)):
            if self.nodes.shapes.get(name) == shape:
                turned = replace(site, query=name, key=new_key, turned=True)
                if self.holds(turned, context, {}):
                    return turned
        return None

    def angles(self, site: Site, context: int, *, interleaved: bool) -> Arrays:
        """Cosines and sines of every position, as keys are turned by them: shape (context, half of a head). Nothing if it is
        something else that is done to them."""
        half = site.size // 2
        firsts, seconds = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
        part = self.nodes.part([self.nodes.makers[site.present[0]].input[1]], [site.key])
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
        return {gqa.COS: np.concatenate(cosines), gqa.SIN: np.concatenate(sines)}

    def holds(self, site: Site, context: int, angles: Arrays) -> bool:
        """Whether the operator computes what stands in its place."""
        outputs = [site.out, *site.present]
        renamed = {name: f"inferno.{number}" for number, name in enumerate(outputs)}
        part = self.nodes.part(outputs, [site.query, site.key, site.value])
        part.graph.node.extend([*gqa.counts(), *gqa.operator(site, angles, renamed)])
        part.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in renamed.values()
        )
        gqa.add_constants(part, angles)
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
        nodes = gqa.counts()
        for node in self.nodes.nodes:
            for name in node.output:
                if name in places:
                    nodes += gqa.operator(places[name], angles)
            if not replaced.intersection(node.output):
                nodes.append(node)
        kept = reachable(nodes, [output.name for output in graph.output])
        del graph.node[:]
        graph.node.extend(kept)
        read = {name for node in kept for name in node.input}
        _keep(graph.initializer, lambda tensor: tensor.name in read)
        # What nobody has read before stays: whoever fills the inputs must find what it cannot fill.
        _keep(graph.input, lambda value: value.name in read or value.name not in self.nodes.readers)
        del graph.value_info[:]
        gqa.add_constants(self._model, angles)

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
            name: value.astype(helper.tensor_dtype_to_np_dtype(self.nodes.types[name]))
            for name, value in made.items()
            if name in self.nodes.inputs
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


def _keep(values: Any, wanted: Callable[[Any], bool]) -> None:
    kept = [value for value in values if wanted(value)]
    del values[:]
    values.extend(kept)


def _run(session: Any, feeds: Arrays) -> list[NDArray[Any]]:
    known = {value.name for value in session.get_inputs()}
    values: list[NDArray[Any]] = session.run(None, {name: value for name, value in feeds.items() if name in known})
    return values
