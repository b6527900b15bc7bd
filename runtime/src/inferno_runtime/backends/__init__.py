"""What evaluates models. Importing this package imports no model library; loading a model does."""

from pathlib import Path

from inferno_runtime.backends.base import Backend, Encoder, Tokenizer, Tuner
from inferno_runtime.config import EngineConfig
from inferno_runtime.models.layout import is_onnx


def load_backend(path: str, config: EngineConfig, tuner: Tuner | None = None) -> Backend:
    """Load a model for evaluation; without a tuner with the settings that stand to reason. Raises `ModelError`."""
    if is_onnx(Path(path)):
        from inferno_runtime.backends.onnx.backend import OnnxBackend

        return OnnxBackend(Path(path), config)
    from inferno_runtime.backends.llama_cpp.backend import LlamaBackend

    return LlamaBackend(Path(path), config, tuner)


def load_encoder(path: str, config: EngineConfig) -> Encoder:
    """Load a model that turns texts into vectors. Raises `ModelError`."""
    if is_onnx(Path(path)):
        from inferno_runtime.backends.onnx.encoder import OnnxEncoder

        return OnnxEncoder(Path(path), config)
    from inferno_runtime.backends.llama_cpp.encoder import LlamaEncoder

    return LlamaEncoder(Path(path), config)


def load_tokenizer(path: str) -> Tokenizer:
    """Load a model's vocabulary alone. Raises `ModelError`."""
    if is_onnx(Path(path)):
        from inferno_runtime.backends.onnx.vocabulary import OnnxVocabulary

        return OnnxVocabulary(Path(path))
    from inferno_runtime.backends.llama_cpp.vocabulary import LlamaVocabulary

    return LlamaVocabulary(Path(path))
