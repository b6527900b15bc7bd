"""What a model turned out to be, read from the beginning of its files and not from its weights.

This module imports nothing heavy, because the operator imports it too.
"""

import re
from typing import Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from inferno_runtime.config import Config, Task

Capability = Literal["generate", "embed", "rerank", "chat", "tools", "vision", "fillIn"]

_TOOLS: Final = re.compile(r"\btools\b")


class ModelFacts(Config):
    """What a model is, and what its memory follows from."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    format: Literal["gguf", "onnx"] | None = Field(default=None, description="The format of the model's files.")
    architecture: str | None = Field(
        default=None, max_length=128, description="The architecture, as the file names it, such as llama."
    )
    parameters: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Numbers that the weights consist of."
    )
    quantization: str | None = Field(
        default=None, max_length=64, description="The number format of most weights, such as Q4_K_M."
    )
    context_length: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Tokens that the model was trained for."
    )
    tokenizer: str | None = Field(default=None, max_length=128, description="The kind of tokenizer, such as gpt2.")
    vocabulary_size: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Tokens that the tokenizer knows."
    )
    chat_template: bool | None = Field(default=None, description="Whether the files have a chat template.")
    capabilities: tuple[Capability, ...] | None = Field(
        default=None,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="What the model was made for: generate, embed, rerank, chat, tools, vision, fillIn.",
    )
    size_bytes: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Bytes of all files of the model."
    )
    adapter_bytes: int | None = Field(
        default=None,
        json_schema_extra={"format": "int64"},
        description="Bytes of the LoRA adapters that the model is served with.",
    )
    projector_bytes: int | None = Field(
        default=None,
        json_schema_extra={"format": "int64"},
        description="Bytes of the projector that the model reads images with, where it is none of its files.",
    )
    hidden_size: int | None = Field(
        default=None,
        json_schema_extra={"format": "int64"},
        description="Numbers that stand for a token between two layers.",
    )
    feed_forward_size: int | None = Field(
        default=None,
        json_schema_extra={"format": "int64"},
        description="Numbers that stand for a token inside a layer.",
    )
    heads: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Attention heads of a layer."
    )
    cache_values_per_token: int | None = Field(
        default=None,
        json_schema_extra={"format": "int64"},
        description="Numbers that the KV cache holds for each token.",
    )
    state_bytes: int | None = Field(
        default=None,
        json_schema_extra={"format": "int64"},
        description="Bytes of a sequence's memory that do not grow with its length.",
    )


def capabilities(
    template: str | None, *, task: Task, vision: bool = False, fills_in: bool = False
) -> tuple[Capability, ...]:
    """What a model can do; ``template``: that of its chats; ``task``: what it was made for."""
    found: list[Capability] = [task]
    if template is not None and task == "generate":
        found.append("chat")
        if _TOOLS.search(template):
            found.append("tools")
    if vision:
        found.append("vision")
    if fills_in and task == "generate":
        found.append("fillIn")
    return tuple(found)
