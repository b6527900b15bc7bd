"""Opening a GGUF file with libllama, and the one line that says why it cannot be opened."""

import re
from pathlib import Path
from typing import Any

from inferno_runtime.backends.base import ModelError, ModelInfo
from inferno_runtime.backends.llama_cpp.library import Library
from inferno_runtime.config import Task

_CAUSES = re.compile(
    r"unknown model architecture|not within the file bounds|invalid magic|failed to allocate|unsupported|missing tensor"
    r"|unable to|wrong shape|key not found|unknown|corrupt|truncat|bad_alloc|out of memory",
    re.IGNORECASE,
)
RANK = 4  # llama_pooling_type: a head that scores
# Encoders: every token sees every other, and nothing is kept that a next token could be chosen from.
_ENCODERS = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)


def open_model(library: Library, path: Path, *, vocabulary_only: bool, gpu_layers: int = 0) -> Any:
    """A `llama_model *`. Raises `ModelError`."""
    api = library.api
    params = api.llama_model_default_params()
    params.vocab_only = vocabulary_only
    params.n_gpu_layers = gpu_layers
    params.use_extra_bufts = library.extra_buffers
    library.recent_errors.clear()
    model = api.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelError(f"{path}: {explain(library.recent_errors)}")
    return model


def explain(errors: list[str]) -> str:
    """The most telling of the library's complaints, without the names of its functions."""
    firsts = [line.partition("\n")[0] for line in errors]
    lines = [re.sub(r"^(\w+: )+", "", line).removeprefix("error loading model: ") for line in firsts]
    telling = [line for line in lines if _CAUSES.search(line)]
    return (telling or lines or ["libllama could not load the model and gave no reason"])[0]


def metadata(library: Library, model: Any, key: str) -> str | None:
    """A value of the file's metadata as text."""
    buffer = bytes(1024)
    length = library.api.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer[: min(length, len(buffer) - 1)].decode("utf-8", "replace") if length >= 0 else None


def context_train(library: Library, model: Any) -> int:
    """The number of tokens that the model was trained for; 0 when the file does not say."""
    architecture = metadata(library, model, "general.architecture")
    return int(metadata(library, model, f"{architecture}.context_length") or 0)


def is_encoder(library: Library, model: Any) -> bool:
    """Whether it can do nothing but embed."""
    return metadata(library, model, "general.architecture") in _ENCODERS


def is_causal(library: Library, model: Any) -> bool:
    """Whether a token sees only those before it."""
    architecture = metadata(library, model, "general.architecture")
    stated = metadata(library, model, f"{architecture}.attention.causal")
    return stated != "false" and not is_encoder(library, model)


def stated_pooling(library: Library, model: Any) -> int:
    """The `llama_pooling_type` that the file names, which only those of models that embed or rank do; 0 for none."""
    architecture = metadata(library, model, "general.architecture")
    value = metadata(library, model, f"{architecture}.pooling_type") or ""
    return int(value) if value.isdecimal() else 0


def stated_task(library: Library, model: Any) -> Task:
    """What the model was made for, as far as the file says."""
    pooling = stated_pooling(library, model)
    if pooling == RANK:
        return "rerank"
    return "generate" if is_causal(library, model) and not pooling else "embed"


def model_info(library: Library, model: Any) -> ModelInfo:
    """What the file says of itself."""
    api = library.api
    buffer = bytes(256)
    api.llama_model_desc(model, buffer, len(buffer))
    # "ARCHITECTURE SIZE QUANTIZATION", the last of which may have spaces
    description = buffer.split(b"\0", 1)[0].decode("utf-8", "replace").split(" ", 2)
    return ModelInfo(
        format="gguf",
        architecture=metadata(library, model, "general.architecture") or "unknown",
        quantization=description[2] if len(description) == 3 else "unknown",
        parameters=api.llama_model_n_params(model),
        size_bytes=api.llama_model_size(model),
        context_train=context_train(library, model),
        vocab_size=api.llama_vocab_n_tokens(api.llama_model_get_vocab(model)),
    )
