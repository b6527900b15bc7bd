"""The messages of a chat request, held to what they must be."""

import re
from collections.abc import Sequence

from inferno_runtime.chat.conversation import Role, Turn
from inferno_runtime.chat.events import Call
from inferno_runtime.openai import errors
from inferno_runtime.openai.images import content_of
from inferno_runtime.openai.requests import Message
from inferno_runtime.openai.tools import check_name

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
# What OpenAI takes for a name: it stands in the prompt, so it must not look like a part of the template's own.
_NAME = re.compile(r"[^\s<|\\/>]{1,64}")


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """The messages as chat templates are given them. Raises `ApiError`, whose sentence says which message is wrong."""
    if not messages:
        raise errors.bad_request("'messages' must hold at least one message.", "messages")
    turns: list[Turn] = []
    images = 0
    unanswered: dict[str, str] = {}  # ids of the calls of the last assistant's message, and where they stand
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        turn = _turn(message, where, images)
        images += len(turn.images)
        if turn.role == "tool":
            if unanswered.pop(turn.call_id, None) is None:
                raise errors.bad_request(
                    f"{where}.tool_call_id must be the id of a call of the assistant's message before it, "
                    "which no other message has answered.",
                    "messages",
                )
        else:
            _refuse_unanswered(unanswered)
            unanswered = {call.id: f"{where}.tool_calls[{at}]" for at, call in enumerate(turn.calls)}
            if len(unanswered) < len(turn.calls):
                raise errors.bad_request(f"{where}.tool_calls: two calls have the same id.", "messages")
        turns.append(turn)
    _refuse_unanswered(unanswered)
    return turns


def _refuse_unanswered(calls: dict[str, str]) -> None:
    for where in calls.values():
        raise errors.bad_request(f"{where}: a message of the role 'tool' must answer this call.", "messages")


def _turn(message: Message, where: str, images: int) -> Turn:
    """images: how many the messages before it have."""
    if message.role == "function":
        raise errors.unsupported("messages", f"{where}.role: send results as messages of the role 'tool'.")
    role = _ROLES.get(message.role)
    if role is None:
        raise errors.bad_request(f"{where}.role must be one of {', '.join(_ROLES)}, not '{message.role}'.", "messages")
    if message.tool_calls and role != "assistant":
        raise errors.bad_request(f"{where}.tool_calls: only the assistant calls tools.", "messages")
    if role == "tool" and message.tool_call_id is None:
        raise errors.bad_request(f"{where}.tool_call_id is missing.", "messages")
    if message.content is None and not message.tool_calls:
        raise errors.bad_request(f"{where}.content is missing.", "messages")
    if message.name is not None and not _NAME.fullmatch(message.name):
        raise errors.bad_request(f"{where}.name has characters that a name cannot have, or too many.", "messages")
    content = content_of(message.content or "", f"{where}.content")
    if content.images and role not in ("user", "tool"):
        raise errors.bad_request(f"{content.images[0][0].where}: the {message.role} shows no images.", "messages")
    return Turn(
        role,
        content.text,
        name=message.name,
        reasoning=(message.reasoning_content or "") if role == "assistant" else "",
        calls=_calls(message, where),
        call_id=(message.tool_call_id or "") if role == "tool" else "",
        images=tuple((images + number, at) for number, (_, at) in enumerate(content.images)),
    )


def _calls(message: Message, where: str) -> tuple[Call, ...]:
    calls = message.tool_calls or ()
    for number, call in enumerate(calls):
        check_name(call.function.name, "messages", f"{where}.tool_calls[{number}].function.name")
    return tuple(Call(call.id, call.function.name, call.function.arguments) for call in calls)
