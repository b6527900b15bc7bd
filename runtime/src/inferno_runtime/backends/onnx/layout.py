"""Which file of a folder is what: sentence-transformers', optimum's and onnxruntime-genai's layouts, or a file by itself."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from inferno_runtime.backends.base import ModelError

_SUBFOLDER = "onnx"  # where many repositories keep the graph; its other files are one level up
# Of several files the first of these is taken: full precision before anything smaller, and one graph before its parts.
_PREFERRED = (
    "model.onnx",
    "decoder_model_merged.onnx",
    "model_fp16.onnx",
    "decoder_model_merged_fp16.onnx",
    "model_quantized.onnx",
    "decoder_model_merged_quantized.onnx",
)
_SENTENCE_TRANSFORMERS = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"})
_NO_LIMIT = 1 << 31  # tokens: what a tokenizer that knows of none puts in the place of its limit


def is_onnx(path: Path) -> bool:
    """Whether this is for us: a folder, or a file that is named so. ONNX files have no magic number."""
    return path.is_dir() or path.suffix == ".onnx"


@dataclass(frozen=True)
class Layout:
    """A model's graph, and the folders in which its other files are looked for."""

    source: Path
    model: Path
    folders: tuple[Path, ...]

    @classmethod
    def find(cls, source: Path) -> "Layout":
        """The layout of a folder, or of a file with its tokenizer beside it. Raises `ModelError`."""
        if not source.is_dir():
            beside = source.parent
            above = (beside.parent,) if beside.name == _SUBFOLDER else ()
            return cls(source, source, (beside, *above))
        named = _read_json(source / "genai_config.json").get("model", {}).get("decoder", {}).get("filename")
        model = source / named if named else _choose(source)
        if not model.is_file():
            raise ModelError(f"{source}: genai_config.json names {named}, and there is no such file")
        return cls(source, model, tuple(dict.fromkeys((source, model.parent))))

    def path(self, name: str) -> Path | None:
        """The file of this name, if there is one."""
        return next((path for folder in self.folders if (path := folder / name).is_file()), None)

    def json(self, name: str) -> dict[str, Any]:
        """The object in a file; empty if there is no such file. Raises `ModelError` if it is something else."""
        path = self.path(name)
        return _read_json(path) if path else {}

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file. Raises `ModelError`."""
        path = self.path("tokenizer.json")
        if path is None:
            raise ModelError(f"{self.model}: no tokenizer.json beside it")
        return path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's configuration in transformers' terms, whoever wrote it."""
        genai = self.json("genai_config.json").get("model", {})
        decoder = genai.get("decoder", {})
        known = {
            "model_type": genai.get("type"),
            "vocab_size": genai.get("vocab_size"),
            "max_position_embeddings": genai.get("context_length"),
            "bos_token_id": genai.get("bos_token_id"),
            "eos_token_id": genai.get("eos_token_id"),
            "num_attention_heads": decoder.get("num_attention_heads"),
            "num_key_value_heads": decoder.get("num_key_value_heads"),
            "head_dim": decoder.get("head_size"),
        }
        stated = self.json("config.json")
        text = stated.get("text_config")  # of a model that sees or hears as well
        merged = {**stated, **text} if isinstance(text, dict) else stated
        return {name: value for name, value in known.items() if value is not None} | merged

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json, and what special_tokens_map.json says beside it."""
        return {**self.json("special_tokens_map.json"), **self.json("tokenizer_config.json")}

    @property
    def embeds(self) -> bool:
        """Whether it was laid out as sentence-transformers do it."""
        return any(self.path(name) for name in _SENTENCE_TRANSFORMERS)

    @property
    def modules(self) -> list[str]:
        """The names of the modules that sentence-transformers puts one behind the other."""
        path = self.path("modules.json")
        listed = _load(path) if path else []
        if not isinstance(listed, list):
            raise ModelError(f"{path}: not a list of modules")
        return [str(item.get("type", "")).rpartition(".")[2] for item in listed if isinstance(item, dict)]

    @property
    def positions(self) -> int:
        """Tokens that a sequence may have in the graph; 0 if nothing says so."""
        stated = next((value for name in _POSITIONS if (value := _count(self.config.get(name)))), 0)
        if stated and self.config.get("model_type") in _OFFSET_POSITIONS:
            stated -= _count(self.config.get("pad_token_id")) + 1  # the first positions are never used
        return stated

    @property
    def window(self) -> int:
        """Tokens that a text may have when it is turned into a vector; 0 if nothing says so."""
        stated = (
            self.positions,
            _count(self.json("sentence_bert_config.json").get("max_seq_length")),
            _count(self.tokenizer_config.get("model_max_length")),
        )
        return min((limit for limit in stated if limit), default=0)

    @property
    def size(self) -> int:
        """Bytes of the graph's file."""
        return self.model.stat().st_size


def _choose(folder: Path) -> Path:
    found = [path for place in (folder, folder / _SUBFOLDER) for path in sorted(place.glob("*.onnx"))]
    for name in _PREFERRED:
        for path in found:
            if path.name == name:
                return path
    models = [path for path in found if path.name.startswith("model")] or found
    if not models:
        raise ModelError(f"{folder}: a folder without an ONNX model (*.onnx or {_SUBFOLDER}/*.onnx)")
    if len(models) > 1:
        raise ModelError(f"{folder}: several ONNX models ({_names(models, folder)}); name one of the files")
    return models[0]


def _names(paths: Iterable[Path], folder: Path) -> str:
    return ", ".join(str(path.relative_to(folder)) for path in paths)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file."""
    content = _load(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object")
    return content


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error


def _count(value: object) -> int:
    """A number of tokens; 0 for anything that is none."""
    return int(value) if isinstance(value, int | float) and 0 < value < _NO_LIMIT else 0
