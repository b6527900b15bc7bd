"""From a request for a response to the chat that it is."""

from collections.abc import Sequence
from typing import Any

import msgspec

from inferno_runtime.chat.conversation import nesting
from inferno_runtime.openai import errors
from inferno_runtime.openai.requests import ChatRequest, from_fields
from inferno_runtime.openai.responses_api.items import Kept, messages
from inferno_runtime.openai.responses_api.requests import LOGPROBS, FunctionTool, ResponsesRequest, TextFormat

WORDS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    ".function.": ".",
}
"""What a chat's fields are called here, for `errors.in_words`."""

_CHOICE_NESTED = 8  # levels; a response repeats it
_SHARED = ("model", "temperature", "top_p", "seed", "priority", "stream", "user")


def chat_of(request: ResponsesRequest, items: Sequence[Kept]) -> ChatRequest:
    """The chat. items: the whole conversation, with what came before. Raises `ApiError`, also in a chat's words; see `WORDS`."""
    _refuse_unsupported(request)
    if not items:
        raise errors.bad_request("'input' must hold at least one item.", "input")
    fields: dict[str, Any] = {name: getattr(request, name) for name in _SHARED}
    fields["messages"] = messages(items, request.instructions)
    fields["max_tokens"] = request.max_output_tokens
    if request.top_logprobs or LOGPROBS in (request.include or ()):
        fields["logprobs"], fields["top_logprobs"] = True, request.top_logprobs
    fields["reasoning_effort"] = request.reasoning.effort if request.reasoning else None
    if request.text is not None and request.text.format is not None:
        fields["response_format"] = _format(request.text.format)
    if request.tools:
        tools = tools_of(request)
        fields["tools"] = [{"type": "function", "function": msgspec.to_builtins(tool)} for tool in tools]
        for described in fields["tools"]:
            del described["function"]["type"]
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    fields["tool_choice"] = _choice(request.tool_choice)
    return from_fields(fields, ChatRequest)


def tools_of(request: ResponsesRequest) -> list[FunctionTool]:
    """The functions that a request offers. Raises `ApiError`, also for tools that are none."""
    tools = []
    for number, given in enumerate(request.tools or ()):
        kind = given.get("type")
        if kind != "function":
            raise errors.unsupported(
                "tools",
                f"tools[{number}]: this server has no tools of its own; only those of the type 'function' work.",
            )
        try:
            tools.append(msgspec.convert(given, type=FunctionTool))
        except msgspec.ValidationError as error:
            raise errors.bad_request(f"Invalid 'tools[{number}]': {error}.", "tools") from error
    return tools


def _choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """A choice of tools in a chat's words."""
    if choice is None or isinstance(choice, str):
        return choice
    if nesting(choice) > _CHOICE_NESTED:
        raise errors.bad_request("'tool_choice' nests too deep.", "tool_choice")
    match choice:
        case {"type": "function", "name": str(name)}:
            return _named(name)
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            named = [_named(str(tool.get("name"))) for tool in tools if isinstance(tool, dict)]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
        case _:
            raise errors.bad_request(
                "'tool_choice' must be 'none', 'auto', 'required', a function by its name, or 'allowed_tools'.",
                "tool_choice",
            )


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _format(form: TextFormat) -> dict[str, Any]:
    if form.type != "json_schema":
        return {"type": form.type}
    if form.name is None or form.schema is None:
        raise errors.missing("text.format.name" if form.name is None else "text.format.schema")
    named = {"name": form.name, "description": form.description, "schema": form.schema, "strict": form.strict}
    return {"type": "json_schema", "json_schema": named}


def _refuse_unsupported(request: ResponsesRequest) -> None:
    if request.background:
        raise errors.unsupported("background", "This server answers while you wait: 'background' must be false.")
    if request.conversation is not None:
        raise errors.unsupported("conversation", "This server keeps no conversations; use 'previous_response_id'.")
    if request.prompt is not None:
        raise errors.unsupported("prompt", "This server keeps no prompts; send 'instructions' and 'input'.")
    if request.moderation is not None:
        raise errors.unsupported("moderation", "This server has no model that moderates.")
    if request.stream_options is not None and not request.stream:
        raise errors.bad_request("'stream_options' is only allowed when 'stream' is true.", "stream_options")
