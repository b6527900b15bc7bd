"""The tools that a request offers, and which of them the model may or must call."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """Whether the model calls tools."""

    NONE = "none"
    AUTO = "auto"  # as it likes
    REQUIRED = "required"  # one at least


@dataclass(frozen=True, slots=True)
class Tool:
    """A function. parameters: the JSON schema of its arguments, None where it takes none."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False  # whether its calls are held to the schema also where the model calls as it likes

    @property
    def schema(self) -> dict[str, Any]:
        """What its arguments are held to: an object in any case."""
        if self.parameters is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {"type": "object", **self.parameters}

    @property
    def described(self) -> dict[str, Any]:
        """As templates want to have it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a request says of tools.

    offered: all that the model is told of; callable: those that it may call now.
    parallel: whether one answer may have several calls; formed: whether an answer in words must have a form.
    """

    offered: tuple[Tool, ...] = ()
    callable: tuple[Tool, ...] = ()
    mode: Mode = Mode.NONE
    parallel: bool = True
    formed: bool = False

    @property
    def forced(self) -> bool:
        """Whether the answer is a call and nothing else."""
        return self.mode is Mode.REQUIRED

    @property
    def strict(self) -> bool:
        """Whether calls follow their tools' schemas, once the model makes any."""
        return self.forced or any(tool.strict for tool in self.callable)

    @property
    def held(self) -> bool:
        """Whether a grammar writes the calls: what it cannot have written is none."""
        return self.strict or self.formed

    def schema(self, tool: Tool) -> dict[str, Any]:
        """What a tool's arguments are held to, where calls are held to anything: any object, if that is all it asks for."""
        return tool.schema if self.forced or tool.strict or tool.parameters is None else {"type": "object"}

    def find(self, name: str) -> Tool | None:
        """The callable tool of this name."""
        return next((tool for tool in self.callable if tool.name == name), None)


NO_TOOLS = Toolbox()
