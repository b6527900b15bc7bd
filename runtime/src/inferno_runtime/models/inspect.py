"""What a model is, from the headers of its files."""

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from inferno_runtime.config import Task
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.facts import ModelFacts, capabilities
from inferno_runtime.models.files import is_projector, loaded_names, main_file, model_files
from inferno_runtime.models.gguf import BadGguf, Header, read_header, tensor_type
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.onnx import describe
from inferno_runtime.models.onnx_facts import onnx_facts
from inferno_runtime.sources import split_parts

# llama_ftype: what most of a file's weights are, with the variant that single tensors do not show.
_FILE_TYPES: Final = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
}
_RANK: Final = 4  # llama_pooling_type: a head that scores
# How the models that can fill in spell the token before the gap, as libllama knows them.
_FILL_IN: Final = frozenset(
    {
        b"<|fim_prefix|>",
        b"<fim-prefix>",
        b"<fim_prefix>",
        "<｜fim▁begin｜>".encode(),
        b"<PRE>",
        "▁<PRE>".encode(),
    }
    | {b"<|code_prefix|>", b"<|prefix|>", b"[PREFIX]"}
)


def inspect(path: Path) -> ModelFacts:
    """What the file, or the folder, holds; files are named as in the folder. Raises `ModelError` and `OSError`."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    folder = path if path.is_dir() else path.parent
    files = model_files(path)
    first = main_file(folder, files)
    if not first.endswith(".onnx"):
        return _sized(_inspect_gguf(files, first), files.values())
    try:
        layout = Layout.of(folder, first) if path.is_dir() else Layout.find(path)
        description = describe(layout.model)
        facts = onnx_facts(layout, description)
    except ModelError as error:
        raise ModelError(str(error).removeprefix(f"{folder}/")) from None
    data = (layout.model.parent / name for name in description.data_files)
    return _sized(facts, {*data, *(files[name] for name in loaded_names(first, files))})


def gguf_facts(header: Header, names: Iterable[str] = ()) -> ModelFacts:
    """What a GGUF header says; ``names`` are those of the files beside it."""
    architecture = header.text("general.architecture")
    template = header.text("tokenizer.chat_template")
    vision = header.metadata.get("clip.has_vision_encoder") is True or any(map(is_projector, names))
    fills_in = bool(header.control_spellings) or any(
        header.number(f"tokenizer.ggml.{key}") is not None for key in ("prefix_token_id", "fim_pre_token_id")
    )
    return ModelFacts(
        format="gguf",
        architecture=architecture[:128] if architecture else None,
        parameters=header.parameters or None,
        quantization=_quantization(header),
        context_length=header.number(f"{architecture}.context_length"),
        tokenizer=(header.text("tokenizer.ggml.model") or "")[:128] or None,
        vocabulary_size=header.vocabulary or header.number(f"{architecture}.vocab_size"),
        chat_template=template is not None,
        capabilities=capabilities(template, task=_task(header), vision=vision, fills_in=fills_in),
        hidden_size=header.number(f"{architecture}.embedding_length"),
        feed_forward_size=max(_per_layer(header, "feed_forward_length"), default=None),
        heads=max(_per_layer(header, "attention.head_count"), default=None),
        cache_values_per_token=_cache_values(header),
        state_bytes=_state_bytes(header),
    )


def header_facts(stream: BinaryIO, names: Iterable[str] = ()) -> ModelFacts:
    """What the GGUF file says that begins at the stream's position. Raises `ModelError`."""
    try:
        return gguf_facts(read_header(stream, _FILL_IN), names)
    except BadGguf as error:
        raise ModelError(str(error)) from error


def _inspect_gguf(files: Mapping[str, Path], first: str) -> ModelFacts:
    folder = first.rpartition("/")[0]
    parts = [f"{folder}/{part}" if folder else part for part in split_parts(first.rpartition("/")[2]) or []]
    missing = [part for part in parts if part not in files]
    if missing:
        raise ModelError(f"{missing[0]}: no such file, though {first} is one of {len(parts)} parts")
    headers = []
    for name in parts or [first]:
        try:
            with files[name].open("rb") as file:
                headers.append(read_header(file, _FILL_IN))
        except FileNotFoundError:
            raise ModelError(f"{name}: no such file") from None
        except BadGguf as error:
            raise ModelError(f"{name}: {error}") from error
    whole = headers[0]
    for header in headers[1:]:
        whole.parameters += header.parameters
        whole.tensor_types += header.tensor_types
    return gguf_facts(whole, files)


def _sized(facts: ModelFacts, files: Iterable[Path]) -> ModelFacts:
    return facts.model_copy(update={"size_bytes": sum(each.stat().st_size for each in files)})


def _task(header: Header) -> Task:
    architecture = header.text("general.architecture")
    pooling = header.number(f"{architecture}.pooling_type")
    if pooling == _RANK:
        return "rerank"
    causal = header.metadata.get(f"{architecture}.attention.causal") is not False
    return "generate" if causal and not pooling else "embed"


def _quantization(header: Header) -> str | None:
    stated = header.number("general.file_type")
    return _FILE_TYPES.get(stated) if stated in _FILE_TYPES else tensor_type(header)


def _per_layer(header: Header, key: str) -> list[int]:
    architecture = header.text("general.architecture")
    layers = min(header.number(f"{architecture}.block_count") or 0, 4096)
    return header.numbers(f"{architecture}.{key}", layers) or []


def _cache_values(header: Header) -> int | None:
    """Keys and values of one token in all layers; a layer without heads, such as a recurrent one, has none."""
    architecture = header.text("general.architecture")
    heads = _per_layer(header, "attention.head_count")
    shared = _per_layer(header, "attention.head_count_kv") or heads
    if not heads:
        return None
    hidden = header.number(f"{architecture}.embedding_length") or 0
    usual = hidden // max(heads) if max(heads) else 0
    key = header.number(f"{architecture}.attention.key_length")
    value = header.number(f"{architecture}.attention.value_length")
    return sum(shared) * ((usual if key is None else key) + (usual if value is None else value))


def _state_bytes(header: Header) -> int | None:
    """What a recurrent model keeps of a sequence: the convolution's last inputs, and the state, in four bytes each."""
    architecture = header.text("general.architecture")
    inner, state, kernel = (
        header.number(f"{architecture}.ssm.{key}") for key in ("inner_size", "state_size", "conv_kernel")
    )
    if not inner or state is None or kernel is None:
        return None
    groups = header.number(f"{architecture}.ssm.group_count") or 0
    layers = min(header.number(f"{architecture}.block_count") or 0, 4096)
    return 4 * layers * (max(kernel - 1, 0) * (inner + 2 * groups * state) + inner * state)
