"""What a server itself has to know of a model, before its engine loads it."""

from dataclasses import dataclass
from pathlib import Path

from inferno_runtime.backends import load_tokenizer
from inferno_runtime.backends.base import ModelError, Tokenizer
from inferno_runtime.config import ServedModel, Task
from inferno_runtime.models.adapters import AdapterFile, locate_adapters
from inferno_runtime.models.identity import identity
from inferno_runtime.models.projector import locate_projector
from inferno_runtime.models.source import hold, locate
from inferno_runtime.worker.draft import check_vocabulary, draft_path


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model.

    task: what it is served for; draft: the draft model, projector: that of a model that sees, if there is one; identity:
    of each file, of which the model's is the first.
    """

    path: str
    task: Task
    tokenizer: Tokenizer
    adapters: tuple[AdapterFile, ...]
    draft: Path | None
    projector: Path | None
    identity: tuple[str, ...]


def look_at(served: ServedModel) -> ModelFiles:
    """Find a model's files, and keep caches from evicting them for as long as this process lives. Raises `ModelError`."""
    source, draft = locate(served.model), draft_path(served.engine)
    adapters = locate_adapters(served.model)
    beside = [Path(adapter.path) for adapter in adapters]
    for path in (source, *beside):
        hold(path)
    tokenizer = load_tokenizer(str(source))
    task = served.model.task or tokenizer.task
    if task != "generate":
        _refuse_beside(served, draft, f"{source}: a model that {task}s")
    projector = locate_projector(served.model, source) if task == "generate" else None
    if projector is not None:
        hold(projector)
    if draft is not None:
        check_vocabulary(draft, tokenizer.pieces)
    paths = [path for path in (source, draft, *beside, projector) if path is not None]
    return ModelFiles(str(source), task, tokenizer, adapters, draft, projector, tuple(map(identity, paths)))


def _refuse_beside(served: ServedModel, draft: Path | None, model: str) -> None:
    """Refuse what is only for models that generate text. Raises `ModelError`."""
    if served.model.projector is not None:
        raise ModelError(f"{model} takes no projector (model.projector)")
    if served.model.adapters:
        raise ModelError(f"{model} takes no LoRA adapters (model.adapters)")
    if draft is not None:
        raise ModelError(f"{model} has no use for a draft model (engine.draft)")
