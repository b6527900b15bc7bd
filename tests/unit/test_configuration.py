"""From flags and resources to a configuration."""

import os
import re
import signal
from pathlib import Path

import pytest

from inferno_runtime import cli
from inferno_runtime.backends.base import AdapterFile, ModelError
from inferno_runtime.cli import configuration, main, parser
from inferno_runtime.config import AdapterConfig, EngineConfig, ListenConfig, ModelConfig, RuntimeConfig, ServerConfig
from inferno_runtime.models.adapters import locate_adapters
from inferno_runtime.models.source import DEFAULT_MODEL, locate, path_of
from inferno_runtime.resource import ResourceError

RESOURCE = """\
apiVersion: inferno.ai/v1alpha1
kind: InfernoModel
metadata: {name: tiny}
spec:
  model: {source: file:///models/tiny.gguf, aliases: [small]}
  engine: {contextLength: 512, slots: 2}
  server: {tokenBatchSize: 1}
  replicas: 3
"""


def configured(*words: str) -> RuntimeConfig:
    return configuration(parser().parse_args(list(words)))


def test_serve_without_a_model_takes_the_built_in_one() -> None:
    config = configured("serve")
    assert config.models[0].name == "inferno-tiny"
    assert path_of(config.models[0].model.source) == DEFAULT_MODEL
    assert (config.server, config.listen) == (ServerConfig(), ListenConfig())


def test_serve_turns_flags_into_configuration() -> None:
    config = configured(
        "serve", "x y.gguf", "--slots", "3", "--flash-attention", "off", "--port", "0", "--token-batch-ms", "5"
    )
    assert config.models[0].engine == EngineConfig(slots=3, flash_attention="off")
    assert config.models[0].name == "x y"
    assert path_of(config.models[0].model.source) == Path("x y.gguf").absolute()
    assert config.listen.port == 0
    assert config.server.token_batch_ms == 5


def test_a_draft_model_may_be_a_path_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert configured("serve", "--draft", "a b.gguf").models[0].engine.draft == Path("a b.gguf").absolute().as_uri()
    assert configured("serve", "--draft", "file:///m.gguf").models[0].engine.draft == "file:///m.gguf"
    with pytest.raises(SystemExit):
        main(["serve", "--draft", "pvc://models/m.gguf"])
    assert re.fullmatch(r"inferno: spec\.engine\.draft: .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("given", "path", "scale"),
    [
        ("sing=a b.gguf", "a b.gguf", 1.0),
        ("sing=a.gguf,0.5", "a.gguf", 0.5),
        ("sing=a,b.gguf", "a,b.gguf", 1.0),
        ("sing=a,b.gguf,-2", "a,b.gguf", -2.0),
        ("sing=x=y.gguf", "x=y.gguf", 1.0),
    ],
)
def test_an_adapter_on_the_command_line(given: str, path: str, scale: float) -> None:
    (adapter,) = configured("serve", "--adapter", given).models[0].model.adapters
    assert (adapter.name, path_of(adapter.source), adapter.scale) == ("sing", Path(path).absolute(), scale)


