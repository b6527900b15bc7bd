"""The schemas of the API's description: of everything that is sent and received, by name, and what they are made into."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

import msgspec

from inferno_runtime.engine.request import Priority
from inferno_runtime.openai import fields, stream_schemas
from inferno_runtime.openai.described import Field
from inferno_runtime.openai.messages_api import requests as messages_api
from inferno_runtime.openai.responses_api import requests as responses_api

Json = dict[str, Any]

JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"
_ENVELOPE = ("model", "prompt", "messages", "priority")  # of a WebSocket's request, beside its `params`
_IMPLIED = ("stream", "stream_options")  # what a transport that always streams does not need
_PROMPT = "A text to continue. The spelling of a special token is read as one."
# Fields that are lists of these types.
_CONTENTS = (
    ("ResponsesRequest", "input", responses_api.Item),
    ("ResponsesRequest", "tools", responses_api.FunctionTool),
    ("CountTokensRequest", "tools", messages_api.InputTool),
    ("MessagesRequest", "tools", messages_api.InputTool),
    ("InputMessage", "content", messages_api.Block),
)
_ACCUMULATED = {
    "type": "boolean",
    "default": True,
    "description": "Whether each `token` message repeats all of the text before it, which grows with the square of the text.",
}


def component_schemas(types: Iterable[type[msgspec.Struct]]) -> Json:
    """The schemas of these types, of the messages of a WebSocket, and of all that they refer to."""
    messages = {"ClientMessage": stream_schemas.ClientMessage, "ServerMessage": stream_schemas.ServerMessage}
    wanted: list[Any] = [*messages.values(), Priority, *dict.fromkeys((*types, *fields.REQUESTS))]
    made, components = msgspec.json.schema_components(wanted, ref_template=_REFERENCE)
    components |= dict(zip(messages, made, strict=False))
    components["Priority"]["enum"] = list(Priority)  # the highest first
    for kind in fields.REQUESTS:
        _explain(components[kind.__name__]["properties"], fields.described(kind))
    _complete_inference(components)
    for name, field, alternatives in _CONTENTS:
        _refine(components[name]["properties"][field], alternatives)
    return components


def reference(*kinds: type) -> Json:
    """The schema of any of these types."""
    return _any_of([{"$ref": _REFERENCE.format(name=kind.__name__)} for kind in kinds])


def _any_of(alternatives: list[Json]) -> Json:
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _explain(properties: Json, described: Mapping[str, Field]) -> None:
    """Say what the fields of a request mean, and what leaving them out does."""
    for name, field in described.items():
        schema = properties[name]
        schema["description"] = field.told
        schema.pop("default", None)  # null, which only says that it may be left out
        if field.default is not None:
            schema["default"] = field.default


def _refine(schema: Json, kinds: Any) -> None:
    """Say what a list has that is read item by item, so that errors tell which one is wrong."""
    (items,) = [part for part in schema["anyOf"] if part.get("type") == "array"]
    items["items"] = reference(*(get_args(kinds) or (kinds,)))


def _complete_inference(components: Json) -> None:
    """Give a WebSocket's request the fields of requests; most of them stand in its `params`."""
    known = _sole_fields(components)
    components["InferenceParams"] = {
        "title": "InferenceParams",
        "description": "How a request on a WebSocket is generated.",
        "type": "object",
        "properties": {name: schema for name, schema in known.items() if name not in _ENVELOPE}
        | {"accumulated": _ACCUMULATED},
    }
    message = components["InferenceMessage"]["properties"]
    message["params"] = {"$ref": _REFERENCE.format(name="InferenceParams")}
    for name, schema in message.items():
        schema.pop("default", None)
        if name in _ENVELOPE:
            schema["description"] = known[name]["description"]


def _sole_fields(components: Json) -> Json:
    """Every field of a request whose text is streamed by itself, be it a chat or a completion."""
    chat, completion = (components[name]["properties"] for name in ("ChatRequest", "CompletionRequest"))
    known = chat | completion | {"prompt": completion["prompt"] | {"description": _PROMPT}}
    for name in chat.keys() & completion.keys():
        if chat[name] != completion[name]:
            meaning = f"In a chat: {chat[name]['description']} In a completion: {completion[name]['description']}"
            known[name] = {"anyOf": [chat[name], completion[name]], "description": meaning}
    return {name: schema for name, schema in known.items() if name not in _IMPLIED}


# In a query


def query_parameters(components: Json) -> list[Json]:
    """The fields of a request as they stand in a query: a text as it is, anything else as in JSON (see `sole`)."""
    return [_query_parameter(name, schema, components) for name, schema in _sole_fields(components).items()]


def _query_parameter(name: str, schema: Json, components: Json) -> Json:
    described = {
        "name": name,
        "in": "query",
        "description": schema["description"],
        "required": name == "model",
    }
    alternatives = list(_alternatives(schema))
    forms = [_form(part, components) for part in alternatives]
    if "text" in forms:
        alternatives = [part for part, form in zip(alternatives, forms, strict=True) if form in ("text", "texts")]
    elif any(form != "scalar" for form in forms):
        return described | {"content": {JSON: {"schema": _any_of(alternatives)}}}
    default = {"default": schema["default"]} if "default" in schema else {}
    return described | {"schema": _any_of(alternatives) | default}


def _alternatives(schema: Json) -> Iterator[Json]:
    """What a schema allows beside null."""
    if "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from _alternatives(part)
    elif schema.get("type") != "null":
        yield {name: value for name, value in schema.items() if name not in ("description", "default")}


def _form(schema: Json, components: Json) -> str:
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") == "string" or "enum" in schema:
        return "text"
    if schema.get("type") == "array" and schema.get("items") == {"type": "string"}:
        return "texts"
    return "scalar" if schema.get("type") in ("boolean", "integer", "number") else "json"
