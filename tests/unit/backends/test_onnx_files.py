"""What is read of ONNX files and folders before a library sees them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferno_runtime.backends.base import ModelError
from inferno_runtime.backends.onnx.encoder import batches
from inferno_runtime.backends.onnx.layout import Layout
from inferno_runtime.backends.onnx.proto import describe


def model() -> onnx.ModelProto:
    """A matrix product, whose second factor is a weight."""
    weights = [
        numpy_helper.from_array(np.zeros((3, 5), np.float32), "w"),
        helper.make_tensor("typed", TensorProto.INT64, (4,), [1, 2, 3, 1 << 40]),
        numpy_helper.from_array(np.array(2, np.float16), "scalar"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 3))]
    inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (3, 5)))  # as old files have their weights
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 5))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("other", 2)])


def refused(path: Path) -> str | None:
    """Why a file cannot be described."""
    try:
        describe(path)
    except ModelError as error:
        return str(error)
    return None


def test_a_description(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(), path)
    found = describe(path)
    assert {name: shape.dimensions for name, shape in found.inputs.items()} == {"x": (None, 3)}
    assert {name: shape.dimensions for name, shape in found.outputs.items()} == {"y": (None, 5)}
    assert found.opsets == {"": 17, "other": 2}
    assert found.parameters == 3 * 5 + 4 + 1
    assert found.weights == {"F32": 60, "I64": 32, "F16": 2}
    assert found.quantization == "F32"


def test_a_file_that_ends_anywhere_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    data = model().SerializeToString()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        if (refusal := refused(path)) is None:  # only whole fields behind the graph are missing
            assert onnx.load_from_string(data[:length]).graph.node
        else:
            assert refusal.startswith(f"{path}: ")


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_whatever_a_file_holds_is_read_or_refused(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(model().SerializeToString())
    for at, byte in changes:
        data[at % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.onnx"
    path.write_bytes(data)
    assert (refused(path) or f"{path}: ").startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("dimensions", "held"),
    [((1 << 40, 5), "and holds 60"), ((-1, 5), ""), ((2, 5), "which is 40 bytes, and holds 60")],
)
def test_a_weight_must_be_what_it_claims(dimensions: tuple[int, ...], held: str, tmp_path: Path) -> None:
    changed = model()
    changed.graph.initializer[0].dims[:] = dimensions
    path = tmp_path / "model.onnx"
    path.write_bytes(changed.SerializeToString())
    refusal = refused(path) or ""
    assert f"weight 'w' claims the shape {list(dimensions)}" in refusal
    assert held in refusal


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.onnx", "model_int8.onnx"], "model.onnx"),
        (["onnx/model.onnx", "onnx/model_q4.onnx"], "onnx/model.onnx"),
        (["onnx/model_fp16.onnx", "onnx/model_q4.onnx"], "onnx/model_fp16.onnx"),
        (
            ["decoder_model.onnx", "decoder_model_merged.onnx", "decoder_with_past_model.onnx"],
            "decoder_model_merged.onnx",
        ),
        (["model_int8.onnx"], "model_int8.onnx"),
        (["anything.onnx"], "anything.onnx"),
        (["phi.onnx", "other.onnx", "genai_config.json"], "phi.onnx"),
    ],
)
def test_the_graph_among_several_files(files: list[str], chosen: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if "genai_config.json" in files:
        (tmp_path / "genai_config.json").write_text(
            '{"model": {"decoder": {"filename": "phi.onnx"}, "context_length": 77}}'
        )
    found = Layout.find(tmp_path)
    assert found.model == tmp_path / chosen
    assert found.positions == (77 if "genai_config.json" in files else 0)


def test_files_are_found_beside_the_graph_or_above_its_folder(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    (tmp_path / "tokenizer.json").touch()
    (tmp_path / "config.json").write_text(
        '{"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}'
    )
    for source in (tmp_path, tmp_path / "onnx" / "model.onnx"):
        found = Layout.find(source)
        assert found.tokenizer == tmp_path / "tokenizer.json"
        assert found.positions == 512  # the first two are never used


@pytest.mark.parametrize(
    ("files", "window"),
    [
        ({}, 0),
        ({"config.json": '{"n_positions": 1024}'}, 1024),
        (
            {"config.json": '{"max_position_embeddings": 512}', "sentence_bert_config.json": '{"max_seq_length": 256}'},
            256,
        ),
        ({"tokenizer_config.json": '{"model_max_length": 1000000000000000019884624838656}'}, 0),
        ({"config.json": '{"text_config": {"max_position_embeddings": 99}}'}, 99),
    ],
)
def test_the_window(files: dict[str, str], window: int, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert Layout.find(tmp_path).window == window


@given(lengths=st.lists(st.integers(1, 600), max_size=60), most=st.integers(16, 1024))
def test_batches_hold_every_text_once_and_little_padding(lengths: list[int], most: int) -> None:
    made = list(batches(lengths, most))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[index] for index in batch]
        padded = len(batch) * max(sizes)
        assert len(batch) == 1 or padded <= most
        assert padded - sum(sizes) <= max(256, 0.125 * padded)
