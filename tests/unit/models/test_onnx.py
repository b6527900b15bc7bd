"""What is read of ONNX files and folders before a library sees them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from inferno_runtime.config import Task
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.inspect import inspect
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.onnx import describe


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


def test_a_weight_has_no_more_dimensions_than_anybody_needs(tmp_path: Path) -> None:
    changed = model()
    changed.graph.initializer[0].dims[:] = [1] * 100_000  # whose product would take for ever, if they were large
    path = tmp_path / "model.onnx"
    path.write_bytes(changed.SerializeToString())
    assert "more than 16 dimensions" in (refused(path) or "")


NO_MODELS = {
    "empty": (b"", "it is empty"),
    "no graph": (b"\x08\x08", "it has no graph"),
    "a page": (b"<html>please log in</html>", "not an ONNX file"),
    "a length beyond the end": (b"\x3a\xff\xff\xff\xff\x0f", "bytes begins at byte"),
    "a number without end": (b"\xff" * 20, "a number that does not end"),
}


@pytest.mark.parametrize(("data", "message"), NO_MODELS.values(), ids=NO_MODELS)
def test_what_is_no_model(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert message in (refused(path) or "")


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


def decoder(
    folder: Path, *, logits: tuple[str | int, ...] = ("batch", "tokens", 77), **past: tuple[str | int, ...]
) -> None:
    """A folder with a graph that has such inputs, and logits."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in past.items()]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)]
    weight = numpy_helper.from_array(np.zeros((3, 5), np.float16), "w")
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["logits"])], "graph", inputs, outputs, [weight])
    onnx.save(helper.make_model(graph), folder / "model.onnx")


def test_what_a_decoder_is(tmp_path: Path) -> None:
    past = {
        f"past_key_values.{layer}.{kind}": ("batch", 2, "past", 8) for layer in range(3) for kind in ("key", "value")
    }
    decoder(tmp_path, **past)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "n_positions": 99, "vocab_size": 77}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    (tmp_path / "chat_template.jinja").write_text("{% for tool in tools %}{{ tool }}{% endfor %}")
    (tmp_path / "model_int8.onnx").write_bytes(b"x" * 1_000_000)
    facts = inspect(tmp_path)
    assert (facts.format, facts.architecture, facts.quantization, facts.parameters) == ("onnx", "llama", "F16", 15)
    assert (facts.context_length, facts.vocabulary_size, facts.tokenizer) == (99, 77, "LlamaTokenizerFast")
    assert facts.capabilities == ("generate", "chat", "tools")
    assert facts.cache_values_per_token == 3 * 2 * 2 * 8
    assert facts.size_bytes is not None
    assert facts.size_bytes < 1_000_000, "another graph in the folder is not loaded"


def test_what_an_encoder_is(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    onnx.save(model(), tmp_path / "onnx" / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    facts = inspect(tmp_path)
    assert (facts.context_length, facts.capabilities, facts.chat_template) == (256, ("embed",), False)
    assert facts.size_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert inspect(tmp_path / "onnx" / "model.onnx").context_length == 256, "by its file it is the same model"


MADE_FOR: dict[str, tuple[tuple[str | int, ...], dict[str, Any], Task, Task]] = {
    "logits of tokens": (("batch", "tokens", 77), {"architectures": ["LlamaForCausalLM"]}, "generate", "generate"),
    "logits of texts": (("batch", 1), {"architectures": ["BertForSequenceClassification"]}, "rerank", "rerank"),
    "settings that say nothing": (("batch", 1), {}, "rerank", "embed"),
    "settings of another kind": (("batch", 1), {"architectures": "BertForSequenceClassification"}, "rerank", "embed"),
}


@pytest.mark.parametrize(("shape", "settings", "by_graph", "by_settings"), MADE_FOR.values(), ids=MADE_FOR)
def test_what_a_model_was_made_for(
    shape: tuple[str | int, ...], settings: dict[str, Any], by_graph: Task, by_settings: Task, tmp_path: Path
) -> None:
    decoder(tmp_path, logits=shape)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    layout = Layout.find(tmp_path)
    assert inspect(tmp_path).capabilities == (by_graph,)
    assert layout.task(None) == by_settings, "as of a graph that has not been fetched"
    (tmp_path / "sentence_bert_config.json").write_text("{}")
    assert {layout.task(describe(layout.model)), layout.task(None)} == {"embed"}


HOSTILE_SETTINGS = {
    "not JSON": ("config.json", "{", "config.json: not JSON"),
    "a list": ("config.json", "[]", "config.json: not a JSON object"),
    "endless": ("config.json", "[" * 100_000, "config.json: not JSON"),
    "larger than any": ("tokenizer_config.json", " " * (16 * 1024 * 1024 + 1), "larger than any file of settings"),
    "a graph elsewhere": (
        "genai_config.json",
        '{"model": {"decoder": {"filename": "../model.onnx"}}}',
        "names ../model.onnx, and there is no such file",
    ),
}


@pytest.mark.parametrize(("name", "text", "message"), HOSTILE_SETTINGS.values(), ids=HOSTILE_SETTINGS)
def test_settings_that_cannot_be_read_are_told(name: str, text: str, message: str, tmp_path: Path) -> None:
    decoder(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        inspect(tmp_path)
    assert str(tmp_path) not in str(caught.value), "files are named as in the folder"


ODD_SETTINGS = {
    "numbers as text": {"num_hidden_layers": "3", "vocab_size": True, "hidden_size": -1},
    "huge numbers": {"num_hidden_layers": 10**30, "num_attention_heads": 10**30, "max_position_embeddings": 10**30},
    "text elsewhere": {"architectures": "LlamaForCausalLM", "text_config": [], "model_type": {"a": 1}},
}


@pytest.mark.parametrize("settings", ODD_SETTINGS.values(), ids=ODD_SETTINGS)
def test_settings_that_say_something_odd_say_nothing(settings: dict[str, object], tmp_path: Path) -> None:
    decoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    facts = inspect(tmp_path)
    assert (facts.vocabulary_size, facts.hidden_size, facts.context_length) == (None, None, None)
    assert facts.cache_values_per_token is None
