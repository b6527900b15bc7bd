"""ONNX models: the ways in which they are exported, under load, beside their GGUF twins, and broken."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from inferno_runtime.backends import load_backend, load_encoder, load_tokenizer
from inferno_runtime.backends.base import Backend, Span
from inferno_runtime.config import EngineConfig, ModelConfig
from inferno_runtime.engine.request import FinishReason, Request, Sampling
from inferno_runtime.engine.scheduler import Scheduler
from inferno_runtime.models.source import DEFAULT_MODEL, digest, locate
from tests.runtime import onnx_twins
from tests.runtime.bert import Bert
from tests.runtime.onnx_twins import Export
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.random_models import encoder, llama
from tests.runtime.test_memory_kinds import ANSWER, TOLERANCE, prompts, shortfall

GREEDY = Sampling(temperature=0.0)
SECONDS = 120  # a start takes no longer
EXPORTS = [
    Export(),
    Export(positions="counted"),
    Export(positions="ignored"),
    Export(cache=np.float16),
    Export(merged=True, name="decoder_model_merged.onnx"),
    Export(kept=True),
    Export(external=True, name="onnx/model.onnx"),
    Export(fused=True, positions="counted", name="phi.onnx"),
    Export(fused=True),
]


def loaded(path: Path, **engine: Any) -> Backend:
    return load_backend(str(path), EngineConfig(threads=1, **engine))


def named(export: Export) -> str:
    flags = [name for name in ("merged", "kept", "external", "fused") if getattr(export, name)]
    return "-".join([export.positions, np.dtype(export.cache).name, *flags])


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model as ONNX."""
    return onnx_twins.decoder(DEFAULT_MODEL, tmp_path_factory.mktemp("twin"))


# What is evaluated


@pytest.mark.parametrize("export", EXPORTS, ids=named)
def test_however_it_is_exported_it_says_what_its_weights_say(export: Export, tmp_path: Path) -> None:
    source = llama(tmp_path / "model.gguf")
    made, reference = loaded(onnx_twins.decoder(source, tmp_path / "onnx", export)), loaded(source)
    tokens = [[(7 * number + 31 * slot) % 1700 for number in range(24 + 5 * slot)] for slot in range(3)]
    try:
        for backend in (made, reference):  # a prompt whole, one in pieces, and one behind what was cut
            backend.evaluate([Span(0, 0, tokens[0][:-3], logits=0)])
            backend.evaluate([Span(1, 0, tokens[1][:9], logits=0)])
            backend.evaluate([Span(1, 9, tokens[1][9:-3], logits=0)])
            backend.evaluate([Span(2, 0, [*tokens[2][:-3], 5, 6], logits=0)])
            backend.cut(2, len(tokens[2]) - 3)
        for left in (3, 2, 1):
            spans = [Span(slot, len(own) - left, [own[-left]], logits=1) for slot, own in enumerate(tokens)]
            got, wanted = made.evaluate(spans).copy(), reference.evaluate(spans)
            assert np.abs(got - wanted).max() < 0.2  # of logits of about 50, with a cache of 16 bits on one side
            assert np.abs(wanted[0] - wanted[1]).max() > 10
    finally:
        made.close()
        reference.close()


@pytest.mark.parametrize(
    ("export", "together"),
    [
        (Export(), True),
        (Export(fused=True, positions="counted"), True),
        (Export(fused=True), True),
        (Export(positions="counted"), False),
        (Export(positions="ignored"), False),
    ],
)
def test_what_cannot_be_padded_is_found_out_and_said(export: Export, together: bool, tmp_path: Path) -> None:
    made = loaded(onnx_twins.decoder(llama(tmp_path / "model.gguf"), tmp_path / "onnx", export))
    assert ("one sequence at a time" in made.description) == (not together)
    made.close()


@pytest.mark.parametrize("export", [Export(), Export(fused=True)], ids=named)
def test_drafts_of_several_sequences(export: Export, tmp_path: Path) -> None:
    made = loaded(onnx_twins.decoder(DEFAULT_MODEL, tmp_path, export))
    try:
        tokens = [(7 * number) % 1700 for number in range(20)]
        for slot in range(4):
            made.evaluate([Span(slot, 0, tokens[: 10 + slot], logits=0)])
        counts = [1, 4, 1, 2]
        spans = [Span(slot, 10 + slot, tokens[10 + slot :][:count], count) for slot, count in enumerate(counts)]
        together = made.evaluate(spans).copy()
        positions = [10 + slot + number for slot, count in enumerate(counts) for number in range(count)]
        for row, position in zip(together, positions, strict=True):
            made.clear(0)
            (own,) = made.evaluate([Span(0, 0, tokens[: position + 1], logits=1)])
            assert np.abs(row - own).max() < 1e-3
    finally:
        made.close()


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("export", [Export(), Export(fused=True), Export(positions="counted")], ids=named)
def test_text_under_load_is_the_text_alone(export: Export, layout: str, tmp_path: Path) -> None:
    path = onnx_twins.decoder(DEFAULT_MODEL, tmp_path, export)
    backend = loaded(path, slots=3, context_length=256 if layout == "streams" else 512, kv_layout=layout)
    scheduler = Scheduler(backend, end_tokens=[], step_budget=0.01, clock=time.monotonic, store_bytes=1 << 24)
    work = prompts()
    for first_id in (0, 1000):
        said = run(scheduler, work, first_id)
        for prompt, answer in zip(work, said, strict=True):
            assert shortfall(path, prompt, answer) <= TOLERANCE
    assert scheduler.store_bytes


