"""What evaluates models. Importing this package imports no model library; loading a model does."""

from collections.abc import Sequence
from pathlib import Path

from inferno_runtime.backends.base import AdapterFile, Backend, Encoder, ModelError, Tokenizer, Tuner
from inferno_runtime.config import EngineConfig, Task
from inferno_runtime.models.layout import is_onnx


def load_backend(
    path: str,
    config: EngineConfig,
    tuner: Tuner | None = None,
    adapters: Sequence[AdapterFile] = (),
    projector: str | None = None,
) -> Backend:
    """Load a model with its adapters and projector for evaluation; without a tuner with the settings that stand to reason.

    Raises `ModelError`.
    """
    if is_onnx(Path(path)):
        if adapters:
            raise ModelError(
                f"{path}: an ONNX graph has its weights built in and takes no LoRA adapters: merge them before the export"
            )
        if projector is not None:
            raise ModelError(f"{path}: an ONNX model takes no projector, and reads no images")
        from inferno_runtime.backends.onnx.backend import OnnxBackend

        return OnnxBackend(Path(path), config)
    from inferno_runtime.backends.llama_cpp.backend import LlamaBackend

    return LlamaBackend(Path(path), config, tuner, adapters, None if projector is None else Path(projector))


def load_encoder(path: str, config: EngineConfig, task: Task = "embed") -> Encoder:
    """Load a model that turns texts into vectors, or pairs of them into scores. Raises `ModelError`."""
    if is_onnx(Path(path)):
        from inferno_runtime.backends.onnx.encoder import OnnxEncoder

        return OnnxEncoder(Path(path), config, task)
    from inferno_runtime.backends.llama_cpp.encoder import LlamaEncoder

    return LlamaEncoder(Path(path), config, task)


def load_tokenizer(path: str) -> Tokenizer:
    """Load a model's vocabulary alone. Raises `ModelError`."""
    if is_onnx(Path(path)):
        from inferno_runtime.backends.onnx.vocabulary import OnnxVocabulary

        return OnnxVocabulary(Path(path))
    from inferno_runtime.backends.llama_cpp.vocabulary import LlamaVocabulary

    return LlamaVocabulary(Path(path))
