"""LoRA adapters on the real library: what one says is what a model says that has it merged into its weights."""

import fcntl
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import httpx
import numpy as np
import pytest

from inferno_runtime.backends import load_backend
from inferno_runtime.backends.base import AdapterFile, Backend, ModelError, Span
from inferno_runtime.config import EngineConfig
from inferno_runtime.engine.request import FinishReason, Request, Sampling
from inferno_runtime.engine.scheduler import Scheduler
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import lora, onnx_twins
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.random_models import encoder, llama

SCALES = (1.0, 0.5)
TOLERANCE = 0.05  # of logits whose largest are about 10
CONFIG = EngineConfig(threads=1, slots=6, context_length=256, tuning="off")
ANSWER = 16


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model in full precision: merging rounds nothing then."""
    return lora.plain(tmp_path_factory.mktemp("base") / "base.gguf")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    return [lora.adapter(folder / f"{seed}.gguf", lora.pairs(seed)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Backend]]:
    """Each adapter merged into the model, behind the model itself."""
    folder = tmp_path_factory.mktemp("merged")
    paths = [base, *(lora.merged(folder / f"{i}.gguf", lora.pairs(i + 1), scale) for i, scale in enumerate(SCALES))]
    backends = [load_backend(str(path), CONFIG) for path in paths]
    yield backends
    for backend in backends:
        backend.close()


@pytest.fixture
def adapted(base: Path, files: list[Path]) -> Iterator[Backend]:
    """The model with both adapters."""
    adapters = [AdapterFile(str(path), scale) for path, scale in zip(files, SCALES, strict=True)]
    backend = load_backend(str(base), CONFIG, None, adapters)
    yield backend
    backend.close()


def prompts() -> list[list[int]]:
    """Prompts that share beginnings, each of which is asked of everybody."""
    rng = random.Random(5)
    words = [rng.randrange(10, 1700) for _ in range(150)]
    return [[*words[:length], *(rng.randrange(10, 1700) for _ in range(5))] for length in (0, 20, 70, 70, 150)]


def test_an_adapter_gives_the_logits_of_a_merged_model(adapted: Backend, models: list[Backend]) -> None:
    prompt = prompts()[2]
    rows = []
    for adapter in (1, 0, 2, 1):  # also after another, and in a slot that another has used
        adapted.clear(0)
        (row,) = adapted.evaluate([Span(0, 0, prompt, 1, adapter)])
        rows.append(row.copy())
        models[adapter].clear(0)
        (right,) = models[adapter].evaluate([Span(0, 0, prompt, 1)])
        assert np.abs(row - right).max() < TOLERANCE
    assert np.abs(rows[0] - rows[1]).max() > 20 * TOLERANCE  # they do differ
    assert np.abs(rows[0] - rows[2]).max() > 20 * TOLERANCE


@pytest.mark.parametrize("speculate", [False, True])
def test_under_load_each_sequence_says_what_the_merged_model_says(
    adapted: Backend, models: list[Backend], speculate: bool
) -> None:
    scheduler = Scheduler(
        adapted,
        end_tokens=[],
        step_budget=0.02,
        clock=time.monotonic,
        store_bytes=1 << 24,
        speculate=speculate,
        adapters=2,
    )
    work = [(prompt, adapter) for prompt in prompts() * 2 for adapter in (0, 1, 2)]
    said: list[list[int]] = [[] for _ in work]
    for number, (prompt, adapter) in enumerate(work):
        greedy = Sampling(temperature=0.0)
        scheduler.submit(Request(number, prompt, ANSWER, greedy, ignore_eos=True, adapter=adapter))
    while scheduler.busy:
        result = scheduler.step()
        for request_id, token in zip(result.ids, result.tokens, strict=True):
            said[request_id].append(token)
        assert all(finished.reason is FinishReason.LENGTH for finished in result.finished), result.finished
    for (prompt, adapter), answer in zip(work, said, strict=True):
        _check(models[adapter], prompt, answer)
    for one, other in combinations(range(3), 2):  # to most prompts they do not say the same
        alike = sum(a == b for a, b in zip(said[one::3], said[other::3], strict=True))
        assert alike < len(prompts())


def _check(model: Backend, prompt: list[int], answer: list[int]) -> None:
    """Each token is the likeliest to the model, or as good as that."""
    assert len(answer) == ANSWER
    model.clear(0)
    piece, start = prompt, 0
    for token in answer:
        (row,) = model.evaluate([Span(0, start, piece, 1)])
        assert row[token] >= row.max() - TOLERANCE
        start += len(piece)
        piece = [token]


@pytest.fixture(scope="module")
def server(base: Path, files: list[Path]) -> Iterator[ServerProcess]:
    flags = ["--adapter", f"shout={files[0]}", "--adapter", f"whisper={files[1]},{SCALES[1]}"]
    with ServerProcess(str(base), "--name", MODEL, "--slots", "4", *flags) as process:
        yield process


def ask(server: ServerProcess, model: str, question: str, **fields: object) -> list[str]:
    body = {"model": model, "prompt": question, "max_tokens": 24, "temperature": 0, **fields}
    answer = server.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    return [choice["text"] for choice in answer.json()["choices"]]


def test_requests_that_come_together_are_answered_as_one_by_one(server: ServerProcess) -> None:
    names = [MODEL, f"{MODEL}:shout", f"{MODEL}:whisper"]
    story = "Once upon a time there was a lighthouse, and its keeper counted the ships. "
    work = [(name, f"{story}{question}") for question in ("One, two,", "The capital of") for name in names]
    alone = [ask(server, *job) for job in work]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda job: ask(server, *job), work * 2))
    assert together == alone * 2
    assert len({tuple(texts) for texts in alone}) == len(work)
    # Several choices and a seed, hot: a choice is a function of both.
    hot = {"temperature": 1.0, "seed": 7, "n": 3}
    first = ask(server, names[1], work[0][1], **hot)
    with ThreadPoolExecutor(3) as pool:
        beside = pool.map(lambda name: ask(server, name, work[0][1], **hot), names)
        assert list(beside)[1] == first


def test_adapters_among_the_models_and_in_the_metrics(server: ServerProcess) -> None:
    listed = {model["id"]: model for model in server.client.get("/v1/models").json()["data"]}
    assert list(listed) == [MODEL, f"{MODEL}:shout", f"{MODEL}:whisper"]
    shout = listed[f"{MODEL}:shout"]
    assert (shout["root"], shout["parent"], shout["max_model_len"]) == (shout["id"], MODEL, 1024)
    assert server.client.get(f"/v1/models/{MODEL}:shout").json() == shout
    ask(server, f"{MODEL}:shout", "One")
    assert f'inferno_requests_total{{endpoint="completions",model_name="{MODEL}:shout",status="200"}}' in (
        server.client.get("/metrics").text
    )


def test_an_unknown_adapter_is_told_which_there_are(server: ServerProcess) -> None:
    answer = server.client.post("/v1/completions", json={"model": f"{MODEL}:sing", "prompt": "One"})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].endswith(f"With an adapter there are: {MODEL}:shout, {MODEL}:whisper.")


def of_another_shape(path: Path) -> None:
    wider = {name: (np.zeros((a.shape[0], a.shape[1] + 32), np.float32), b) for name, (a, b) in lora.pairs(1).items()}
    lora.adapter(path, wider)


def of_another_architecture(path: Path) -> None:
    lora.adapter(path, lora.pairs(1), architecture="qwen2")


def of_other_tensors(path: Path) -> None:
    lora.adapter(path, {"blk.99.attn_q.weight": next(iter(lora.pairs(1).values()))})


def a_model(path: Path) -> None:
    path.write_bytes(DEFAULT_MODEL.read_bytes())


def half_of_one(path: Path) -> None:
    lora.adapter(path, lora.pairs(1))
    path.write_bytes(path.read_bytes()[:-4000])


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (of_another_shape, "has incorrect shape"),
        (of_another_architecture, "arch mismatch"),
        (of_other_tensors, "'blk.99.attn_q.weight' does not exist in base model"),
        (a_model, "expect general.type to be 'adapter'"),
        (half_of_one, "not within the file bounds"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(make: Callable[[Path], None], cause: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    make(path)
    with pytest.raises(ModelError) as caught:
        load_backend(str(DEFAULT_MODEL), CONFIG, None, [AdapterFile(str(path), 1.0)])
    message = str(caught.value)
    assert message.startswith(f"{path}: not a LoRA adapter of this model: ")
    assert cause in message
    assert "\n" not in message


def onnx(folder: Path) -> str:
    return str(onnx_twins.decoder(DEFAULT_MODEL, folder))


def one_that_embeds(folder: Path) -> str:
    return str(encoder(folder / "encoder.gguf"))


def another_model(folder: Path) -> str:
    return str(llama(folder / "llama.gguf"))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (onnx, "an ONNX graph has its weights built in and takes no LoRA adapters"),
        (one_that_embeds, "a model that embeds takes no LoRA adapters"),
        (another_model, "not a LoRA adapter of this model"),
    ],
)
def test_a_server_whose_model_takes_no_such_adapter_says_so(
    make: Callable[[Path], str], cause: str, files: list[Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "inferno_runtime", "serve", make(tmp_path), "--port", "0", "--tuning", "off"]
    ended = subprocess.run([*command, "--adapter", f"a={files[0]}"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("inferno: /")
    assert cause in last


def test_a_stream_of_an_adapter_is_its_text(server: ServerProcess) -> None:
    body = {"model": f"{MODEL}:whisper", "prompt": "One, two,", "max_tokens": 24, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{server.url}/completions", json=body, timeout=60, trust_env=False) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
    assert all(f'"model":"{MODEL}:whisper"' in line for line in lines)
    text = "".join(httpx.Response(200, text=line).json()["choices"][0]["text"] for line in lines)
    assert [text] == ask(server, f"{MODEL}:whisper", "One, two,")


def test_scores_of_a_prompt_are_the_adapters(server: ServerProcess, models: list[Backend]) -> None:
    prompt = prompts()[1]
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    for number, name in enumerate((MODEL, f"{MODEL}:shout", f"{MODEL}:whisper")):
        answer = server.client.post("/v1/completions", json={"model": name, **body})
        told = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
        models[number].clear(0)
        rows = models[number].evaluate([Span(0, 0, prompt, len(prompt))]).astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        logarithms = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        right = [logarithms[at, token] for at, token in enumerate(prompt[1:])]
        assert np.abs(np.array(told[1 : len(prompt)]) - right).max() < TOLERANCE


def test_forms_and_adapters_at_once(server: ServerProcess) -> None:
    form = {"structured_outputs": {"regex": "[a-z]{8}[0-9]{8}"}}
    work = [(name, fields) for name in (MODEL, f"{MODEL}:shout", f"{MODEL}:whisper") for fields in (form, {})]
    alone = [ask(server, name, "One, two,", **fields) for name, fields in work]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda job: ask(server, job[0], "One, two,", **job[1]), work)) == alone
    assert all(re.fullmatch("[a-z]{8}[0-9]{8}", text) for (text,) in alone[::2])
    assert len({text for (text,) in alone}) == len(work)


def test_tokens_by_an_adapters_name(server: ServerProcess) -> None:
    for name in (MODEL, f"{MODEL}:shout"):
        answer = server.client.post("/tokenize", json={"model": name, "prompt": "Once upon a time"})
        assert answer.json()["count"] == 4
    answer = server.client.post("/tokenize", json={"model": f"{MODEL}:sing", "prompt": "Once"})
    assert answer.status_code == 404


def test_an_adapter_that_is_served_is_held(server: ServerProcess, files: list[Path]) -> None:
    """Those that evict from a cache ask for this lock."""
    for path in files:
        with path.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
