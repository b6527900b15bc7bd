"""Texts without their padding: what is computed so, what is left as it was exported, and that nobody can tell by the numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from inferno_runtime.backends import load_encoder
from inferno_runtime.backends.base import Encoder
from inferno_runtime.backends.onnx.unpadding import unpad
from inferno_runtime.config import EngineConfig
from tests.runtime import onnx_twins
from tests.runtime.onnx_graph import Graph
from tests.runtime.random_models import encoder

WIDTH = 8
WORDS = 50
LENGTHS = [3, 9, 1, 6]
TEXTS = [[(7 * number + 11 * length) % 30 for number in range(length)] for length in (3, 40, 1, 17, 17)]

Body = Callable[[Graph, str], str]


def weights(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def linear(graph: Graph, x: str, seed: int = 1, width: int = WIDTH) -> str:
    return graph.linear(x, weights(seed, width, WIDTH), weights(seed + 100, width))


def attended(graph: Graph, query: str, key: str, value: str) -> str:
    """Attention with one head, as tensors of three axes."""
    seen = graph.op("Unsqueeze", graph.cast("attention_mask", np.bool_), graph.ints(1))
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 2, 1]))
    scores = graph.op("Where", seen, scores, graph.value(-1e9))
    return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)


def layer(graph: Graph, x: str) -> str:
    x = graph.op("Add", x, linear(graph, attended(graph, *(linear(graph, x, seed) for seed in (2, 3, 4)))))
    return graph.op("LayerNormalization", x, graph.value(weights(5, WIDTH)), graph.value(weights(6, WIDTH)))


def by_its_own_shape(graph: Graph, x: str) -> str:
    """As exporters of views do it: heads are split by the shape of the states."""
    x = linear(graph, x)
    sizes = [graph.op("Gather", graph.op("Shape", x), graph.ints(axis)) for axis in (0, 1)]
    heads = graph.op("Reshape", x, graph.op("Concat", *sizes, graph.ints(2, WIDTH // 2), axis=0))
    return linear(graph, graph.op("Reshape", heads, graph.ints(0, 0, WIDTH)), 7)


def in_one_product(graph: Graph, x: str) -> str:
    graph.op("Split", linear(graph, x, 2, 3 * WIDTH), graph.ints(WIDTH, WIDTH, WIDTH), to=["q", "k", "v"], axis=-1)
    return linear(graph, attended(graph, "q", "k", "v"), 3)


def root_mean_square(graph: Graph, x: str) -> str:
    mean = graph.op("ReduceMean", graph.op("Pow", x, graph.value(2.0)), axes=[-1], keepdims=1)
    x = graph.op("Div", x, graph.op("Sqrt", graph.op("Add", mean, graph.value(1e-6))))
    gate = linear(graph, graph.op("Mul", x, graph.value(weights(8, WIDTH))), 9)
    return layer(graph, graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), linear(graph, x, 10)))


def axes_as_an_input(graph: Graph, x: str) -> str:
    """As later opsets have it."""
    return layer(graph, graph.op("Sub", linear(graph, x), graph.op("ReduceMean", x, graph.ints(-1), keepdims=1)))


def weights_that_are_computed(graph: Graph, x: str) -> str:
    stored = graph.op("Transpose", graph.value(weights(11, WIDTH, WIDTH), np.float16), perm=[1, 0])
    return layer(graph, graph.op("MatMul", x, graph.cast(stored, np.float32)))


def across_tokens(graph: Graph, x: str) -> str:
    """The tokens' sum, for which padding is brought to nothing by a mask of the states' own shape."""
    x = linear(graph, x)
    seen = graph.op("Unsqueeze", graph.cast("attention_mask", np.float32), graph.ints(2))
    seen = graph.op("Expand", seen, graph.op("Shape", x))
    sums = graph.op("ReduceSum", graph.op("Mul", x, seen), graph.ints(1), keepdims=1)
    return linear(graph, graph.op("Sub", x, sums), 12)


@pytest.mark.parametrize(
    ("body", "products", "opset"),
    [
        (layer, 4, 17),
        (by_its_own_shape, 2, 17),
        (in_one_product, 2, 17),
        (root_mean_square, 6, 17),
        (axes_as_an_input, 5, 18),
        (weights_that_are_computed, 5, 17),
        (across_tokens, 2, 17),
    ],
)
def test_products_see_tokens_alone_and_say_the_same(body: Body, products: int, opset: int) -> None:
    exported = graph_of(body, opset=opset)
    unpadded = onnx.ModelProto.FromString(exported.SerializeToString())
    assert unpad(unpadded)
    onnx.checker.check_model(unpadded)
    ids, mask = feeds()
    (wanted,) = run(exported, ids, mask)
    found = [
        node.output[0] for node in unpadded.graph.node if node.op_type == "MatMul" and "unpadded" in node.output[0]
    ]
    assert len(found) == products
    unpadded.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in found)
    states, *alone = run(unpadded, ids, mask)
    assert np.abs(states - wanted)[mask].max() < 1e-4
    for value in alone:
        assert value.shape[:-1] == (sum(LENGTHS),)


def unmasked(graph: Graph, x: str) -> str:
    return linear(graph, x)


def without_weights(graph: Graph, x: str) -> str:
    return attended(graph, x, x, x)


def in_a_branch(graph: Graph, x: str) -> str:
    branches = {}
    for name, seed in (("then_branch", 1), ("else_branch", 2)):
        branch = Graph(name, graph.weights)
        branches[name] = branch.branch([linear(branch, x, seed)])
    always = graph.op("ReduceMax", graph.cast("attention_mask", np.int64), keepdims=0)
    return graph.op("If", graph.cast(always, np.bool_), **branches)


@pytest.mark.parametrize(
    ("body", "mask"), [(unmasked, False), (without_weights, True), (in_a_branch, True)], ids=lambda given: str(given)
)
def test_what_is_left_alone(body: Body, mask: bool) -> None:
    exported = graph_of(body, mask=mask)
    before = exported.SerializeToString()
    assert not unpad(exported)
    assert exported.SerializeToString() == before


def graph_of(body: Body, *, mask: bool = True, opset: int = 17) -> onnx.ModelProto:
    graph = Graph()
    x = graph.op("Gather", graph.value(weights(0, WORDS, WIDTH)), "input_ids")
    graph.op("Identity", body(graph, x), to=["last_hidden_state"])
    inputs = ["input_ids", *(["attention_mask"] if mask else [])]
    model = graph.model(
        [(name, np.int64, ("batch", "tokens")) for name in inputs],
        [("last_hidden_state", np.float32, ("batch", "tokens", WIDTH))],
    )
    model.opset_import[0].version = opset
    return model


def feeds() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return np.random.default_rng(1).integers(0, WORDS, mask.shape) * mask, mask


def run(model: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values: list[NDArray[Any]] = session.run(None, {"input_ids": ids, "attention_mask": mask.astype(np.int64)})
    return values


# As it is loaded


def twin(folder: Path) -> Path:
    return onnx_twins.encoder(encoder(folder / "encoder.gguf"), folder / "onnx")


def quantised(folder: Path) -> Path:
    path = twin(folder)
    quantize_dynamic(path / "model.onnx", path / "model.onnx", weight_type=QuantType.QInt8)
    return path


def hears_padding(folder: Path) -> Path:
    """A model whose attention hides nothing."""
    path = twin(folder)
    model = onnx.load(str(path / "model.onnx"))
    (hidden,) = [node for node in model.graph.node if node.op_type == "Where"]
    hidden.input[2] = hidden.input[1]
    onnx.save(model, str(path / "model.onnx"))
    return path


def pools_by_itself(folder: Path) -> Path:
    """A model whose graph makes the vectors, whatever else is done to them there."""
    path = onnx_twins.encoder(encoder(folder / "encoder.gguf"), folder / "pooled", pooled=True)
    kinds = ("Transformer", "Pooling", "Dense")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (path / "modules.json").write_text(json.dumps(modules))
    return path


def loaded(path: Path, **engine: Any) -> Encoder:
    return load_encoder(str(path), EngineConfig(threads=1, **engine))


@pytest.mark.parametrize(("make", "difference"), [(twin, 1e-4), (quantised, 0.1), (pools_by_itself, 1e-4)])
def test_vectors_are_those_of_the_exported_graph(
    make: Callable[[Path], Path], difference: float, tmp_path: Path
) -> None:
    path = make(tmp_path)
    unpadded, exported = loaded(path), loaded(path, onnx_fusion="off")
    try:
        assert (unpadded.settings["unpadded"], exported.settings["unpadded"]) == (True, False)
        assert "without padding" in unpadded.description
        ours, theirs = (made.encode(TEXTS) for made in (unpadded, exported))
        assert np.linalg.norm(ours - theirs, axis=1).max() < difference * np.linalg.norm(theirs, axis=1).min()
    finally:
        unpadded.close()
        exported.close()


def test_a_vector_that_the_graph_makes_is_taken_as_it_is(tmp_path: Path) -> None:
    by_itself, by_us = loaded(pools_by_itself(tmp_path)), loaded(twin(tmp_path))
    try:
        assert np.abs(by_itself.encode(TEXTS) - by_us.encode(TEXTS)).max() < 1e-4
    finally:
        by_itself.close()
        by_us.close()


def test_a_model_that_hears_padding_is_given_none(tmp_path: Path) -> None:
    made = loaded(hears_padding(tmp_path))
    try:
        assert not made.settings["unpadded"]
        assert "texts of one length at a time" in made.description
        for vector, text in zip(made.encode(TEXTS), TEXTS, strict=True):
            assert np.abs(vector - made.encode([text])[0]).max() < 1e-4
    finally:
        made.close()
