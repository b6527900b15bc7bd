"""Which file of a folder is what: sentence-transformers', optimum's and onnxruntime-genai's layouts, or a file by itself."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from inferno_runtime.config import Task
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.files import (
    GENAI_CONFIG,
    ONNX_FOLDER,
    main_file,
    model_files,
    read_json,
    read_object,
    read_text,
)
from inferno_runtime.models.onnx import Description

_SENTENCE_TRANSFORMERS = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_GENERATION = (GENAI_CONFIG, "generation_config.json")  # which only a model that generates has
SETTINGS = (
    "config.json",
    *_GENERATION,
    "tokenizer_config.json",
    "special_tokens_map.json",
    *_TEMPLATES,
    *_SENTENCE_TRANSFORMERS,
)
"""The small files that say what a model is; together with the graph they are all that its `Layout` reads."""
PAST_INPUT = re.compile(r"past\w*\.(\d+)\.(key|value)")
"""What the inputs are called that hold the cache, by layer."""
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
            above = (beside.parent,) if beside.name == ONNX_FOLDER else ()
            return cls(source, source, (beside, *above))
        try:
            return cls.of(source, main_file(source, model_files(source)))
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from None

    @classmethod
    def of(cls, folder: Path, graph: str) -> "Layout":
        """The layout of a folder whose graph is, or will be, the file of that name. Raises `ModelError`."""
        if not graph.endswith(".onnx"):
            raise ModelError(f"{graph} is no ONNX model")
        model = folder / graph
        return cls(folder, model, tuple(dict.fromkeys((folder, model.parent))))

    def path(self, name: str) -> Path | None:
        """The file of this name, if there is one."""
        return next((path for folder in self.folders if (path := folder / name).is_file()), None)

    def json(self, name: str) -> dict[str, Any]:
        """The object in a file; empty if there is no such file. Raises `ModelError` if it is something else."""
        path = self.path(name)
        return read_object(path) if path else {}

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
        genai = _object(self.json(GENAI_CONFIG).get("model"))
        decoder = _object(genai.get("decoder"))
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
        merged = stated | _object(stated.get("text_config"))  # of a model that sees or hears as well
        return {name: value for name, value in known.items() if value is not None} | merged

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json, and what special_tokens_map.json says beside it."""
        return {**self.json("special_tokens_map.json"), **self.json("tokenizer_config.json")}

    @property
    def embeds(self) -> bool:
        """Whether it was laid out as sentence-transformers do it."""
        return any(self.path(name) for name in _SENTENCE_TRANSFORMERS)

    def task(self, description: Description | None) -> Task:
        """What the model was made for, unless it was laid out to embed: one that gives logits of tokens generates, and one
        that gives them of whole texts reranks.

        Without the graph's description it goes by what the settings say.
        """
        if self.embeds:
            return "embed"
        if description is not None:
            if "logits" not in description.outputs:
                return "embed"
            return "rerank" if description.classifies else "generate"
        stated = self.config.get("architectures")
        names = [str(name) for name in stated] if isinstance(stated, list) else []
        if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names) or any(map(self.path, _GENERATION)):
            return "generate"
        return "rerank" if any(name.endswith("ForSequenceClassification") for name in names) else "embed"

    @property
    def chat_template(self) -> str | None:
        """The jinja template of chats, if there is one. Raises `ModelError`."""
        path = self.path(_TEMPLATES[0])
        if path is not None:
            return read_text(path)
        stated = self.tokenizer_config.get("chat_template") or self.json(_TEMPLATES[1]).get("chat_template")
        if isinstance(stated, list):  # several by name
            named = {item.get("name"): item.get("template") for item in stated if isinstance(item, dict)}
            stated = named.get("default")
        return stated if isinstance(stated, str) else None

    @property
    def modules(self) -> list[str]:
        """The names of the modules that sentence-transformers puts one behind the other."""
        path = self.path("modules.json")
        listed = read_json(path) if path else []
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


def _object(value: object) -> dict[str, Any]:
    """A JSON object; an empty one for anything that is none."""
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    """A number of tokens; 0 for anything that is none."""
    return int(value) if isinstance(value, int | float) and 0 < value < _NO_LIMIT else 0
