"""Anthropic's package: messages with a tool and its result, whole and streamed, held to its own types."""

import sys

import anthropic

root, model = sys.argv[1:]
client = anthropic.Anthropic(base_url=root, api_key="none", max_retries=0, _strict_response_validation=True)
tool = {
    "name": "get_weather",
    "description": "Get the weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
cold = {"temperature": 0}  # which the package itself has no name for any more
question = {"role": "user", "content": "What is the weather in Paris?"}

message = client.messages.create(
    model=model, max_tokens=100, messages=[question], tools=[tool], tool_choice={"type": "any"}, extra_body=cold
)
assert message.stop_reason == "tool_use", message
(use,) = message.content
assert (use.name, use.input) == ("get_weather", {"city": "Paris"}), use
counted = client.messages.count_tokens(model=model, messages=[question], tools=[tool])
assert counted.input_tokens == message.usage.input_tokens + message.usage.cache_read_input_tokens, counted

with client.messages.stream(
    model=model, max_tokens=100, messages=[question], tools=[tool], tool_choice={"type": "any"}, extra_body=cold
) as stream:
    kinds = [event.type for event in stream]
    streamed = stream.get_final_message()
assert kinds[0] == "message_start", kinds
assert kinds[-1] == "message_stop", kinds
assert "input_json" in kinds, kinds
assert streamed.content[0].input == use.input, streamed
assert streamed.stop_reason == "tool_use", streamed

conversation = [
    question,
    streamed.to_param(),
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": streamed.content[0].id,
                "content": '{"city": "Paris", "temperature": 21, "condition": "sunny"}',
            }
        ],
    },
]
with client.messages.stream(
    model=model, max_tokens=100, system="Be brief.", messages=conversation, tools=[tool], extra_body=cold
) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text, final
assert final.stop_reason == "end_turn", final

stopped = client.messages.create(
    model=model,
    max_tokens=50,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    stop_sequences=[" is"],
    extra_body=cold,
)
assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " is"), stopped
try:
    client.messages.create(model="none", max_tokens=1, messages=[question])
except anthropic.NotFoundError as error:
    failed = error
assert failed.body["error"]["type"] == "not_found_error", failed.body
assert failed.request_id, failed
