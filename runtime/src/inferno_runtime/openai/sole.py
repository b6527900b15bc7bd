"""Requests of the transports that stream one sequence: server-sent events and WebSocket.

They are those of the two endpoints, in the same types: chat where there are `messages`, and a completion where there is a
`prompt`. In a query, a field that may be text is taken as it stands, and any other is JSON, as it would be in a body.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from inferno_runtime.openai import errors, requests
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest


class _Which(msgspec.Struct):
    """A body, as far as it says which kind of request it is."""

    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


def from_body(body: bytes) -> GenerationRequest:
    """The request in a body. Raises `ApiError` (400)."""
    which = requests.decode(body, _Which)
    chat, completion = (bytes(field) not in (b"", b"null") for field in (which.messages, which.prompt))
    return _alone(requests.decode(body, _kind(chat, completion)))


def from_fields(fields: Mapping[str, Any]) -> GenerationRequest:
    """The request of fields that were decoded already. Raises `ApiError` (400)."""
    chat, completion = (fields.get(name) is not None for name in ("messages", "prompt"))
    return _alone(requests.from_fields(fields, _kind(chat, completion)))


def from_query(arguments: Mapping[str, Sequence[bytes]]) -> GenerationRequest:
    """The request in a query, by name all values of that name. Raises `ApiError` (400), naming the field to blame."""
    kind = _kind("messages" in arguments, "prompt" in arguments)
    fields = {name: _value(name, arguments[name], form) for name, form in _FORMS[kind].items() if name in arguments}
    return _alone(requests.from_fields(fields, kind))


def _kind(chat: bool, completion: bool) -> type[GenerationRequest]:
    if chat and completion:
        raise errors.bad_request("Send either 'messages' or 'prompt', not both.", "prompt")
    if not chat and not completion:
        raise errors.missing("prompt")
    return ChatRequest if chat else CompletionRequest


def _alone(request: GenerationRequest) -> GenerationRequest:
    """The request as one that is streamed, whatever it says itself. Refuses several sequences."""
    if isinstance(request, CompletionRequest) and isinstance(request.prompt, list):
        several = len(request.prompt) > 1 and not all(isinstance(item, int) for item in request.prompt)
        if several:
            raise errors.bad_request("Only one prompt can be streamed here; send several requests.", "prompt")
    if isinstance(request, CompletionRequest) and request.echo:
        raise errors.bad_request("Only the answer is streamed here; to repeat the prompt, use /v1/completions.", "echo")
    if request.n is not None and request.n > 1:
        raise errors.bad_request("Only one answer can be streamed here; send several requests.", "n")
    return msgspec.structs.replace(request, stream=True)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a field stands in a query."""

    text: bool  # as it is
    several: bool  # or several times
    object: bool  # or as JSON, if it begins like an object


def _forms(kind: type[msgspec.Struct]) -> dict[str, _Form]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    forms = {}
    for field in info.fields:
        types = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        forms[field.encode_name] = _Form(
            text=any(isinstance(item, inspect.StrType) for item in types),
            several=any(isinstance(item, inspect.ListType) for item in types),
            object=any(isinstance(item, inspect.DictType) for item in types),
        )
    return forms


_FORMS: dict[type[GenerationRequest], dict[str, _Form]] = {
    kind: _forms(kind) for kind in (ChatRequest, CompletionRequest)
}


def _value(name: str, values: Sequence[bytes], form: _Form) -> object:
    try:
        texts = [str(value, "utf-8") for value in values]
    except UnicodeDecodeError as error:
        raise errors.bad_request(f"'{name}' is not valid UTF-8.", name) from error
    if form.text and not (form.object and texts[0].startswith("{")):
        if len(texts) == 1:
            return texts[0]
        if form.several:
            return texts
    if len(texts) > 1:
        raise errors.bad_request(f"'{name}' is given {len(texts)} times.", name)
    try:
        return msgspec.json.decode(texts[0])
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.bad_request(f"'{name}' must be written as in JSON, and is not: {error}.", name) from error
