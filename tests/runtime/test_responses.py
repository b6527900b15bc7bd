"""`/v1/responses` with the tiny model, as OpenAI's own client sees it, which refuses what is not as it knows it."""

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from tests.runtime.process import MODEL, ServerProcess

QUESTION = "What is the capital of France?"
STORY = "Tell me a story."
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def respond(client: openai.OpenAI, given: Any = QUESTION, **fields: Any) -> Response:
    response: Response = client.responses.create(model=MODEL, input=given, **{"temperature": 0, **fields})
    return response


def test_a_question(client: openai.OpenAI) -> None:
    response = respond(client, metadata={"a": "b"})
    assert "Paris" in response.output_text
    assert (response.status, response.model, response.metadata) == ("completed", MODEL, {"a": "b"})
    usage = response.usage
    assert usage is not None
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    counted = client.responses.input_tokens.count(model=MODEL, input=QUESTION)
    assert counted.input_tokens == usage.input_tokens


def test_a_stream_is_the_whole_in_pieces(client: openai.OpenAI) -> None:
    whole = respond(client, STORY, max_output_tokens=40)
    with client.responses.stream(model=MODEL, input=STORY, temperature=0, max_output_tokens=40) as stream:
        events = list(stream)
    assert events[-1].type == "response.incomplete"
    final = events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == final.output_text == whole.output_text
    assert final.status == whole.status == "incomplete"
    assert final.incomplete_details is not None
    assert final.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("tools", [[], [WEATHER]], ids=["plain", "read for calls"])
def test_how_likely_the_tokens_were(client: openai.OpenAI, tools: list[Any]) -> None:
    fields: dict[str, Any] = {
        "tools": tools, "temperature": 0, "max_output_tokens": 40, "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
    }  # fmt: skip
    whole = respond(client, STORY, **fields)
    with client.responses.stream(model=MODEL, input=STORY, **fields) as stream:
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
    (part,) = (part for item in whole.output if item.type == "message" for part in item.content)
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert b"".join(bytes(token.bytes) for token in part.logprobs).decode() == part.text
    assert all(token.top_logprobs[0].token == token.token for token in part.logprobs)  # greedily
    assert {len(token.top_logprobs) for token in part.logprobs} == {2}
    streamed = [token for event in deltas for token in event.logprobs]
    assert [token.token for token in streamed] == [token.token for token in part.logprobs]
    assert [token.logprob for token in streamed] == pytest.approx([token.logprob for token in part.logprobs], abs=0.05)
    # What was said goes on being a conversation.
    again = respond(
        client, [{"role": "user", "content": STORY}, *whole.output, {"role": "user", "content": "And then?"}]
    )
    assert again.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_in_a_stored_conversation(client: openai.OpenAI, stream: bool) -> None:
    fields: Any = {"model": MODEL, "tools": [WEATHER], "temperature": 0}
    question = "What is the weather in Paris?"
    if stream:
        with client.responses.stream(input=question, tool_choice="required", **fields) as streamed:
            deltas = [e.delta for e in streamed if e.type == "response.function_call_arguments.delta"]
            first: Any = streamed.get_final_response()
        assert "".join(deltas) == first.output[-1].arguments
    else:
        first = client.responses.create(input=question, tool_choice="required", **fields)
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})
    output: Any = [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": '{"city": "Paris", "temperature": 21, "condition": "sunny"}',
        }
    ]
    second = client.responses.create(input=output, previous_response_id=first.id, **fields)
    assert second.status == "completed"
    assert second.output_text
    assert second.previous_response_id == first.id
    # Whoever keeps nothing on the server sends all of it, and hears the same.
    alone = client.responses.create(
        input=[{"role": "user", "content": question}, call.to_dict(), *output], store=False, **fields
    )
    assert alone.output_text == second.output_text
    listed = list(client.responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.type for item in listed] == ["message", "function_call", "function_call_output"]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(alone.id)


def test_a_response_is_kept_until_it_is_deleted(client: openai.OpenAI) -> None:
    response = respond(client)
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()
    client.responses.delete(response.id)
    for gone in (
        lambda: client.responses.retrieve(response.id),
        lambda: client.responses.delete(response.id),
        lambda: respond(client, "And Italy?", previous_response_id=response.id),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            gone()
        assert caught.value.code == "response_not_found"


def test_an_item_by_its_id(client: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "What is the capital of France?"}
    first = client.responses.create(model=MODEL, input=[question], temperature=0)
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    second = client.responses.create(model=MODEL, input=[question, reference, question], temperature=0)
    listed = client.responses.input_items.list(second.id, order="asc").data
    assert [item.id for item in listed][1] == first.output[0].id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model=MODEL, input=[question, reference], temperature=0)
    assert caught.value.code == "item_not_found"


def test_what_is_not_there_is_told(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Hi", max_output_tokens=4)
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.cancel(response.id)
    assert (caught.value.status_code, caught.value.code) == (501, "endpoint_not_served")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.create(model=MODEL, input="Hi", background=True)


def test_a_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    response = respond(client, text=form, max_output_tokens=60)
    assert json.loads(response.output_text)["city"] in ("Paris", "Rome")


def test_instructions_are_those_of_one_request(client: openai.OpenAI) -> None:
    first = respond(client, instructions="Be brief. " * 20)
    assert first.usage is not None
    second = respond(client, "And Italy?", previous_response_id=first.id)
    assert second.usage is not None
    assert second.instructions is None
    assert second.usage.input_tokens < first.usage.input_tokens


def test_a_conversation_that_grows_too_long(client: openai.OpenAI) -> None:
    said: Any = [{"role": "system", "content": "Be brief."}]
    for _ in range(30):
        said += [{"role": "user", "content": f"{STORY} " * 8}, {"role": "assistant", "content": "Once. " * 8}]
    said.append({"role": "user", "content": QUESTION})
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, said)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    assert "Paris" in respond(client, said, truncation="auto", max_output_tokens=30).output_text
    one: Any = [{"role": "user", "content": f"{STORY} " * 400}]
    with pytest.raises(openai.BadRequestError):
        respond(client, one, truncation="auto")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "?"}}}}, "text.format"),
        ({"background": True}, "background"),
    ],
)
def test_errors_name_the_fields_of_this_api(server: ServerProcess, fields: dict[str, Any], param: str) -> None:
    body = {"model": MODEL, "input": QUESTION, **fields}
    response = server.client.post("/v1/responses", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_no_account_sees_anothers_responses(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("- {name: one, key: sk-one}\n- {name: two, key: sk-two}\n")

    def ask(server: ServerProcess, method: str, path: str, key: str, body: Any = None) -> httpx.Response:
        return server.client.request(method, path, headers={"Authorization": f"Bearer {key}"}, json=body)

    with ServerProcess("--keys-file", str(keys)) as server:
        body = {"model": MODEL, "input": QUESTION}
        made = ask(server, "POST", "/v1/responses", "sk-one", body).json()["id"]
        assert ask(server, "GET", f"/v1/responses/{made}", "sk-one").status_code == 200
        for method, path in (
            ("GET", f"/v1/responses/{made}"),
            ("GET", f"/v1/responses/{made}/input_items"),
            ("DELETE", f"/v1/responses/{made}"),
        ):
            assert ask(server, method, path, "sk-two").status_code == 404
        following = {**body, "previous_response_id": made}
        assert ask(server, "POST", "/v1/responses", "sk-two", following).status_code == 404
        assert ask(server, "POST", "/v1/responses", "sk-one", following).status_code == 200
