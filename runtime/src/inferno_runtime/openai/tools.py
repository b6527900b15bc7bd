"""The tools of a chat request, held to what they must be."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inferno_runtime.chat.conversation import MOST_NESTED, nesting
from inferno_runtime.chat.tools import Mode, Tool, Toolbox
from inferno_runtime.openai import errors
from inferno_runtime.openai.requests import ChatRequest, Function

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


class _Named(msgspec.Struct):
    name: str


class _NamedTool(msgspec.Struct, tag="function"):
    """The tool that must be called."""

    function: _Named


class _Allowed(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: Annotated[list[_NamedTool], Meta(min_length=1)]


class _AllowedTools(msgspec.Struct, tag="allowed_tools"):
    """Those that may, or of which one must."""

    allowed_tools: _Allowed


def toolbox_of(request: ChatRequest) -> Toolbox:
    """What the model may call, and must. Raises `ApiError`."""
    offered = tuple(_tool(tool.function, f"tools[{number}]") for number, tool in enumerate(request.tools or ()))
    if len(offered) > MAX_TOOLS:
        raise errors.bad_request(f"'tools' may hold at most {MAX_TOOLS} tools.", "tools")
    if len({tool.name for tool in offered}) < len(offered):
        raise errors.bad_request("'tools' holds two functions of the same name.", "tools")
    if not offered and request.tool_choice not in (None, "none", "auto"):
        raise errors.bad_request("'tool_choice' is only allowed with 'tools'.", "tool_choice")
    mode, names = _choice(request.tool_choice, {tool.name for tool in offered})
    if not offered or mode is Mode.NONE:
        return Toolbox()
    callable_ones = tuple(tool for tool in offered if tool.name in names)
    # A choice by name is of one call.
    named = isinstance(request.tool_choice, dict) and request.tool_choice.get("type") == "function"
    return Toolbox(offered, callable_ones, mode, parallel=request.parallel_tool_calls is not False and not named)


def check_name(name: str, param: str, where: str) -> None:
    """Refuse what cannot be the name of a function. Raises `ApiError`."""
    if not _NAME.fullmatch(name):
        raise errors.bad_request(f"{where} must have 1 to 64 letters, digits, '_', '-' and '.'.", param)


def _tool(function: Function, where: str) -> Tool:
    check_name(function.name, "tools", f"{where}.function.name")
    parameters = function.parameters
    if parameters is not None:
        if parameters.get("type", "object") != "object":
            raise errors.bad_request(f"{where}.function.parameters must be a schema of the type 'object'.", "tools")
        if nesting(parameters) > MOST_NESTED:
            raise errors.bad_request(f"{where}.function.parameters nests deeper than {MOST_NESTED} levels.", "tools")
    return Tool(function.name, function.description, parameters or None, strict=bool(function.strict))


def _choice(choice: str | dict[str, Any] | None, offered: set[str]) -> tuple[Mode, set[str]]:
    """Whether the model calls, and what it may call."""
    if choice is None or isinstance(choice, str):
        if choice not in (None, *Mode):
            raise errors.bad_request(
                "'tool_choice' must be 'none', 'auto', 'required' or name a function.", "tool_choice"
            )
        return Mode(choice or Mode.AUTO), offered
    try:
        chosen = msgspec.convert(choice, type=_NamedTool | _AllowedTools)
    except msgspec.ValidationError as error:
        raise errors.bad_request(f"Invalid 'tool_choice': {error}.", "tool_choice") from error
    if isinstance(chosen, _NamedTool):
        mode, names = Mode.REQUIRED, {chosen.function.name}
    else:
        mode, names = Mode(chosen.allowed_tools.mode), {tool.function.name for tool in chosen.allowed_tools.tools}
    for name in names - offered:
        raise errors.bad_request(f"'tool_choice' names '{name[:64]}', which is none of 'tools'.", "tool_choice")
    return mode, names
