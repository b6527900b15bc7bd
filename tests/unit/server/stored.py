"""Responses as a server has stored them."""

import msgspec

from inferno_runtime.chat.events import Said
from inferno_runtime.openai.responses import Result
from inferno_runtime.openai.responses_api import items
from inferno_runtime.openai.responses_api.answer import Response, usage_of
from inferno_runtime.openai.responses_api.requests import ResponsesRequest
from inferno_runtime.server.response_store import StoredResponse

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def stored_response(response_id: str, text: str = "Hello.") -> StoredResponse:
    """A response that is complete, of one message to another."""
    response = Response(ResponsesRequest(model="fake", input="Hi"), "fake", store=True)
    response.say(Result(Said(text), "stop"))
    shown = response.object(usage_of(USAGE, 0)) | {"id": response_id}
    return StoredResponse(msgspec.json.encode(shown), msgspec.json.encode(items.read("Hi")))
