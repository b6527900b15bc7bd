"""Drafts by a real model: the built-in one drafts for itself, and what cannot draft is refused in one line."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from inferno_runtime.backends import load_backend, load_tokenizer
from inferno_runtime.backends.base import Backend
from inferno_runtime.config import EngineConfig
from inferno_runtime.engine.request import Request, Sampling
from inferno_runtime.engine.scheduler import Scheduler
from inferno_runtime.models.source import DEFAULT_MODEL
from inferno_runtime.worker.draft import load_draft
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.random_models import llama, recurrent

GREEDY = Sampling(temperature=0)
SECONDS = 120  # a start takes no longer
ITSELF = EngineConfig(threads=1, tuning="off", slots=2, context_length=256, draft=DEFAULT_MODEL.as_uri())
PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QUESTIONS = ["What is the capital of France?", "What is the opposite of hot?"]


def free_drafts(config: EngineConfig, backend: Backend) -> Scheduler:
    """A scheduler that takes drafting for free, so that whether it drafts does not depend on the machine."""
    scheduler = Scheduler(
        backend,
        end_tokens=[],
        step_budget=10.0,
        clock=lambda: 0.0,
        speculate=True,
        draft=load_draft(config, backend),
    )
    scheduler.speculation.observe_cost = lambda tokens, seconds: None  # type: ignore[method-assign]
    return scheduler


def say(scheduler: Scheduler, prompts: list[list[int]]) -> tuple[list[list[int]], int]:
    """What the model says to each prompt, and in how many steps."""
    said: list[list[int]] = [[] for _ in prompts]
    for number, prompt in enumerate(prompts):
        scheduler.submit(Request(number, prompt, 40, GREEDY, ignore_eos=True))
    steps = 0
    while scheduler.busy:
        result = scheduler.step()
        steps += 1
        for number, token in zip(result.ids, result.tokens, strict=True):
            said[number].append(token)
    return said, steps


def test_a_model_that_drafts_for_itself_is_nearly_always_right() -> None:
    tokenizer = load_tokenizer(str(DEFAULT_MODEL))
    prompts = [tokenizer.encode(PROMPT.format(text), add_special=True, parse_special=True) for text in QUESTIONS]
    backend = load_backend(str(DEFAULT_MODEL), ITSELF)
    alone = Scheduler(backend, end_tokens=[], step_budget=10.0, clock=time.monotonic)
    without, steps = say(alone, prompts)
    for slot in range(backend.slots):
        backend.clear(slot)
    scheduler = free_drafts(ITSELF, backend)
    speculation = scheduler.speculation
    with patch.object(speculation, "observe", wraps=speculation.observe) as observe:
        said, fewer = say(scheduler, prompts)
    fates = [(drafted, accepted) for (_, drafted, accepted), _ in observe.call_args_list]
    assert said == without
    assert fewer < steps
    right = sum(accepted for _, accepted in fates)
    wrong = sum(accepted < drafted for drafted, accepted in fates)  # behind a wrong token nothing is judged
    assert right > 20
    assert right > 0.95 * (right + wrong)
    backend.close()


def test_a_server_says_that_it_has_a_draft_model_and_answers_with_it() -> None:
    with ServerProcess("--draft", str(DEFAULT_MODEL), "--slots", "2") as server:
        answer = server.chat(temperature=0).json()
        assert "Paris" in answer["choices"][0]["message"]["content"]
        assert server.client.get("/health").json()["engine"]["draft"] == DEFAULT_MODEL.name
        assert f"{MODEL}: drafts come from {DEFAULT_MODEL.name}" in server.log


def missing(path: Path) -> Path:
    return path


def larger(path: Path) -> Path:
    return llama(path, lambda tokens: [*tokens, "another"])


def reordered(path: Path) -> Path:
    return llama(path, lambda tokens: [*tokens[:-2], tokens[-1], tokens[-2]])


def uncuttable(path: Path) -> Path:
    return recurrent(path)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (missing, "no such file"),
        (larger, "a draft model of 1731 tokens cannot draft for a model of 1730"),
        (reordered, "the draft model's token 1728 is b"),
        (uncuttable, "mamba cannot draft, because its memory cannot be cut"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_draft_model_that_cannot_draft_is_one_line_and_exit_code_1(
    make: Callable[[Path], Path], cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "draft.gguf"
    make(path)
    command = [sys.executable, "-m", "inferno_runtime", "serve", "--draft", str(path), "--port", "0"]
    done = subprocess.run(
        [*command, "--threads", "1", "--tuning", "off"], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"inferno: {path}: ")
    assert cause in line


def test_a_model_that_cannot_be_cut_takes_no_draft(tmp_path: Path) -> None:
    path = recurrent(tmp_path / "model.gguf")
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(path), "--draft", str(DEFAULT_MODEL)]
    done = subprocess.run(
        [*command, "--port", "0", "--threads", "1", "--tuning", "off"], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1
    assert "no model can draft for mamba, whose memory cannot be cut" in done.stderr.splitlines()[-1]
