"""What a chat template expects of messages, found out by trying: templates do not say, and each expects something else."""

from dataclasses import dataclass
from typing import Any

from inferno_runtime.chat.template import ChatTemplate, TemplateError

_LONG_ID, _SHORT_ID = "call_0123456789abcdef01234567", "abc012345"
_WORD = "needle"
_ARGUMENTS = {"key": _WORD}
_AS_TEXT = '{"key": "needle"}'
_USER = {"role": "user", "content": "Hello."}
_TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {}}},
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What a template wants."""

    tools: bool = False  # it has a place for tools
    system: bool = True  # and for a system message
    calls: bool = False  # and for calls, in a way that is known
    short_ids: bool = False  # of calls: nine letters and digits
    text_arguments: bool = False  # JSON text, instead of objects
    no_content: bool = False  # None, instead of an empty text
    several: bool = True  # calls in one message
    parts: bool = False  # a content as a list of parts, instead of a text


def probe(template: ChatTemplate) -> Traits:
    """What this template wants."""
    tools = "tools" in template.variables
    if _wants_parts(template):
        return Traits(tools=tools, system=_WORD in _try(template, [_said("system"), _said("user")]), parts=True)
    system = _WORD in _try(template, [{"role": "system", "content": _WORD}, _USER])
    if not tools:
        return Traits(system=system)
    for short_ids in (False, True):
        for text_arguments, no_content in ((False, False), (False, True), (True, False), (True, True)):
            traits = Traits(True, system, True, short_ids, text_arguments, no_content)
            if _shown(template, traits, 1):
                several = _shown(template, traits, 2)
                return Traits(True, system, True, short_ids, text_arguments, no_content, several)
    return Traits(tools=True, system=system)


def _wants_parts(template: ChatTemplate) -> bool:
    """Whether it shows a content only where that is a list of parts, as the templates of some models with images do."""
    return _WORD not in _try(template, [{"role": "user", "content": _WORD}]) and _WORD in _try(
        template, [_said("user")]
    )


def _said(role: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": _WORD}]}


def _shown(template: ChatTemplate, traits: Traits, count: int) -> bool:
    """Whether it writes so many calls, made like that, each with its arguments as the JSON that they are."""
    call_id = _SHORT_ID if traits.short_ids else _LONG_ID
    arguments: Any = _AS_TEXT if traits.text_arguments else _ARGUMENTS
    call = {"id": call_id, "type": "function", "function": {"name": "find", "arguments": arguments}}
    said = {"role": "assistant", "content": None if traits.no_content else "", "tool_calls": [call] * count}
    result = {"role": "tool", "content": "Found.", "tool_call_id": call_id, "name": "find"}
    text = _try(template, [_USER, said, *[result] * count])
    # Qwen3-Coder's writes values between tags; others' errors show in quotes that are escaped, or Python's.
    return text.count(_WORD) == count and not any(wrong in text for wrong in ('\\"key', "'key'"))


def _try(template: ChatTemplate, messages: list[dict[str, Any]]) -> str:
    try:
        return template.render(messages, [_TOOL])
    except TemplateError:
        return ""
