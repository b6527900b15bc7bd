"""A model that is elsewhere: inspected, fetched and served, as a pod does it and as a laptop does."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from inferno_runtime.models.digest import model_digest
from inferno_runtime.models.inspect import inspect
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins
from tests.runtime.onnx_twins import Export
from tests.runtime.test_start import started
from tests.unit.fetch.s3 import ACCESS, REGION, S3, SECRET
from tests.unit.fetch.web import Web

SERVE = ("--port", "0")
ENGINE = {"slots": 1, "threads": 1, "tuning": "off"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Web]:
    with Web({"/models/tiny.gguf": DEFAULT_MODEL.read_bytes()}) as web:
        yield web


def resource(path: Path, **model: str) -> Path:
    document = {
        "apiVersion": "inferno.ai/v1alpha1",
        "kind": "InfernoModel",
        "metadata": {"name": "tiny"},
        "spec": {"model": model, "engine": ENGINE},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def capital(url: str) -> str:
    body = {
        "model": "tiny",
        "temperature": 0,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    answer = httpx.post(f"{url}/chat/completions", json=body, timeout=60, trust_env=False)
    return str(answer.json()["choices"][0]["message"]["content"])


def inferno(*words: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "inferno_runtime", *words], check=True, capture_output=True, text=True
    ).stdout


def test_as_a_pod_does_it(bucket: Web, tmp_path: Path) -> None:
    source, endpoint = "s3://models/tiny.gguf", f"--endpoint={bucket.url}"
    assert json.loads(inferno("inspect", source, endpoint))["architecture"] == "llama"
    link = tmp_path / "current"
    inferno("fetch", source, endpoint, f"--cache={tmp_path / 'cache'}", f"--link={link}")
    with started("run", str(resource(tmp_path / "model.yaml", source=link.as_uri())), *SERVE) as url:
        assert "Paris" in capital(url)
        blob = next(path for path in (tmp_path / "cache" / "blobs").iterdir() if not path.suffix)
        descriptor = os.open(blob, os.O_RDONLY)
        with pytest.raises(BlockingIOError):  # what is served is held, so that nobody evicts it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_an_onnx_folder_as_a_pod_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", REGION)
    twin = onnx_twins.decoder(DEFAULT_MODEL, tmp_path / "twin", Export(external=True, name="onnx/model.onnx"))
    files = {str(path.relative_to(twin)): path.read_bytes() for path in twin.rglob("*") if path.is_file()}
    link = tmp_path / "current"
    with Web({f"/models/twin/{name}": body for name, body in files.items()}) as web:
        S3(web)
        source, endpoint = "s3://models/twin/", f"--endpoint={web.url}"
        before = json.loads(inferno("inspect", source, endpoint))
        assert (before["format"], before["capabilities"]) == ("onnx", ["generate", "chat", "tools"])
        inferno("fetch", source, endpoint, f"--cache={tmp_path / 'cache'}", f"--link={link}")
    card = json.loads(inferno("inspect", link.as_uri()))
    assert card.items() >= before.items(), "what the settings said the graph did not belie"
    assert (card["parameters"], card["sizeBytes"]) == (inspect(twin).parameters, sum(map(len, files.values())))
    path = resource(tmp_path / "model.yaml", source=link.as_uri(), sha256=model_digest(twin))
    with started("run", str(path), *SERVE) as url:
        assert "Paris" in capital(url)
        for blob in (tmp_path / "cache" / "blobs").iterdir():
            if not blob.suffix:
                with blob.open("rb") as file, pytest.raises(BlockingIOError):  # every file of the folder is held
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_as_a_laptop_does(bucket: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = resource(tmp_path / "model.yaml", source="s3://models/tiny.gguf", endpoint=bucket.url)
    with started("run", str(path), *SERVE) as url:
        assert "Paris" in capital(url)
    assert list((tmp_path / "home" / "inferno" / "models" / "blobs").iterdir())


def test_what_cannot_be_fetched_ends_the_start(bucket: Web, tmp_path: Path) -> None:
    path = resource(tmp_path / "model.yaml", source="s3://models/none.gguf", endpoint=bucket.url)
    done = subprocess.run([sys.executable, "-m", "inferno_runtime", "run", str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("inferno: ")
    assert "404, there is no such file" in done.stderr
