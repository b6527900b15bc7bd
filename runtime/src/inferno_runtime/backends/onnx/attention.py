"""Where a graph's layers have their attention: found by the tensors of the cache and the shapes around them."""

from collections.abc import Iterator

from inferno_runtime.backends.onnx.gqa import Site
from inferno_runtime.backends.onnx.nodes import FLOATS, ROWS, TOKENS, Nodes


def sites(nodes: Nodes) -> Iterator[Site]:
    """The layers whose attention's ends can be told."""
    for name in nodes.pasts if "attention_mask" in nodes.inputs else ():
        if name.endswith(".key"):
            site = _site(nodes, name, name.removesuffix("key") + "value")
            if site is not None:
                yield site


def _site(nodes: Nodes, past_key: str, past_value: str) -> Site | None:
    joined = [_joined(nodes, name) for name in (past_key, past_value)]
    shape = nodes.shapes.get(past_key, ())
    if None in joined or len(shape) != 4 or nodes.types[past_key] not in FLOATS:
        return None
    (present_key, new_key), (present_value, new_value) = [pair for pair in joined if pair]
    kv_heads, size = shape[1], shape[3]
    width = (ROWS, TOKENS, kv_heads * size)
    key, value = (nodes.nearest(name, nodes.above, width) for name in (new_key, new_value))
    out = nodes.nearest(present_value, nodes.below, (ROWS, TOKENS, 0))
    if not (key and value and out) or nodes.shapes[out][2] % (kv_heads * size):
        return None
    query = nodes.nearest(out, nodes.above, nodes.shapes[out], {key, value})
    if not query:
        return None
    heads = nodes.shapes[out][2] // size
    present = (present_key, present_value)
    return Site(query, key, value, out, (past_key, past_value), present, heads, kv_heads, size)


def _joined(nodes: Nodes, past: str) -> tuple[str, str] | None:
    """What a tensor of the cache becomes, and what is put behind it."""
    for node in nodes.readers.get(past, ()):
        joins = node.op_type == "Concat" and len(node.input) == 2 and node.input[0] == past
        if joins and node.output[0] in {output.name for output in nodes.model.graph.output}:
            return node.output[0], node.input[1]
    return None
