"""LlamaIndex's classes for OpenAI, over chats and over responses: a tool, its result, and a stream."""

import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses

root, model = sys.argv[1:]


def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return '{"city": "Paris", "temperature": 21, "condition": "sunny"}'


tool = FunctionTool.from_defaults(get_weather)
# Its classes take only models whose context they know; what is said on the wire is another matter.
shared = {
    "model": "gpt-4o-mini",
    "additional_kwargs": {"model": model},
    "api_base": f"{root}/v1",
    "api_key": "none",
    "temperature": 0,
    "max_retries": 0,
}
for llm in (OpenAI(max_tokens=100, **shared), OpenAIResponses(max_output_tokens=100, **shared)):
    response = llm.chat_with_tools([tool], user_msg="What is the weather in Paris?", tool_required=True)
    (call,) = llm.get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Paris"}), call
    answered = llm.predict_and_call([tool], user_msg="What is the weather in Paris?", tool_required=True)
    assert "21" in str(answered), answered
    pieces = list(llm.stream_chat([ChatMessage(role="user", content="What is the capital of France?")]))
    assert len(pieces) > 1, pieces
    assert "Paris" in str(pieces[-1].message.content), pieces[-1]
