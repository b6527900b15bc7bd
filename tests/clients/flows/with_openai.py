"""OpenAI's package: responses and chats, with a tool and its result, whole and streamed, held to its own types."""

import json
import sys

import openai

root, model = sys.argv[1:]
client = openai.OpenAI(base_url=f"{root}/v1", api_key="none", max_retries=0, _strict_response_validation=True)
question = "What is the weather in Paris?"
parameters = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
tool = {"type": "function", "name": "get_weather", "description": "Get the weather of a city", "parameters": parameters, "strict": True}  # fmt: skip

with client.responses.stream(
    model=model, input=question, tools=[tool], tool_choice="required", temperature=0
) as stream:
    kinds = [event.type for event in stream]
    first = stream.get_final_response()
assert kinds[:2] == ["response.created", "response.in_progress"], kinds
assert kinds[-1] == "response.completed", kinds
(call,) = first.output
assert json.loads(call.arguments) == {"city": "Paris"}, call
output = {
    "type": "function_call_output",
    "call_id": call.call_id,
    "output": '{"city": "Paris", "temperature": 21, "condition": "sunny"}',
}
second = client.responses.create(model=model, input=[output], previous_response_id=first.id, temperature=0)
assert second.output_text, second
text = "".join(
    event.delta
    for event in client.responses.create(
        model=model, input="What is the capital of France?", stream=True, temperature=0
    )
    if event.type == "response.output_text.delta"
)
assert "Paris" in text, text

chat_tool = {
    "type": "function",
    "function": {key: tool[key] for key in ("name", "description", "parameters", "strict")},
}
messages = [{"role": "user", "content": question}]
with client.chat.completions.stream(
    model=model, messages=messages, tools=[chat_tool], tool_choice="required", temperature=0
) as stream:
    for _ in stream:
        pass
    message = stream.get_final_completion().choices[0].message
(chat_call,) = message.tool_calls
assert json.loads(chat_call.function.arguments) == {"city": "Paris"}, chat_call
messages += [
    message.to_dict(),
    {
        "role": "tool",
        "tool_call_id": chat_call.id,
        "content": '{"city": "Paris", "temperature": 21, "condition": "sunny"}',
    },
]
answer = client.chat.completions.create(model=model, messages=messages, tools=[chat_tool], temperature=0)
assert answer.choices[0].message.content, answer
