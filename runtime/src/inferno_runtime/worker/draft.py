"""The draft model: found, held against the model that it drafts for, and loaded beside it."""

from collections.abc import Sequence
from pathlib import Path

from inferno_runtime.backends import load_backend, load_tokenizer
from inferno_runtime.backends.base import Backend, ModelError
from inferno_runtime.config import EngineConfig, ModelConfig
from inferno_runtime.models.source import locate

_MICRO_BATCH = 128  # tokens; what it reads at a time is little, and larger buffers would only take memory


def draft_path(config: EngineConfig) -> Path | None:
    """The draft model's file, if there is to be one. Raises `ModelError`."""
    if config.draft is None or config.speculation == "off":
        return None
    return locate(ModelConfig(source=config.draft))


def check_vocabulary(path: Path, pieces: Sequence[bytes]) -> None:
    """Hold the draft model's tokens against the model's `pieces`. Raises `ModelError`, which says what differs."""
    own = load_tokenizer(str(path)).pieces
    if len(own) != len(pieces):
        raise ModelError(f"{path}: a draft model of {len(own)} tokens cannot draft for a model of {len(pieces)}")
    for token, (drafted, wanted) in enumerate(zip(own, pieces, strict=True)):
        if drafted != wanted:
            raise ModelError(f"{path}: the draft model's token {token} is {drafted!r}, and the model's is {wanted!r}")


def load_draft(config: EngineConfig, model: Backend) -> Backend | None:
    """Load the draft model, if there is to be one, in the shape of the model. Raises `ModelError`."""
    path = draft_path(config)
    if path is None:
        return None
    if not model.memory.cut:
        raise ModelError(f"{path}: no model can draft for {model.info.architecture}, whose memory cannot be cut")
    shape = {"context_length": model.context, "threads": model.threads or None, "micro_batch": _MICRO_BATCH}
    draft = load_backend(str(path), config.model_copy(update=shape))
    if not draft.memory.cut:
        draft.close()
        raise ModelError(f"{path}: {draft.info.architecture} cannot draft, because its memory cannot be cut")
    return draft
