"""Tools with the tiny model, which speaks Hermes's dialect, as OpenAI's own client and the other transports see them."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.conformance.wire import Socket, events_of
from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.test_start import started

QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city",
        "parameters": CITY,
        "strict": True,
    },
}
NOW: Any = {"type": "function", "function": {"name": "now", "strict": True}}
PLACE: Any = {
    "type": "function",
    "function": {
        "name": "place",
        "parameters": {
            "type": "object",
            "properties": {
                "kind": {"enum": ["</tool_call>", '"}}', "city"]},
                "days": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 6}, "maxItems": 3},
                "at": {"$ref": "#/$defs/point"},
            },
            "required": ["kind", "days"],
            "additionalProperties": False,
            "$defs": {
                "point": {
                    "type": "object",
                    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}},
                    "required": ["x"],
                    "additionalProperties": False,
                }
            },
        },
    },
}


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    fields = {"messages": QUESTION, "tools": [WEATHER, NOW], "temperature": 0, "max_tokens": 200, **fields}
    return client.chat.completions.create(model=MODEL, **fields)


def test_the_model_calls_a_tool_and_reads_its_result(client: openai.OpenAI) -> None:
    (choice,) = ask(client).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "clear"}'}
    answer = ask(client, messages=[*QUESTION, choice.message.to_dict(), result])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None


def test_a_stream_adds_up_to_the_whole(client: openai.OpenAI) -> None:
    fields: Any = {"messages": QUESTION, "tools": [WEATHER], "temperature": 0}
    with client.chat.completions.stream(model=MODEL, **fields) as stream:
        deltas = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert call.function.name == "get_weather"
    assert call.function.arguments == "".join(deltas)
    assert len(deltas) > 1
    (whole,) = ask(client, tools=[WEATHER]).choices[0].message.tool_calls
    assert call.function.arguments == whole.function.arguments


def test_a_question_that_needs_no_tool(client: openai.OpenAI) -> None:
    (choice,) = ask(client, messages=[{"role": "user", "content": "What is the capital of France?"}]).choices
    assert choice.finish_reason == "stop"
    assert "Paris" in choice.message.content
    assert choice.message.tool_calls is None


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("parallel", [True, False])
def test_a_forced_call_always_follows_its_schema(client: openai.OpenAI, seed: int, parallel: bool) -> None:
    tools = [WEATHER, NOW, PLACE]
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {"maxProperties": 0}) for tool in tools}
    fields: Any = {"tool_choice": "required", "parallel_tool_calls": parallel, "temperature": 1.5, "top_p": 1}
    (choice,) = ask(client, tools=tools, seed=seed, max_tokens=900, **fields).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls = choice.message.tool_calls
    assert parallel or len(calls) == 1
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])


def follows(call: Any, tools: list[Any]) -> None:
    (function,) = [tool["function"] for tool in tools if tool["function"]["name"] == call.function.name]
    jsonschema.validate(json.loads(call.function.arguments), function.get("parameters", {"maxProperties": 0}))


def test_a_strict_tools_call_follows_its_schema_also_where_the_model_need_not_call(client: openai.OpenAI) -> None:
    place = {"type": "function", "function": {**PLACE["function"], "strict": True}}
    tools = [place, NOW]  # of which it was taught nothing
    called = 0
    for seed in range(16):
        (choice,) = ask(client, tools=tools, seed=seed, max_tokens=900, temperature=1.2, top_p=1).choices
        calls = choice.message.tool_calls or []
        called += len(calls)
        assert choice.finish_reason == ("tool_calls" if calls else "stop")
        assert "<tool_call>" not in (choice.message.content or "")
        for call in calls:
            follows(call, tools)
    assert called > 4
    (choice,) = ask(
        client, tools=tools, messages=[{"role": "user", "content": "What is the capital of France?"}]
    ).choices
    assert "Paris" in choice.message.content


def test_an_answer_that_must_have_a_form_is_a_call_or_has_it(client: openai.OpenAI) -> None:
    person = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": person, "strict": True}}
    loose = {"type": "function", "function": {**WEATHER["function"], "strict": False}}
    kinds = set()
    for question in (QUESTION, [{"role": "user", "content": "Give me a person as JSON."}]):
        for seed in range(8):
            (choice,) = ask(
                client,
                messages=question,
                tools=[loose, NOW],
                response_format=form,
                seed=seed,
                max_tokens=400,
                temperature=1,
            ).choices
            kinds.add(choice.finish_reason)
            if choice.message.tool_calls:
                assert choice.message.content is None
                assert all(isinstance(json.loads(call.function.arguments), dict) for call in choice.message.tool_calls)
            else:
                jsonschema.validate(json.loads(choice.message.content), person)
    assert kinds == {"tool_calls", "stop"}


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "now"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]},
        },
    ],
    ids=["named", "allowed"],
)
def test_a_choice_by_name(client: openai.OpenAI, choice: Any) -> None:
    (answer,) = ask(client, tool_choice=choice, parallel_tool_calls=False).choices
    (call,) = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("now", "{}")
    assert answer.finish_reason == "tool_calls"


def test_no_calls_where_none_are_wanted(client: openai.OpenAI) -> None:
    (choice,) = ask(client, tool_choice="none").choices
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"


def test_a_call_that_the_limit_cuts(client: openai.OpenAI) -> None:
    whole = ask(client, tool_choice="required", tools=[WEATHER])
    limit = whole.usage.completion_tokens - 6
    (choice,) = ask(client, tool_choice="required", tools=[WEATHER], max_tokens=limit).choices
    assert choice.finish_reason == "length"
    (call,) = choice.message.tool_calls
    assert whole.choices[0].message.tool_calls[0].function.arguments.startswith(call.function.arguments)


def test_several_answers_each_call(client: openai.OpenAI) -> None:
    choices = ask(client, tool_choice="required", n=3, temperature=1).choices
    ids = [call.id for choice in choices for call in choice.message.tool_calls]
    assert len(choices) == 3
    assert len(set(ids)) == len(ids)


def test_as_named_events(server: ServerProcess) -> None:
    body = {"model": MODEL, "messages": QUESTION, "tools": [WEATHER], "temperature": 0}
    events = events_of(server.client.post("/v1/stream/sse", json=body).text)
    calls = [data for name, data in events if name == "tool_call"]
    assert (calls[0]["call"], calls[0]["name"]) == (0, "get_weather")
    assert json.loads("".join(call["arguments"] for call in calls)) == {"city": "Paris"}
    assert [name for name, _ in events if name == "token"] == []
    assert events[-1][0] == "complete"
    assert events[-1][1]["finish_reason"] == "tool_calls"


def test_in_a_query(server: ServerProcess) -> None:
    fields = {"messages": QUESTION, "tools": [WEATHER], "temperature": 0, "parallel_tool_calls": False}
    query = {"model": MODEL, "tool_choice": "required"} | {name: json.dumps(value) for name, value in fields.items()}
    events = events_of(server.client.get("/v1/stream/sse", params=query).text)
    assert [data["name"] for name, data in events if name == "tool_call" and "name" in data] == ["get_weather"]


def test_on_a_socket(server: ServerProcess) -> None:
    with Socket(server) as socket:
        socket.send(
            type="inference", model=MODEL, messages=QUESTION, params={"tools": [WEATHER], "temperature": 0}, id="one"
        )
        messages = socket.until("complete", "error")
    calls = [message for message in messages if message["type"] == "tool_call"]
    assert {call["request_id"] for call in calls} == {"one"}
    assert calls[0]["name"] == "get_weather"
    assert json.loads("".join(call["arguments"] for call in calls)) == {"city": "Paris"}
    assert messages[-1]["finish_reason"] == "tool_calls"


GENERIC = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\\n{{ message.content }}<|im_end|>\\n{% endfor %}"
    "<|im_start|>assistant\\n"
)


def test_a_template_without_tools(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(
        "apiVersion: inferno.ai/v1alpha1\nkind: InfernoModel\nmetadata: {name: inferno-tiny}\nspec:\n"
        f"  model: {{source: '{DEFAULT_MODEL.as_uri()}', chatTemplate: \"{GENERIC}\"}}\n"
        "  engine: {slots: 2, threads: 1, tuning: 'off'}\n"
    )
    with (
        started("run", str(path), "--port", "0") as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0, _strict_response_validation=True) as client,
    ):
        (choice,) = ask(client, tool_choice="required", temperature=1.5, max_tokens=600).choices
        assert choice.finish_reason == "tool_calls"
        assert all(isinstance(json.loads(call.function.arguments), dict) for call in choice.message.tool_calls)
        results = [{"role": "tool", "tool_call_id": call.id, "content": "21"} for call in choice.message.tool_calls]
        assert ask(client, messages=[*QUESTION, choice.message.to_dict(), *results], max_tokens=5).choices


def test_the_pages_examples(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(example.replace("http://127.0.0.1:8000/v1", server.url), {})
        assert capsys.readouterr().out.strip()


HOSTILE = {
    "large": {"type": "object", "properties": {f"property{number}": {"type": "string"} for number in range(20_000)}},
    "deep": json.loads('{"type": "object", "properties": {"a": ' * 90 + "{}" + "}}" * 90),
    "a reference to itself": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"$ref": "#/$defs/a"}},
    },
    "a reference to nothing": {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "required": ["a"]},
    "a reference elsewhere": {
        "type": "object",
        "properties": {"a": {"$ref": "http://127.0.0.1:1/x"}},
        "required": ["a"],
    },
    "a type that is none": {"type": "object", "properties": {"a": {"type": "wizard"}}, "required": ["a"]},
    "an explosion": {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "(a|b)*a(a|b){200}"}},
        "required": ["a"],
    },
}


@pytest.mark.parametrize("parameters", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_schema_is_refused_and_harms_nobody(server: ServerProcess, parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    response = server.chat(tools=[tool], tool_choice="required", max_tokens=50)
    if response.status_code != 200:
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] in ("tools", "messages")
    assert "Paris" in server.chat(temperature=0).json()["choices"][0]["message"]["content"]
