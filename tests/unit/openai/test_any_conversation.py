"""No body makes the conversion of responses and messages fail: it is a chat, or a 400."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferno_runtime.openai import errors, requests
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.messages_api import convert as messages_api
from inferno_runtime.openai.messages_api.requests import CountTokensRequest, MessagesRequest
from inferno_runtime.openai.requests import ChatRequest
from inferno_runtime.openai.responses_api import convert as responses_api
from inferno_runtime.openai.responses_api import items
from inferno_runtime.openai.responses_api.requests import ResponsesRequest

# Values that mean something here, so that what is made of them comes far.
WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "system",
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "function",
        "text",
        "input_text",
        "output_text",
        "refusal",
        "tool_use",
        "tool_result",
        "thinking",
        "auto",
        "any",
        "tool",
        "now",
        "a",
    ]
)
NAMES = st.sampled_from(
    [
        "type",
        "role",
        "content",
        "text",
        "id",
        "call_id",
        "name",
        "arguments",
        "output",
        "summary",
        "input",
        "tool_use_id",
        "thinking",
        "is_error",
        "format",
        "schema",
        "mode",
        "tools",
        "parameters",
        "input_schema",
        "description",
    ]
)
SCALARS = WORDS | st.just("") | st.none() | st.booleans() | st.integers(-2, 3)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
BOUNDED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def bodies(kind: type[msgspec.Struct], **good: Any) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.sampled_from([info.encode_name for info in msgspec.structs.fields(kind)])
    return st.dictionaries(fields, VALUES, max_size=4).map(lambda given: {**good, **given})


def check(converted: Callable[[], ChatRequest]) -> None:
    refused = None
    try:
        assert isinstance(converted(), ChatRequest)
    except ApiError as error:
        refused = error
    assert refused is None or refused.status == 400


@given(body=bodies(ResponsesRequest, model="m", input="Hi"))
@BOUNDED
def test_responses(body: dict[str, Any]) -> None:
    def converted() -> ChatRequest:
        with errors.in_words(responses_api.WORDS):
            request = requests.from_fields(body, ResponsesRequest)
            return responses_api.chat_of(request, items.read(request.input))

    check(converted)


@pytest.mark.parametrize("kind", [MessagesRequest, CountTokensRequest])
@given(body=bodies(MessagesRequest, model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]))
@BOUNDED
def test_messages(kind: type[CountTokensRequest], body: dict[str, Any]) -> None:
    def converted() -> ChatRequest:
        with errors.in_words(messages_api.WORDS):
            return messages_api.chat_of(requests.from_fields(body, kind))

    check(converted)
