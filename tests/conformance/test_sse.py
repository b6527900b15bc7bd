"""Server-sent events at `/stream/sse`."""

import json
from typing import Any

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, STORY, error_of, events_of, tokens_of
from tests.runtime.process import MODEL, ServerProcess

PATHS = ["/v1/stream/sse", "/stream/sse"]
FIELDS = {"model": MODEL, "prompt": STORY, "temperature": "0", "max_tokens": "20"}


def ask(server: ServerProcess, path: str = PATHS[0], **fields: str) -> list[tuple[str, Any]]:
    response = server.client.get(path, params=FIELDS | fields)
    assert response.status_code == 200, response.text
    return events_of(response.text)


@covers("sse.request", "sse.format", "streaming.no-cache")
@pytest.mark.parametrize("path", PATHS)
def test_a_prompt(server: ServerProcess, path: str) -> None:
    response = server.client.get(path, params=FIELDS)
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    *tokens, (name, complete) = events_of(response.text)
    assert {kind for kind, _ in tokens} == {"token"}
    assert all(set(data) == {"token", "index"} for _, data in tokens)
    whole = server.complete(STORY, temperature=0, max_tokens=20).json()
    assert tokens_of(tokens) == whole["choices"][0]["text"]
    assert name == "complete"
    assert (complete["total_tokens"], complete["finish_reason"]) == (20, "length")


@covers("sse.format")
def test_the_lines_of_an_event(server: ServerProcess) -> None:
    text = server.client.get("/v1/stream/sse", params=FIELDS | {"max_tokens": "1"}).text
    first, last, rest = text.split("\n\n")
    assert rest == ""
    # An event may have an id, which is the server's own; name and data follow each other.
    name, data = first.splitlines()[-2:]
    assert name == "event: token"
    assert data.startswith('data: {"token":"')
    assert data.endswith(',"index":0}')
    assert last.splitlines()[-2] == "event: complete"
    assert last.splitlines()[-1].startswith('data: {"total_tokens":1,"finish_reason":"length"')


@covers("sse.messages")
def test_messages_are_a_chat(server: ServerProcess) -> None:
    fields = {"model": MODEL, "messages": json.dumps(QUESTION), "temperature": "0"}
    events = events_of(server.client.get("/v1/stream/sse", params=fields).text)
    whole = server.chat(temperature=0).json()
    assert tokens_of(events) == whole["choices"][0]["message"]["content"]
    assert events[-1][1]["finish_reason"] == "stop"


@covers("sse.raw-prompt")
def test_a_prompt_is_raw(server: ServerProcess) -> None:
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    events = ask(server, prompt=prompt)
    assert tokens_of(events) == server.chat(temperature=0, max_tokens=20).json()["choices"][0]["message"]["content"]


@covers("sse.usage")
def test_the_last_event_has_the_usage(server: ServerProcess) -> None:
    _, complete = ask(server)[-1]
    whole = server.complete(STORY, temperature=0, max_tokens=20).json()["usage"]
    assert complete["total_tokens"] == complete["usage"]["completion_tokens"] == whole["completion_tokens"]
    assert complete["usage"]["prompt_tokens"] == whole["prompt_tokens"]
    assert complete["usage"]["total_tokens"] == whole["total_tokens"]
    assert set(complete["usage"]) == set(whole)


@covers("sse.index")
def test_the_index_is_that_of_the_events_first_token(server: ServerProcess) -> None:
    before = ""
    for name, data in ask(server):
        if name == "token":
            # The tokens before it make the text before it.
            limit = data["index"]
            text = server.complete(STORY, temperature=0, max_tokens=limit).json()["choices"][0]["text"] if limit else ""
            assert before == text
            before += data["token"]


@covers("requests.known-fields", "sse.request")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"model": None}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "2.1"}, "temperature"),
        ({"top_k": "101"}, "top_k"),
        ({"max_tokens": "0"}, "max_tokens"),
        ({"messages": "Hi", "prompt": None}, "messages"),
        ({"priority": "urgent"}, "priority"),
    ],
    ids=str,
)
def test_a_query_that_is_wrong(server: ServerProcess, fields: dict[str, str | None], param: str) -> None:
    query = {name: value for name, value in (FIELDS | fields).items() if value is not None}
    response = server.client.get("/v1/stream/sse", params=query)
    assert response.status_code == 400
    assert error_of(response)["param"] == param


@covers("sse.request", "requests.unknown-fields")
def test_every_parameter_has_its_place_in_the_query(server: ServerProcess) -> None:
    fields = {"temperature": "0.8", "top_p": "0.95", "top_k": "20", "seed": "7", "stop": "zzz", "user": "someone"}
    further = {"presence_penalty": "0.1", "frequency_penalty": "-0.1", "no_such_field": "1"}
    events = ask(server, **fields, **further)
    numbers = {name: json.loads(value) for name, value in (fields | further).items() if name not in ("stop", "user")}
    whole = server.complete(STORY, max_tokens=20, stop="zzz", **numbers).json()
    assert tokens_of(events) == whole["choices"][0]["text"]


@covers("sse.request", "paths.head")
@pytest.mark.parametrize("path", PATHS)
def test_head_generates_nothing(server: ServerProcess, path: str) -> None:
    before = server.metric("generation_tokens_total")
    response = server.client.head(path, params=FIELDS)
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.content == b""
    assert server.metric("generation_tokens_total") == before
