"""``inferno fetch`` and ``inferno inspect``, and what they leave for the operator."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferno_operator.preparation import parse_progress
from inferno_runtime import cli
from inferno_runtime.config import AdapterConfig, ModelConfig, RuntimeConfig, ServedModel
from inferno_runtime.fetch import command, report
from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.errors import BadSource, NotFound
from inferno_runtime.fetch.progress import Progress
from inferno_runtime.models.source import DEFAULT_MODEL, locate
from tests.unit.fetch.web import Web

MODEL = DEFAULT_MODEL.read_bytes()
ADAPTER = b"GGUF, or the beginning of one"
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(report.leave, "__defaults__", (path,))
    return path


@pytest.fixture(autouse=True)
def _log_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def bucket(web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """A bucket that needs no keys, since http:// is no source of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    web.files["/models/tiny.gguf"] = MODEL
    return web


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return int(str(ended.value.code))


def test_fetch(bucket: Web, tmp_path: Path, last_words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "models" / "current"
    link.parent.mkdir()
    words = ["fetch", "s3://models/tiny.gguf", f"--endpoint={bucket.url}", f"--cache={tmp_path / 'cache'}"]
    words += [f"--link={link}", "--user=demo/tiny", f"--sha256={DIGEST}"]
    for fetched in (len(MODEL), 0):
        assert run(*words) == 0
        said = json.loads(last_words.read_text())
        assert (said["sha256"], said["bytes"], said["fetchedBytes"]) == (DIGEST, len(MODEL), fetched)
        assert said["model"]["architecture"] == "llama"
        assert len(last_words.read_bytes()) < 1024
    assert (link / "tiny.gguf").read_bytes() == MODEL
    out = capsys.readouterr()
    assert out.out.splitlines()[-1] == str(link.resolve())
    progress = parse_progress(out.err)
    assert progress is not None
    assert progress.bytes == progress.total_bytes == len(MODEL)
    assert locate(ModelConfig(source=link.as_uri(), sha256=DIGEST)) == link / "tiny.gguf"


FAILURES: dict[str, tuple[list[str], str]] = {
    "not there": (["fetch", "s3://models/none.gguf"], "NotFound"),
    "no model": (["inspect", "s3://models/notes.gguf"], "NoModel"),
    "another digest": (["fetch", "s3://models/tiny.gguf", "--sha256", "0" * 64], "DigestMismatch"),
    "no source": (["fetch", "models/tiny.gguf"], "BadSource"),
    "what a cluster mounts": (["inspect", "pvc://models/tiny.gguf"], "BadSource"),
    "no such file": (["inspect", "file:///nowhere/tiny.gguf"], "NotFound"),
    "too large for the cache": (["fetch", "s3://models/tiny.gguf", "--cache-limit", "1000"], "CacheFull"),
}


@pytest.mark.parametrize(("words", "reason"), FAILURES.values(), ids=FAILURES)
def test_failures(words: list[str], reason: str, bucket: Web, tmp_path: Path, last_words: Path) -> None:
    bucket.files["/models/notes.gguf"] = b"notes"
    cache = [f"--cache={tmp_path / 'cache'}"] if words[0] == "fetch" else []
    assert run(*words, f"--endpoint={bucket.url}", *cache) == 1
    said = json.loads(last_words.read_text())
    assert said["reason"] == reason
    assert said["message"]


def test_inspect(last_words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", DEFAULT_MODEL.as_uri()) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(last_words.read_text())["model"]


@pytest.mark.parametrize("named", ["mmproj.gguf", "file:"])
def test_inspect_a_projector(last_words: Path, tmp_path: Path, named: str) -> None:
    model, projector = tmp_path / "model.gguf", tmp_path / "mmproj.gguf"
    model.write_bytes(DEFAULT_MODEL.read_bytes())
    projector.write_bytes(b"x" * 1000)
    given = projector.as_uri() if named == "file:" else named
    assert run("inspect", model.as_uri(), f"--projector={given}") == 0
    told = json.loads(last_words.read_text())["model"]
    assert told["projectorBytes"] == 1000
    assert "vision" in told["capabilities"]
    assert run("inspect", tmp_path.as_uri(), "--projector=mmproj.gguf") == 0  # where it is one of the model's files
    assert json.loads(last_words.read_text())["model"]["projectorBytes"] == 0


def test_inspect_adapters(last_words: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "sql.gguf"
    adapter.write_bytes(b"x" * 1000)
    given = [f"--adapter={source}" for source in (adapter.as_uri(), adapter.as_uri(), "file:///nowhere/terse.gguf")]
    assert run("inspect", DEFAULT_MODEL.as_uri(), *given) == 0
    assert json.loads(last_words.read_text())["model"]["adapterBytes"] == 2000
    assert run("inspect", DEFAULT_MODEL.as_uri(), "--adapter=pvc://claim/sql.gguf") == 1
    assert json.loads(last_words.read_text())["reason"] == "BadSource"


def test_inspect_adapters_that_are_elsewhere(bucket: Web, last_words: Path) -> None:
    given = ["--adapter=s3://models/sql.gguf", f"--endpoint={bucket.url}"]
    bucket.files["/models/sql.gguf"] = ADAPTER
    assert run("inspect", "s3://models/tiny.gguf", *given) == 0
    assert json.loads(last_words.read_text())["model"]["adapterBytes"] == len(ADAPTER)


def test_fetch_adapters(bucket: Web, tmp_path: Path, last_words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    bucket.files |= {"/models/a/sql.gguf": ADAPTER, "/models/b/sql.gguf": ADAPTER + b"other"}
    folder = tmp_path / "adapters"
    folder.mkdir()
    digest = hashlib.sha256(ADAPTER).hexdigest()
    words = [f"--adapter=one=s3://models/a/sql.gguf#{digest}", "--adapter=two=s3://models/b/sql.gguf"]
    words += [f"--cache={tmp_path / 'cache'}", f"--folder={folder}", "--user=demo/tiny"]
    for fetched in (2 * len(ADAPTER) + 5, 0):
        assert run("fetch-adapters", *words) == 0
        assert json.loads(last_words.read_text()) == {"adapters": 2, "fetchedBytes": fetched}
    assert (folder / "one.gguf").read_bytes() == ADAPTER
    assert (folder / "two.gguf").read_bytes() == ADAPTER + b"other"
    assert len(list(Cache(tmp_path / "cache").records("uses"))) == 2, "each is in use on its own"


UNFIT: dict[str, tuple[str, str]] = {
    "another digest": ("s3://models/sql.gguf#" + "0" * 64, "DigestMismatch"),
    "not there": ("s3://models/none.gguf", "NotFound"),
    "no GGUF file": ("s3://models/notes.gguf", "NoModel"),
    "a folder": ("s3://models/several/", "BadSource"),
    "here already": ("file:///sql.gguf", "BadSource"),
    "of a cluster": ("pvc://claim/sql.gguf", "BadSource"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_adapter_that_cannot_be_had(
    bucket: Web, tmp_path: Path, last_words: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    bucket.files |= {"/models/sql.gguf": ADAPTER, "/models/notes.gguf": b"some text"}
    bucket.files |= {f"/models/several/{name}.gguf": ADAPTER for name in "ab"}
    source, reason = UNFIT[case]
    assert run("fetch-adapters", f"--adapter=sql={source}", f"--cache={tmp_path / 'cache'}") == 1
    assert json.loads(last_words.read_text())["reason"] == reason


def test_a_long_message_is_cut_where_a_character_ends(last_words: Path) -> None:
    report.leave(report.failure("Rejected", "ä" * 5000))
    said = last_words.read_bytes()
    assert len(said) < 4096
    assert json.loads(said)["message"] == "ä" * 1024


def served(source: str, **more: Any) -> RuntimeConfig:
    return RuntimeConfig(models=(ServedModel(name="tiny", model=ModelConfig(source=source, **more)),))


def test_a_laptop_fetches_what_it_serves(bucket: Web, tmp_path: Path) -> None:
    config = served("s3://models/tiny.gguf", endpoint=bucket.url, sha256=DIGEST)
    for _ in range(2):
        local = command.localized(config, tmp_path / "cache").models[0].model
        assert locate(local).read_bytes() == MODEL
    assert command.localized(served("file:///m.gguf")) == served("file:///m.gguf")
    bucket.files["/models/sql.gguf"] = ADAPTER
    adapters = [
        AdapterConfig(name="sql", source="s3://models/sql.gguf"),
        AdapterConfig(name="b", source="file:///b.gguf"),
    ]
    config = served("s3://models/tiny.gguf", endpoint=bucket.url, adapters=adapters)
    fetched, beside = command.localized(config, tmp_path / "cache").models[0].model.adapters
    assert Path(fetched.source.removeprefix("file://")).read_bytes() == ADAPTER
    assert beside == adapters[1]
    for source, error in (("pvc://models/m.gguf", BadSource), ("s3://models/none.gguf", NotFound)):
        with pytest.raises(error):
            command.localized(served(source, endpoint=bucket.url), tmp_path / "cache")


def test_serve_takes_a_source() -> None:
    config = cli.configuration(cli.parser().parse_args(["serve", "hf://org/repo/tiny-Q8_0.gguf"]))
    assert config.models[0].model.source == "hf://org/repo/tiny-Q8_0.gguf"
    assert config.models[0].name == "tiny-Q8_0"


def test_progress_is_read_from_the_log_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    report.configure_log()
    progress = Progress(total=10)
    progress.begin()
    progress.advance(5, "m")
    told = parse_progress(capsys.readouterr().err)
    assert told is not None
    assert (told.bytes, told.total_bytes) == (5, 10)
