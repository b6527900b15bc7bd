"""Which projector a model is served with."""

from pathlib import Path

import pytest

from inferno_runtime.config import ModelConfig
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.projector import locate_projector


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.gguf", "mmproj-F16.gguf", "other.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    return tmp_path


def located(source: Path, model: Path, projector: str | None = None) -> Path | None:
    return locate_projector(ModelConfig(source=source.as_uri(), projector=projector), model)


def test_a_folder_has_the_projector_that_lies_in_it(folder: Path) -> None:
    assert located(folder, folder / "model.gguf") == folder / "mmproj-F16.gguf"
    (folder / "mmproj-F16.gguf").unlink()
    assert located(folder, folder / "model.gguf") is None


def test_a_file_has_the_one_that_is_named(folder: Path) -> None:
    model = folder / "model.gguf"
    assert located(model, model) is None
    assert located(model, model, "mmproj-F16.gguf") == folder / "mmproj-F16.gguf"
    assert located(model, model, (folder / "other.gguf").as_uri()) == folder / "other.gguf"


def test_of_several_one_must_be_named(folder: Path) -> None:
    (folder / "mmproj-Q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"several projectors \(mmproj-F16.gguf, mmproj-Q8_0.gguf\)"):
        located(folder, folder / "model.gguf")
    assert located(folder, folder / "model.gguf", "mmproj-Q8_0.gguf") == folder / "mmproj-Q8_0.gguf"


def test_one_that_is_missing_or_none_is_an_error(folder: Path) -> None:
    (folder / "text").write_bytes(b"text")
    for name, words in (("missing.gguf", "no such file"), ("text", "not a GGUF file")):
        with pytest.raises(ModelError, match=words):
            located(folder, folder / "model.gguf", name)


def test_an_onnx_model_takes_none(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    assert located(tmp_path, tmp_path) is None
    with pytest.raises(ModelError, match="takes no projector"):
        located(tmp_path, tmp_path / "model.onnx", "mmproj.gguf")


@pytest.mark.parametrize("projector", ["", "/absolute", "https://host/file", "a//b", "hf://a/b/c"])
def test_what_names_no_projector_is_refused(projector: str) -> None:
    with pytest.raises(ValueError):
        ModelConfig(source="file:///model.gguf", projector=projector)
