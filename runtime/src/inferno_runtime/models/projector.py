"""The projector that lets a model read images: from its source, or from beside the model."""

from pathlib import Path

from inferno_runtime.config import ModelConfig
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.files import is_projector
from inferno_runtime.models.layout import is_onnx
from inferno_runtime.models.source import locate, path_of


def locate_projector(config: ModelConfig, model: Path) -> Path | None:
    """The projector of a model that was located, checked like it; None of a model that has none. Raises `ModelError`.

    Where none is named, it is what lies beside the model in the folder that is the source.
    """
    given = path_of(config.source)
    if config.projector is None:
        return _beside(model) if given.is_dir() else None
    if is_onnx(model):
        raise ModelError(f"{model}: an ONNX model takes no projector (model.projector)")
    if config.projector.startswith("file:"):
        return locate(ModelConfig(source=config.projector))
    folder = given if given.is_dir() else given.parent
    return locate(ModelConfig(source=(folder / config.projector).as_uri()))


def _beside(model: Path) -> Path | None:
    if is_onnx(model):
        return None
    found = sorted(path for path in model.parent.glob("*.gguf") if is_projector(path.name))
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:4])
        raise ModelError(f"{model.parent}: there are several projectors ({names}); name one (model.projector)")
    return found[0] if found else None