@pytest.mark.parametrize("given", ["sing", "=a.gguf", "sing=", "a:b=a.gguf", "sing=a.gguf,1000", "sing=a.gguf,nan"])
def test_an_adapter_that_cannot_be_meant(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        configured("serve", "--adapter", given)
    assert "argument --adapter: '" in capsys.readouterr().err


def test_adapters_in_a_resource(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    given = "{name: sing, source: file:///a.gguf, scale: 0.5}"
    path.write_text(RESOURCE.replace("aliases: [small]", f"adapters: [{given}, {{name: hum, source: file:///b.gguf}}]"))
    adapters = configured("run", str(path)).models[0].model.adapters
    assert [(adapter.name, adapter.scale) for adapter in adapters] == [("sing", 0.5), ("hum", 1.0)]


def test_the_files_of_adapters_are_checked(tmp_path: Path) -> None:
    def located(source: str, sha256: str | None = None) -> tuple[AdapterFile, ...]:
        adapter = AdapterConfig(name="a", source=source, scale=2, sha256=sha256)
        return locate_adapters(ModelConfig(source="file:///m.gguf", adapters=(adapter,)))

    assert located(DEFAULT_MODEL.as_uri()) == (AdapterFile(str(DEFAULT_MODEL), 2.0),)
    with pytest.raises(ModelError, match="no such file"):
        located((tmp_path / "missing.gguf").as_uri())
    with pytest.raises(ModelError, match="an adapter is a GGUF file, not a folder"):
        located(tmp_path.as_uri())
    with pytest.raises(ModelError, match="its SHA-256 digest is"):
        located(DEFAULT_MODEL.as_uri(), sha256="0" * 64)


def test_every_knob_has_a_flag_with_its_description() -> None:
    helped = " ".join(parser()._subparsers._group_actions[0].choices["serve"].format_help().split())  # type: ignore[union-attr, index]
    for section in (ListenConfig, ServerConfig, EngineConfig):
        for name, field in section.model_fields.items():
            assert f"--{name.replace('_', '-')} " in helped
            assert field.description
            assert field.description.endswith(".")


def test_run_takes_the_resource_of_a_cluster(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(RESOURCE)
    config = configured("run", str(path), "--host", "0.0.0.0")
    (served,) = config.models
    assert served.name == "tiny"
    assert served.model == ModelConfig(source="file:///models/tiny.gguf", aliases=("small",))
    assert served.engine == EngineConfig(context_length=512, slots=2)
    assert config.server == ServerConfig(token_batch_size=1)
    assert config.listen.host == "0.0.0.0"


def test_several_resources_make_one_server(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(RESOURCE + "---\n" + RESOURCE.replace("name: tiny", "name: other"))
    (tmp_path / "b.yaml").write_text(
        RESOURCE.replace("name: tiny", "name: third").replace("  server: {tokenBatchSize: 1}\n", "")
    )
    config = configured("run", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert [served.name for served in config.models] == ["tiny", "other", "third"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind: InfernoModel", "kind: Pod"), "not an InfernoModel"),
        (("metadata: {name: tiny}", "metadata: {}"), "metadata.name is missing"),
        (("slots: 2", "slots: 0"), r"spec.engine.slots: .*greater than or equal to 1"),
        (("slots: 2", "slotz: 2"), r"spec.engine.slotz: Extra inputs"),
        (("source: file:///models/tiny.gguf, ", ""), r"spec.model.source: Field required"),
        (("aliases: [small]", "adapters: [{name: a}]"), r"spec.model.adapters.0.source: Field required"),
        (("aliases: [small]", "adapters: [{name: 'a:b', source: file:///a}]"), r"spec.model.adapters.0.name: .*match"),
        (("spec:", "spec: ["), "not YAML"),
    ],
)
def test_a_wrong_resource_is_named_with_its_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(RESOURCE.replace(*change))
    with pytest.raises(ResourceError, match=message) as caught:
        configured("run", str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_servers_that_differ_cannot_be_one(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        RESOURCE + "---\n" + RESOURCE.replace("name: tiny", "name: b").replace("tokenBatchSize: 1", "tokenBatchSize: 2")
    )
    with pytest.raises(ResourceError, match=r"spec\.server differ"):
        configured("run", str(path))


def test_a_flag_out_of_range_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--slots", "0"])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"inferno: spec\.engine\.slots: .*\n", error)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", r"not a GGUF file \(it is empty\)"), (b"PK\x03\x04rest", "not a GGUF file")],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        locate(ModelConfig(source=path.as_uri()))


def test_an_empty_folder_and_another_scheme_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a GGUF nor an ONNX model"):
        locate(ModelConfig(source=tmp_path.as_uri()))
    with pytest.raises(ModelError, match="only file:///PATH"):
        locate(ModelConfig(source="pvc://models/tiny.gguf"))


def test_the_digest_is_checked() -> None:
    import hashlib

    digest = hashlib.sha256(DEFAULT_MODEL.read_bytes()).hexdigest()
    assert locate(ModelConfig(source=DEFAULT_MODEL.as_uri(), sha256=digest)) == DEFAULT_MODEL
    with pytest.raises(ModelError, match=f"its SHA-256 digest is {digest}"):
        locate(ModelConfig(source=DEFAULT_MODEL.as_uri(), sha256="0" * 64))


def test_a_task_and_a_pooling_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    served = configured("serve", "m.gguf", "--task", "embed", "--pooling", "cls").models[0]
    assert (served.model.task, served.engine.pooling) == ("embed", "cls")
    assert configured("serve", "m.gguf").models[0].model.task is None
    for words in (["--task", "sing"], ["--pooling", "none"], ["--overlong-inputs", "keep"]):
        with pytest.raises(SystemExit):
            configured("serve", "m.gguf", *words)
    assert "invalid choice: 'none'" in capsys.readouterr().err


def test_a_flag_of_several_values_is_repeated() -> None:
    config = configured("serve", "--allowed-origins", "https://a.example", "--allowed-origins", "*")
    assert config.server.allowed_origins == ("https://a.example", "*")


def test_who_leaves_tells_the_containers_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(cli, "_SERVER", os.getpid())
    before = signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))
    try:
        with pytest.raises(SystemExit) as ended:
            main(["leave", "--seconds=0"])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (ended.value.code, told) == (0, [signal.SIGUSR1])
