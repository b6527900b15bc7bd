"""LoRA adapters: from their sources to files on this machine."""

from dataclasses import dataclass
from pathlib import Path

from inferno_runtime.config import AdapterConfig, ModelConfig
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.source import locate, path_of


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA adapter that a model is loaded with."""

    path: str
    scale: float


def locate_adapters(config: ModelConfig) -> tuple[AdapterFile, ...]:
    """The model's LoRA adapters, checked like the model. Raises `ModelError`."""
    return tuple(AdapterFile(str(_locate(adapter)), adapter.scale) for adapter in config.adapters)


def _locate(adapter: AdapterConfig) -> Path:
    path = path_of(adapter.source)
    if path.is_dir():
        raise ModelError(
            f"{path}: an adapter is a GGUF file, not a folder; convert_lora_to_gguf.py makes one of PEFT's"
        )
    return locate(ModelConfig(source=adapter.source, sha256=adapter.sha256))
