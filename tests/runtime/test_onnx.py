"""ONNX models: the ways in which they are exported, under load, and beside their GGUF twins."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
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
    for field in (
        "task",
        "context_train",
        "pieces",
        "end_tokens",
        "controls",
        "control_spellings",
        "bos",
        "eos",
        "chat_template",
    ):
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
