"""From a request for a message to the chat that it is."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import msgspec

from inferno_runtime.openai import errors
from inferno_runtime.openai.messages_api.requests import (
    Block,
    Content,
    CountTokensRequest,
    ImageBlock,
    InputMessage,
    InputTool,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)
from inferno_runtime.openai.requests import ChatRequest, from_fields
from inferno_runtime.openai.tools import check_name

WORDS = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    ".function.parameters": ".input_schema",
    ".function.": ".",
}
"""What a chat's fields are called here, for `errors.in_words`."""

MAX_TOP_K = 100  # more than the engine ranks
_KINDS = tuple(str(kind.__struct_config__.tag) for kind in get_args(Block))


def chat_of(request: CountTokensRequest) -> ChatRequest:
    """The chat. Raises `ApiError`, also in a chat's words; see `WORDS`."""
    if not request.messages:
        raise errors.bad_request("'messages' must hold at least one message.", "messages")
    if request.mcp_servers:
        raise errors.unsupported("mcp_servers", "This server connects to no others: offer their tools as yours.")
    fields: dict[str, Any] = {"model": request.model, "priority": request.priority}
    fields["messages"] = [*_system(request.system), *_messages(request.messages)]
    if request.tools:
        fields["tools"] = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools)]
    fields |= _choice(request.tool_choice, bool(request.tools))
    if request.thinking is not None and request.thinking.type == "disabled":
        fields["reasoning_effort"] = "none"
    elif request.output_config is not None:
        fields["reasoning_effort"] = request.output_config.effort
    if request.output_config is not None and request.output_config.format is not None:
        schema = {"name": "output", "schema": request.output_config.format.schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if isinstance(request, MessagesRequest):
        shared = ("max_tokens", "temperature", "top_p", "seed", "stream")
        fields |= {name: getattr(request, name) for name in shared}
        fields["stop"] = request.stop_sequences
        fields["top_k"] = None if request.top_k is None else min(request.top_k, MAX_TOP_K)
    return from_fields(fields, ChatRequest)


def _system(system: Content | None) -> Iterator[dict[str, Any]]:
    if system is not None and (text := _text(system, "system", "system")):
        yield {"role": "system", "content": text}


def _messages(given: Sequence[InputMessage]) -> Iterator[dict[str, Any]]:
    """The messages of a chat: each result of a tool is one of its own. Raises `ApiError`."""
    waiting: dict[str, None] = {}  # ids of uses without a result
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        if message.role == "assistant":
            _refuse_waiting(waiting)
            said = _assistant(message, where)
            waiting = {call["id"]: None for call in said.get("tool_calls", ())}
            yield said
        elif message.role == "system":
            yield {"role": "system", "content": _text(message.content, f"{where}.content", "messages")}
        else:
            yield from _user(message, where, waiting)
    _refuse_waiting(waiting)


def _refuse_waiting(waiting: dict[str, None]) -> None:
    for use in waiting:
        raise errors.bad_request(f"'messages' hold no tool_result for the tool_use '{use[:64]}'.", "messages")


def _user(message: InputMessage, where: str, waiting: dict[str, None]) -> Iterator[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for number, block in enumerate(_blocks(message.content, f"{where}.content", "messages")):
        at = f"{where}.content[{number}]"
        match block:
            case TextBlock() | ImageBlock():
                parts.append(_part(block, at))
            case ToolResultBlock(use, content, is_error):
                if use not in waiting:
                    raise errors.bad_request(
                        f"{at}.tool_use_id must be the id of a tool_use of the message before it that has no result yet.",
                        "messages",
                    )
                del waiting[use]
                yield {"role": "tool", "tool_call_id": use, "content": _result(content, is_error, f"{at}.content")}
            case _:
                raise errors.bad_request(f"{at}: only the assistant thinks and uses tools.", "messages")
    _refuse_waiting(waiting)
    if parts or not isinstance(message.content, list) or not message.content:
        yield {"role": "user", "content": _content(parts)}


def _result(content: Content | None, is_error: bool | None, where: str) -> str | list[dict[str, Any]]:
    """What came of a use of a tool."""
    blocks = _blocks(content, where, "messages") if content is not None else iter(())
    parts = [_part(block, f"{where}[{number}]") for number, block in enumerate(blocks)]
    if is_error:
        first = parts[0] if parts and parts[0]["type"] == "text" else {"type": "text", "text": ""}
        parts = [{"type": "text", "text": f"Error: {first['text']}"}, *(part for part in parts if part is not first)]
    return _content(parts)


def _content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A content as a chat has it: a text, or parts where there are images."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(block: Block, where: str) -> dict[str, Any]:
    """A text or an image as a part of a chat's content. Raises `ApiError` for any other block."""
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if not isinstance(block, ImageBlock):
        raise errors.bad_request(f"{where} must be of the type 'text' or 'image'.", "messages")
    source = block.source
    if source.type == "base64":
        if source.data is None or source.media_type is None:
            raise errors.bad_request(f"{where}.source must have 'media_type' and 'data'.", "messages")
        url = f"data:{source.media_type};base64,{source.data}"
    elif source.url is None:
        raise errors.bad_request(f"{where}.source must have a 'url'.", "messages")
    else:
        url = source.url
    return {"type": "image_url", "image_url": {"url": url}}


def _assistant(message: InputMessage, where: str) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, block in enumerate(_blocks(message.content, f"{where}.content", "messages")):
        at = f"{where}.content[{number}]"
        match block:
            case TextBlock(text):
                texts.append(text)
            case ThinkingBlock(thinking):
                thoughts.append(thinking)
            case ToolUseBlock(use, name, given):
                check_name(name, "messages", f"{at}.name")
                if any(call["id"] == use for call in calls):
                    raise errors.bad_request(f"{at}.id: two uses have the same id.", "messages")
                arguments = msgspec.json.encode(given).decode()
                calls.append({"id": use, "type": "function", "function": {"name": name, "arguments": arguments}})
            case ToolResultBlock() | ImageBlock():
                kind = "a tool_result" if isinstance(block, ToolResultBlock) else "an image"
                raise errors.bad_request(f"{at}: {kind} stands in a message of the user.", "messages")
    said: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    if thoughts:
        said["reasoning_content"] = "\n".join(thoughts)
    if calls:
        said["tool_calls"] = calls
    return said


def _text(content: Content, where: str, param: str) -> str:
    """A content that is nothing but text."""
    blocks = list(_blocks(content, where, param))
    for number, block in enumerate(blocks):
        if not isinstance(block, TextBlock):
            raise errors.bad_request(f"{where}[{number}] must be of the type 'text'.", param)
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))


