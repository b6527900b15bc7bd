"""How a start ends that cannot go well, and one that serves several models."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import httpx
import openai
import pytest

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime.random_models import CONTEXT, WIDTH

SECONDS = 120  # a start takes no longer


@contextmanager
def started(*words: str) -> Iterator[str]:
    """A server started by this command line; gives its base URL, and holds it to the command that it offers."""
    process = subprocess.Popen([sys.executable, "-m", "inferno_runtime", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at " in line, "the server did not say where it listens"
        url = line.rpartition(" at ")[2].strip()
        curl, address, header, content_type, data, body = shlex.split(process.stdout.readline().removeprefix("Try: "))
        assert (curl, address, header, data) == ("curl", f"{url}/chat/completions", "-H", "-d")
        name, _, value = content_type.partition(": ")
        answer = httpx.post(address, headers={name: value}, content=body, timeout=60, trust_env=False)
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
        yield url
    finally:
        process.terminate()
        assert process.wait(timeout=SECONDS) == 0
        assert process.stdout is not None
        process.stdout.close()


def truncated(path: Path) -> None:
    path.write_bytes(DEFAULT_MODEL.read_bytes()[:-100_000])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(DEFAULT_MODEL.read_bytes()[:1000])


def not_gguf(path: Path) -> None:
    path.write_bytes(b"<html>404 Not Found</html>")


def empty(path: Path) -> None:
    path.touch()


def missing(path: Path) -> None:
    pass


def unknown_architecture(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "perceptron")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def hostile_lengths(path: Path) -> None:
    """A header that claims to hold 2^60 entries."""
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (1 << 60).to_bytes(8, "little") * 2)


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (missing, "no such file"),
        (empty, "not a GGUF file"),
        (not_gguf, "not a GGUF file"),
        (truncated, "corrupted or incomplete"),
        (cut_in_the_header, ""),
        (unknown_architecture, "unknown model architecture: 'perceptron'"),
        (hostile_lengths, ""),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_file_that_cannot_be_served_is_one_line_and_exit_code_1(
    make: Callable[[Path], None], cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    make(path)
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"inferno: {path}: ")
    assert cause in line
    assert "Serving" not in done.stdout


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with started("serve", "--port", "0") as url:
        port = url.rsplit(":", 1)[1].removesuffix("/v1")
        command = [sys.executable, "-m", "inferno_runtime", "serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr.splitlines()[-1]


def test_several_resources_share_one_server_with_an_engine_each(tmp_path: Path) -> None:
    documents = [
        f"apiVersion: inferno.ai/v1alpha1\nkind: InfernoModel\nmetadata: {{name: {name}}}\nspec:\n"
        f"  model: {{source: '{DEFAULT_MODEL.as_uri()}', aliases: [{name}-alias]}}\n"
        "  engine: {slots: 2, threads: 1, tuning: 'off'}\n"
        for name in ("first", "second")
    ]
    path = tmp_path / "models.yaml"
    path.write_text("---\n".join(documents))
    with started("run", str(path), "--port", "0") as url:
        client = openai.OpenAI(base_url=url, api_key="unused")
        assert {model.id for model in client.models.list()} >= {"first", "second"}
        for model in ("first", "second", "second-alias"):
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "What is the capital of Italy?"}], temperature=0
            )
            assert "Rome" in (answer.choices[0].message.content or "")
        health = httpx.get(url.removesuffix("/v1") + "/health", trust_env=False).json()
        assert [model["model"] for model in health["models"]] == ["first", "second"]