def run(scheduler: Scheduler, work: list[list[int]], first_id: int) -> list[list[int]]:
    """What the model says when all are asked together, some are paused for a while, and some cancelled."""
    said: dict[int, list[int]] = {first_id + number: [] for number in range(len(work))}
    for number, prompt in zip(said, work, strict=True):
        scheduler.submit(Request(number, prompt, ANSWER, GREEDY, ignore_eos=True))
        scheduler.submit(Request(number + 500, prompt, ANSWER, GREEDY, ignore_eos=True))
    steps = 0
    while scheduler.busy or steps < 60:
        result = scheduler.step()
        steps += 1
        for number, token in zip(result.ids, result.tokens, strict=True):
            said.setdefault(number, []).append(token)
        assert all(f.reason in (FinishReason.LENGTH, FinishReason.CANCELLED) for f in result.finished), result.finished
        scheduler.cancel(first_id + 500 + steps)
        (scheduler.pause if steps % 4 else scheduler.resume)(first_id + 1)
        if steps > 40:
            scheduler.resume(first_id + 1)
    return [said[first_id + number] for number in range(len(work))]


def test_guesses_change_nothing(twin: Path) -> None:
    scheduler = Scheduler(loaded(twin), end_tokens=[], step_budget=0.1, clock=time.monotonic, speculate=True)
    work = [[1, 500, 600], [9, 10, 11, 12] * 4, [700, 701, 702] * 5]
    said: list[list[int]] = [[] for _ in work]
    for number, prompt in enumerate(work):
        scheduler.submit(Request(number, prompt, 150, GREEDY, ignore_eos=True))
    while scheduler.busy:
        result = scheduler.step()
        for number, token in zip(result.ids, result.tokens, strict=True):
            said[number].append(token)
    assert scheduler.speculation.accepted  # the model repeats itself
    for prompt, answer in zip(work, said, strict=True):
        assert shortfall(twin, prompt, answer) <= TOLERANCE


def test_a_process_that_dies_of_a_model_is_said_so(twin: Path, tmp_path: Path) -> None:
    # In the place of a file that kills the library, a library that dies of any.
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(twin), "--port", "0"]
    kill = "import os, signal, onnxruntime\nonnxruntime.InferenceSession = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)"
    (tmp_path / "sitecustomize.py").write_text(kill)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"inferno: {twin}: the engine died while it loaded the model (signal 11)"


def test_its_vocabulary_is_its_twins(twin: Path) -> None:
    one, other = load_tokenizer(str(DEFAULT_MODEL)), load_tokenizer(str(twin))
    for field in ("task", "context_train", "pieces", "end_tokens", "control_spellings", "bos", "eos", "chat_template"):
        assert getattr(one, field) == getattr(other, field), field
    for text in (
        "What is 12 + 30?",
        "<|im_start|>user\n<|im_end|>",
        " \n\t naïve 😀 漢字",
        "<tool_call>{}</tool_call>",
    ):
        for flags in ({"parse_special": True}, {"parse_special": False}):
            assert one.encode(text, add_special=True, **flags) == other.encode(text, add_special=True, **flags), text


@pytest.mark.parametrize("pooling", ["max", "mean_sqrt_len", "weightedmean"])
def test_the_other_ways_of_pooling(pooling: str, tmp_path: Path) -> None:
    path = onnx_twins.encoder(encoder(tmp_path / "encoder.gguf"), tmp_path / "onnx")
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    made = load_encoder(str(path), EngineConfig(threads=1))
    states = states_of(path, [2, 10, 11, 3])
    weights = {"weightedmean": np.arange(1, 5) / 10, "mean_sqrt_len": np.full(4, 0.5)}
    wanted = states.max(axis=0) if pooling == "max" else weights[pooling] @ states
    try:
        assert np.abs(made.encode([[2, 10, 11, 3], [2, *[20] * 30, 3]])[0] - wanted).max() < 1e-4
    finally:
        made.close()


def states_of(path: Path, tokens: list[int]) -> Any:
    session = onnxruntime.InferenceSession(str(path / "model.onnx"), providers=["CPUExecutionProvider"])
    ids = np.array([tokens])
    return session.run(
        None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    )[0][0]


