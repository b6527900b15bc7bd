"""What a model is, from the headers of its files."""

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from inferno_runtime.models import onnx
from inferno_runtime.models.facts import Capability, ModelFacts
from inferno_runtime.models.gguf import BadGguf, Header, read_header, tensor_type
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
_TOOLS: Final = re.compile(r"\btools\b")
_JSON_LIMIT: Final = 4 * 1024 * 1024  # bytes of a file of settings


class NoModel(ValueError):
    """The files are no model that could be served; the message says why."""


def inspect(path: Path) -> ModelFacts:
    """What the file, or the folder, holds. Raises `NoModel` and `OSError`."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if path.is_dir():
        files = {str(each.relative_to(path)): each for each in path.rglob("*") if each.is_file()}
    else:
        files = {part: path.with_name(part) for part in split_parts(path.name) or [path.name]}
    first = model_file(files)
    facts = onnx_facts(files, first) if first.endswith(".onnx") else _inspect_gguf(files, first)
    return facts.model_copy(update={"size_bytes": sum(each.stat().st_size for each in files.values())})


def model_file(names: Iterable[str]) -> str:
    """Of the names of a model's files, the one that it is loaded from. Raises `NoModel`."""
    names = sorted(names)
    ggufs = [name for name in names if name.endswith(".gguf") and not _is_projector(name)]
    firsts = [name for name in ggufs if (split_parts(name) or [name])[0] == name]
    if len(firsts) == 1:
        return firsts[0]
    if len(firsts) > 1:
        raise NoModel(f"there are several GGUF models ({', '.join(firsts[:4])}); name one of them")
    onnxes = [name for name in names if name.endswith(".onnx")]
    for usual in ("model.onnx", "onnx/model.onnx"):
        if usual in onnxes:
            return usual
    if len(onnxes) == 1:
        return onnxes[0]
    if onnxes:
        raise NoModel(f"there are several ONNX models ({', '.join(onnxes[:4])}); name one of them")
    if len(names) == 1 and split_parts(names[0]) is None:
        return names[0]  # whatever it is called; its first bytes show what it is
    raise NoModel(f"there is neither a GGUF nor an ONNX model among {len(names)} files")


def gguf_facts(header: Header, names: Iterable[str] = ()) -> ModelFacts:
    """What a GGUF header says; ``names`` are those of the files beside it."""
    architecture = header.text("general.architecture")
    template = header.text("tokenizer.chat_template")
    vision = header.metadata.get("clip.has_vision_encoder") is True or any(map(_is_projector, names))
    embeds = bool(header.number(f"{architecture}.pooling_type")) or (
        header.metadata.get(f"{architecture}.attention.causal") is False
    )
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
        capabilities=_capabilities(template, embeds=embeds, vision=vision, fills_in=fills_in),
        hidden_size=header.number(f"{architecture}.embedding_length"),
        feed_forward_size=max(_per_layer(header, "feed_forward_length"), default=None),
        heads=max(_per_layer(header, "attention.head_count"), default=None),
        cache_values_per_token=_cache_values(header),
        state_bytes=_state_bytes(header),
    )


def onnx_facts(files: Mapping[str, Path], first: str) -> ModelFacts:
    """What an ONNX model and the settings beside it say. Raises `NoModel`.

    The model itself need not be there yet; then it is not known how many weights it has.
    """
    settings = _settings(files, first, "config.json")
    tokenizer = _settings(files, first, "tokenizer_config.json")
    template = tokenizer.get("chat_template")
    if template is None and any(name.endswith("chat_template.jinja") for name in files):
        template = ""
    weights = _onnx_weights(files[first])
    generates = any("CausalLM" in str(name) for name in settings.get("architectures") or ())
    layers, heads = _whole(settings, "num_hidden_layers"), _whole(settings, "num_attention_heads")
    hidden = _whole(settings, "hidden_size")
    shared = _whole(settings, "num_key_value_heads") or heads
    width = _whole(settings, "head_dim") or (hidden // heads if hidden and heads else None)
    return ModelFacts(
        format="onnx",
        architecture=str(settings["model_type"])[:128] if settings.get("model_type") else None,
        parameters=(weights.parameters or None) if weights else None,
        quantization=weights.kind if weights else None,
        context_length=_whole(settings, "max_position_embeddings"),
        tokenizer=str(tokenizer.get("tokenizer_class") or "")[:128] or None,
        vocabulary_size=_whole(settings, "vocab_size"),
        chat_template=template is not None,
        capabilities=_capabilities(
            str(template) if template is not None else None, embeds=not generates, vision=False, fills_in=False
        ),
        hidden_size=hidden,
        feed_forward_size=_whole(settings, "intermediate_size"),
        heads=heads,
        cache_values_per_token=2 * layers * shared * width if generates and layers and shared and width else 0,
    )


def header_facts(stream: BinaryIO, names: Iterable[str] = ()) -> ModelFacts:
    """What the GGUF file says that begins at the stream's position. Raises `NoModel`."""
    try:
        return gguf_facts(read_header(stream, _FILL_IN), names)
    except BadGguf as error:
        raise NoModel(str(error)) from error


def _inspect_gguf(files: Mapping[str, Path], first: str) -> ModelFacts:
    folder = first.rpartition("/")[0]
    parts = [f"{folder}/{part}" if folder else part for part in split_parts(first.rpartition("/")[2]) or []]
    missing = [part for part in parts if part not in files]
    if missing:
        raise NoModel(f"{missing[0]}: no such file, though {first} is one of {len(parts)} parts")
    headers = []
    for name in parts or [first]:
        try:
            with files[name].open("rb") as file:
                headers.append(read_header(file, _FILL_IN))
        except FileNotFoundError:
            raise NoModel(f"{name}: no such file") from None
        except BadGguf as error:
            raise NoModel(f"{name}: {error}") from error
    whole = headers[0]
    for header in headers[1:]:
        whole.parameters += header.parameters
        whole.tensor_types += header.tensor_types
    return gguf_facts(whole, files)


def _onnx_weights(path: Path) -> onnx.Weights | None:
    try:
        with path.open("rb") as file:
            return onnx.weights(file)
    except FileNotFoundError:
        return None
    except onnx.BadOnnx as error:
        raise NoModel(f"{path.name}: {error}") from error


def _is_projector(name: str) -> bool:
    return name.rpartition("/")[2].startswith("mmproj")


def _quantization(header: Header) -> str | None:
    stated = header.number("general.file_type")
    return _FILE_TYPES.get(stated) if stated in _FILE_TYPES else tensor_type(header)


def _capabilities(template: str | None, *, embeds: bool, vision: bool, fills_in: bool) -> tuple[Capability, ...]:
    found: list[Capability] = ["embed"] if embeds else ["generate"]
    if template is not None and not embeds:
        found.append("chat")
        if _TOOLS.search(template):
            found.append("tools")
    if vision:
        found.append("vision")
    if fills_in and not embeds:
        found.append("fillIn")
    return tuple(found)


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


def _settings(files: Mapping[str, Path], first: str, name: str) -> dict[str, Any]:
    """A JSON file beside the model, or in the folder above it; empty where there is none that can be read."""
    folder = first.rpartition("/")[0]
    path = files.get(f"{folder}/{name}" if folder else name) or files.get(name)
    if path is None and len(files) == 1:
        path = files[first].with_name(name)
    try:
        if path is None or path.stat().st_size > _JSON_LIMIT:
            return {}
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _whole(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None