def _blocks(content: Content, where: str, param: str) -> Iterator[Block]:
    if isinstance(content, str):
        yield TextBlock(content)
        return
    for number, given in enumerate(content):
        kind = given.get("type")
        if kind not in _KINDS:
            raise errors.unsupported(
                param,
                f"{where}[{number}].type must be one of {', '.join(_KINDS)}, not '{str(kind)[:64]}'.",
            )
        try:
            yield msgspec.convert(given, type=Block)
        except msgspec.ValidationError as error:
            what, _, path = str(error).partition(" - at `$")
            raise errors.bad_request(f"Invalid '{where}[{number}]{path.rstrip('`')}': {what}.", param) from error


def _tool(given: dict[str, Any], where: str) -> dict[str, Any]:
    if given.get("type") not in (None, "custom"):
        raise errors.unsupported(
            "tools", f"{where}: this server has no tools of its own; describe yours by 'name' and 'input_schema'."
        )
    try:
        tool = msgspec.convert(given, type=InputTool)
    except msgspec.ValidationError as error:
        raise errors.bad_request(f"Invalid '{where}': {error}.", "tools") from error
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice | None, tools: bool) -> dict[str, Any]:
    """The fields of a chat that say the same."""
    if choice is None:
        return {}
    fields: dict[str, Any] = {}
    if tools and choice.disable_parallel_tool_use is not None:
        fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    if choice.type == "tool":
        if choice.name is None:
            raise errors.missing("tool_choice.name")
        return fields | {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
    return fields | {"tool_choice": {"auto": "auto", "any": "required", "none": "none"}[choice.type]}
