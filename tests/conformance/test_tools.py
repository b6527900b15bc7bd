"""Function calling, as the document plans it."""

import json

from tests.conformance.covering import covers
from tests.runtime.process import ServerProcess

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


@covers("sampling.tools", "matrix.chat.function-calling")
def test_a_forced_call(server: ServerProcess) -> None:
    response = server.chat("What is the time?", tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    assert response.status_code == 200
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "now"
    assert isinstance(json.loads(call["function"]["arguments"]), dict)


@covers("sampling.tools")
def test_a_function_without_parameters_is_called_with_nothing(server: ServerProcess) -> None:
    bare = {"type": "function", "function": {"name": "now"}}
    response = server.chat("What is the time?", tools=[bare], tool_choice="required")
    (choice,) = response.json()["choices"]
    assert {call["function"]["arguments"] for call in choice["message"]["tool_calls"]} == {"{}"}


@covers("sampling.tools")
def test_a_call_that_the_limit_cuts_ends_with_length(server: ServerProcess) -> None:
    response = server.chat("What is the time?", tools=[TOOL], tool_choice="required", max_tokens=3)
    assert response.json()["choices"][0]["finish_reason"] == "length"
