"""LangChain's classes for OpenAI, over chats and over responses, and for Anthropic: a tool, its result, and a stream."""

import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

root, model = sys.argv[1:]


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return '{"city": "Paris", "temperature": 21, "condition": "sunny"}'


shared = {"model": model, "temperature": 0, "api_key": "none", "max_retries": 0}
for chat, forced in (
    (ChatOpenAI(base_url=f"{root}/v1", max_tokens=100, **shared), "required"),
    (ChatOpenAI(base_url=f"{root}/v1", max_tokens=100, use_responses_api=True, **shared), "required"),
    (ChatAnthropic(base_url=root, max_tokens=100, **shared), "any"),
):
    conversation = [HumanMessage("What is the weather in Paris?")]
    said = chat.bind_tools([get_weather], tool_choice=forced).invoke(conversation)
    (call,) = said.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"}), said
    assert said.usage_metadata["input_tokens"], said
    conversation += [said, get_weather.invoke(call)]
    free = chat.bind_tools([get_weather])
    answer = free.invoke(conversation)
    assert answer.text, answer
    pieces = list(free.stream(conversation))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert len(pieces) > 1, pieces
    assert whole.text == answer.text, (whole.text, answer.text)
    pieces = list(chat.bind_tools([get_weather], tool_choice=forced).stream(conversation[:1]))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert [made["args"] for made in whole.tool_calls] == [{"city": "Paris"}], whole