def test_a_quantised_model_says_nearly_the_same(twin: Path, tmp_path: Path) -> None:
    shutil.copytree(twin, tmp_path / "int8")
    quantize_dynamic(twin / "model.onnx", tmp_path / "int8" / "model.onnx", weight_type=QuantType.QInt8)
    made, whole = loaded(tmp_path / "int8"), loaded(twin)
    try:
        assert (made.info.quantization, whole.info.quantization) == ("I8", "F32")
        assert "one sequence at a time" not in made.description
        text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
        prompt = load_tokenizer(str(twin)).encode(text, add_special=True, parse_special=True)
        assert greedy(made, prompt, 6) == greedy(whole, prompt, 6)
    finally:
        made.close()
        whole.close()


def test_a_quantised_encoder_gives_nearly_the_same_vectors(tmp_path: Path) -> None:
    path = onnx_twins.encoder(encoder(tmp_path / "encoder.gguf"), tmp_path / "onnx")
    tokens = [[2, 10, 11, 3], [2, *[20] * 30, 3]]
    quantize_dynamic(path / "model.onnx", path / "model_int8.onnx", weight_type=QuantType.QInt8)
    vectors = []
    for name in ("model.onnx", "model_int8.onnx"):
        made = load_encoder(str(path / name), EngineConfig(threads=1))
        vectors.append(made.encode(tokens))
        made.close()
    for one, other in zip(*vectors, strict=True):
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.98


# Where it comes from


def test_the_digest_of_a_folder_is_what_sha256sum_says(tmp_path: Path) -> None:
    for name in ("b.onnx", "a/c.json", "a-b", ".git/config", "é x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    command = "find -L . -type f -not -path '*/.*' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    said = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert digest(tmp_path) == said.split()[0]
    source = tmp_path.as_uri()
    assert locate(ModelConfig(source=source, sha256=digest(tmp_path))) == tmp_path
    (tmp_path / "a-b").write_text("another")
    with pytest.raises(Exception, match="its SHA-256 digest is"):
        locate(ModelConfig(source=source, sha256=said.split()[0]))


def test_a_file_is_served_with_its_tokenizer_beside_it_or_above(twin: Path, tmp_path: Path) -> None:
    shutil.copytree(twin, tmp_path / "copy")
    (tmp_path / "copy" / "onnx").mkdir()
    file = (tmp_path / "copy" / "model.onnx").rename(tmp_path / "copy" / "onnx" / "model_q8.onnx")
    with ServerProcess(str(file), "--name", MODEL) as server:
        assert "Paris" in server.chat(temperature=0).json()["choices"][0]["message"]["content"]
        tuning = server.client.get("/health").json()["engine"]["tuning"]
        assert tuning == {"threads": 1, "providers": ["CPUExecutionProvider"], "arena": True}


# What is broken


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
    return "a folder without an ONNX model"


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


# Models of the world's


def shared(name: str) -> Path:
    folder = os.environ.get("INFERNO_TEST_MODELS")
    path = Path(folder) / name if folder else None
    if path is None or not path.exists():
        pytest.skip(f"INFERNO_TEST_MODELS names no folder with {name}")
    return path


def test_mini_lm_says_what_its_weights_say() -> None:
    path = shared("all-MiniLM-L6-v2-onnx")
    reference = Bert(shared("all-MiniLM-L6-v2-Q8_0.gguf"))  # whose weights are rounded to 8 bits
    tokenizer, made = load_tokenizer(str(path)), load_encoder(str(path), EngineConfig(threads=1))
    assert (tokenizer.task, tokenizer.context_train, made.context, made.info.dimensions) == ("embed", 256, 256, 384)
    texts = ["hello world", "A man is playing the guitar.", "Où est la bibliothèque ?"]
    tokens = [tokenizer.encode(text, add_special=True, parse_special=True) for text in texts]
    assert tokens[0] == [101, 7592, 2088, 102]
    try:
        for vector, own in zip(made.encode(tokens), tokens, strict=True):
            assert vector @ reference.embed(own) / np.linalg.norm(vector) > 0.999
    finally:
        made.close()


def test_inferno_tiny_says_what_its_twin_says() -> None:
    path, twin = shared("inferno-tiny-onnx"), shared("inferno-tiny-F16.gguf")
    tokenizer, made, other = load_tokenizer(str(path)), loaded(path), loaded(twin)
    try:
        for question in ("What is the capital of Italy?", "Tell me a story.", "What is 12 + 30?"):
            text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            prompt = tokenizer.encode(text, add_special=True, parse_special=True)
            said = [greedy(backend, prompt, 32) for backend in (made, other)]
            assert said[0] == said[1]
    finally:
        made.close()
        other.close()


def greedy(backend: Backend, prompt: list[int], count: int) -> list[int]:
    backend.clear(0)
    tokens, said = prompt, list[int]()
    for _ in range(count):
        start = 0 if not said else len(prompt) + len(said) - 1
        (row,) = backend.evaluate([Span(0, start, tokens, logits=1)])
        said.append(int(row.argmax()))
        tokens = said[-1:]
    return said
