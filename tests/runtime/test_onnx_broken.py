"""ONNX models that cannot be served: each is one line that names the file, and what of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.runtime import onnx_twins
from tests.runtime.random_models import encoder

SECONDS = 120  # a start takes no longer


def truncated(folder: Path) -> str:
    file = folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1000])
    return "truncated"


def empty(folder: Path) -> str:
    (folder / "model.onnx").write_bytes(b"")
    return "not an ONNX file (it is empty)"


def a_page(folder: Path) -> str:
    (folder / "model.onnx").write_bytes(b"<html>404 Not Found</html>")
    return "not an ONNX file"


def changed(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")


def wrong_opset(folder: Path) -> str:
    changed(folder, lambda model: setattr(model.opset_import[0], "version", 999))
    return "it needs opset 999 of ai.onnx, and this onnxruntime knows them up to"


def unknown_operator(folder: Path) -> str:
    changed(folder, lambda model: setattr(model.graph.node[0], "op_type", "Perceive"))
    return "Perceive"


def huge_weight(folder: Path) -> str:
    changed(folder, lambda model: model.graph.initializer[0].dims.__setitem__(0, 1 << 50))
    return f"claims the shape [{1 << 50},"


def huge_cache(folder: Path) -> str:
    def claim(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            if ".0.key" in value.name:
                value.type.tensor_type.shape.dim[1].dim_value = 1 << 40  # heads

    changed(folder, claim)
    return f"'past_key_values.0.key' claims the shape [None, {1 << 40}, None, 64]"


def huge_vocabulary(folder: Path) -> str:
    def claim(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 1 << 30

    changed(folder, claim)
    return f"output 'logits' claims a vocabulary of {1 << 30} tokens"


def no_cache(folder: Path) -> str:
    def strip(model: onnx.ModelProto) -> None:
        kept = [value for value in model.graph.input if "past" not in value.name]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name.startswith("past_key_values"):
                    node.input[index] = "nothing"
        nothing = helper.make_tensor("nothing", TensorProto.FLOAT, (1, 2, 0, 64), [])
        model.graph.initializer.append(nothing)

    changed(folder, strip)
    return "it has no input 'past_key_values.0.key'; export it with a cache"


def strange_input(folder: Path) -> str:
    value = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, (1, 3, 224, 224))
    changed(folder, lambda model: model.graph.input.append(value))
    return "nothing is known here to fill its input 'pixel_values' with"


def no_present(folder: Path) -> str:
    def strip(model: onnx.ModelProto) -> None:
        kept = [value for value in model.graph.output if value.name != "present.3.value"]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    changed(folder, strip)
    return "it has an input 'past_key_values.3.value', and no output 'present.3.value'"


def no_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "no tokenizer.json beside it"


def damaged_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text('{"model": {"type": "Quantum", "vocab": {}}}')
    return "not a tokenizer"


def tokenizer_that_panics(folder: Path) -> str:
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return "tokenizer.json: not a tokenizer: Precompiled"


def anothers_tokenizer(folder: Path) -> str:
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 1730, "content": "<|another|>"})
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return "it has a token 1730, and the model's output 'logits' has only 1730 of them"


def no_weights_file(folder: Path) -> str:
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=256)
    (folder / "weights").unlink()
    return "its weights are in weights, and there is no such file"


def truncated_weights_file(folder: Path) -> str:
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=256)
    os.truncate(folder / "weights", 1000)
    return "truncated: weight"


def weights_elsewhere(folder: Path) -> str:
    no_weights_file(folder)
    (folder.parent / "secret").write_bytes(bytes(1 << 20))

    def lead_out(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../secret"

    model = onnx.load(folder / "model.onnx", load_external_data=False)
    lead_out(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return "in ../secret, which is outside the model's folder"


def nothing(folder: Path) -> str:
    (folder / "model.onnx").unlink()
    return "neither a GGUF nor an ONNX model"


def two_models(folder: Path) -> str:
    shutil.copy(folder / "model.onnx", folder / "model_a.onnx")
    (folder / "model.onnx").rename(folder / "model_b.onnx")
    return "several ONNX models (model_a.onnx, model_b.onnx); name one of the files"


def not_json(folder: Path) -> str:
    (folder / "config.json").write_text("{")
    return "config.json: not JSON"


@pytest.mark.parametrize(
    "spoil",
    [
        truncated,
        empty,
        a_page,
        wrong_opset,
        unknown_operator,
        huge_weight,
        huge_cache,
        huge_vocabulary,
        no_cache,
        strange_input,
        no_present,
        no_tokenizer,
        damaged_tokenizer,
        tokenizer_that_panics,
        anothers_tokenizer,
        no_weights_file,
        truncated_weights_file,
        weights_elsewhere,
        nothing,
        two_models,
        not_json,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_cannot_be_served_is_one_line_and_exit_code_1(
    spoil: Callable[[Path], str], twin: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(twin, folder)
    assert_refused(folder, spoil(folder))


def no_input_ids(folder: Path) -> str:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "words"
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == "input_ids":
                    node.input[index] = "words"

    changed(folder, rename)
    return "it has no input 'input_ids', only 'words', 'attention_mask'"


def no_states(folder: Path) -> str:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"

    changed(folder, rename)
    return "that a vector could be made of, only 'scores'"


def larger_tokenizer(folder: Path) -> str:
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 400, "content": "[MORE]"})
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return "it cannot be given tokens 0 and 400, the last of tokenizer.json, in 'input_ids'"


def dense_module(folder: Path) -> str:
    kinds = ("Transformer", "Pooling", "Dense")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    return "modules.json: the module Dense is not supported"


@pytest.mark.parametrize(
    "spoil", [no_input_ids, no_states, larger_tokenizer, dense_module], ids=lambda spoil: spoil.__name__
)
def test_an_encoder_that_cannot_be_served(spoil: Callable[[Path], str], tmp_path: Path) -> None:
    folder = onnx_twins.encoder(encoder(tmp_path / "encoder.gguf"), tmp_path / "onnx")
    assert_refused(folder, spoil(folder), "--task", "embed")


def test_a_model_that_generates_has_nothing_to_embed_with(twin: Path) -> None:
    assert_refused(twin, "it has none of the outputs 'sentence_embedding'", "--task", "embed")


def assert_refused(folder: Path, cause: str, *flags: str) -> None:
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(folder), "--port", "0", "--threads", "1", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith(f"inferno: {folder}")
    assert cause in lines[-1]
    assert len(lines) == 1 or "panicked" in done.stderr, lines  # which Rust says by itself
    assert "Serving" not in done.stdout
