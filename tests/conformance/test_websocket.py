"""WebSocket: messages, several requests on one connection, and what ends one and what does not."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, STORY, Socket, error_of, text_of
from tests.runtime.process import MODEL, ServerProcess

PATHS = ["/ws/stream", "/v1/ws/stream"]
SHORT: dict[str, Any] = {"max_tokens": 20, "temperature": 0}
LONG = {"max_tokens": 900, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Socket]:
    with Socket(server) as socket:
        yield socket


@covers(
    "websocket.connection",
    "websocket.request",
    "websocket.start",
    "websocket.token",
    "websocket.complete",
    "matrix.extensions.websocket",
)
@pytest.mark.parametrize("path", PATHS)
def test_a_request(server: ServerProcess, path: str) -> None:
    with Socket(server, path) as client:
        client.ask(params=SHORT)
        start, *tokens, complete = client.until("complete")
    request_id = start["request_id"]
    assert start == {"type": "start", "request_id": request_id, "model": MODEL}
    text = ""
    for token in tokens:
        text += token["token"]
        assert token == {"type": "token", "request_id": request_id, "token": token["token"], "accumulated": text}
    whole = server.complete(STORY, **SHORT).json()
    assert text == whole["choices"][0]["text"]
    assert set(complete) == {"type", "request_id", "total_tokens", "finish_reason", "usage"}
    assert (complete["request_id"], complete["finish_reason"]) == (request_id, "length")
    assert complete["total_tokens"] == complete["usage"]["completion_tokens"] == 20
    assert complete["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


@covers("websocket.messages")
def test_messages_are_a_chat(server: ServerProcess, client: Socket) -> None:
    client.send(type="inference", model=MODEL, messages=QUESTION, params={"temperature": 0})
    messages = client.until("complete")
    assert text_of(messages) == server.chat(temperature=0).json()["choices"][0]["message"]["content"]
    assert messages[-1]["finish_reason"] == "stop"


@covers("websocket.raw-prompt")
def test_a_prompt_is_raw(server: ServerProcess, client: Socket) -> None:
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    client.ask(prompt=prompt, params=SHORT)
    assert text_of(client.until("complete")) == server.chat(**SHORT).json()["choices"][0]["message"]["content"]


@covers("websocket.accumulated")
def test_the_accumulated_text_can_be_left_out(client: Socket) -> None:
    client.ask(params=SHORT | {"accumulated": False})
    _, *tokens, _ = client.until("complete")
    assert tokens
    assert all(set(token) == {"type", "request_id", "token"} for token in tokens)


@covers("websocket.several")
def test_several_requests_on_one_connection(server: ServerProcess, client: Socket) -> None:
    prompts = {"a": "Once", "b": "The capital of", "c": "1, 2, 3", "d": "Hello"}
    for name, prompt in prompts.items():
        client.ask(id=name, prompt=prompt, params=SHORT)
    messages: list[dict[str, Any]] = []
    for _ in prompts:
        messages += client.until("complete")
    assert {message["request_id"] for message in messages} == set(prompts)
    for name, prompt in prompts.items():
        assert text_of(messages, name) == server.complete(prompt, **SHORT).json()["choices"][0]["text"]


@covers("websocket.id")
@pytest.mark.parametrize("request_id", ["mine", "x" * 128, "with a space", "ünïcode"])
def test_the_clients_id_is_the_requests(client: Socket, request_id: str) -> None:
    client.ask(id=request_id, params=SHORT)
    assert {message["request_id"] for message in client.until("complete")} == {request_id}


@covers("websocket.id")
@pytest.mark.parametrize("request_id", ["", "x" * 129, "a\nb", "a\x00b", 5], ids=repr)
def test_an_id_that_is_none(client: Socket, request_id: object) -> None:
    client.ask(id=request_id)
    message = client.receive()
    assert (message["type"], message["error"]["param"]) == ("error", "id")
    still_open(client)


@covers("websocket.id")
def test_an_id_in_use(client: Socket) -> None:
    client.ask(id="a", params=LONG)
    client.until("token")
    client.ask(id="a")
    assert client.until("error")[-1]["error"]["param"] == "id"
    client.send(type="cancel", request_id="a")
    assert client.until("complete")[-1]["request_id"] == "a"
    client.ask(id="a", params=SHORT)  # which is free again
    assert client.until("complete", "error")[-1]["type"] == "complete"


@covers("websocket.ping")
def test_ping(client: Socket) -> None:
    client.send(type="ping")
    assert client.receive()["type"] == "pong"


@covers("websocket.cancel")
def test_cancel(server: ServerProcess, client: Socket) -> None:
    client.ask(id="a", params=LONG)
    client.until("token")
    client.send(type="cancel", request_id="a")
    complete = client.until("complete")[-1]
    assert (complete["request_id"], complete["finish_reason"]) == ("a", "cancelled")
    assert 0 < complete["total_tokens"] < 900


@covers("websocket.cancel")
@pytest.mark.parametrize("request_id", ["never-was", "ended"])
def test_cancel_what_is_not_running(client: Socket, request_id: str) -> None:
    client.ask(id="ended", params={"max_tokens": 1})
    client.until("complete")
    client.send(type="cancel", request_id=request_id)
    message = client.receive()
    assert (message["type"], message["request_id"]) == ("error", request_id)
    still_open(client)


@covers("websocket.bad-message")
@pytest.mark.parametrize(
    "message",
    ["not json", "[]", "5", "{}", '{"type": "nonsense"}', '{"type": 5}', '{"type": "cancel"}', '{"type": "ack"}'],
)
def test_a_message_that_is_none_keeps_the_connection_open(client: Socket, message: str) -> None:
    client.connection.send(message)
    reply = client.receive()
    assert reply["type"] == "error"
    assert reply["error"]["type"] == "invalid_request_error"
    still_open(client)


@covers("websocket.error", "requests.known-fields")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "gpt-unknown"}, "model"),
        ({"model": None}, "model"),
        ({"prompt": None}, "prompt"),
        ({"params": {"temperature": 2.1}}, "temperature"),
        ({"params": {"max_tokens": 0}}, "max_tokens"),
        ({"priority": "urgent"}, "priority"),
        ({"flow_control": {"ack": "yes"}}, "flow_control"),
    ],
    ids=str,
)
def test_a_request_that_is_wrong(client: Socket, fields: dict[str, object], param: str) -> None:
    client.ask(id="a", **fields)
    message = client.receive()
    assert (message["type"], message["request_id"]) == ("error", "a")
    assert message["error"]["param"] == param
    still_open(client)


@covers("websocket.connection")
@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_does_not_upgrade(server: ServerProcess, path: str) -> None:
    response = server.client.get(path)
    assert response.status_code == 426
    assert response.headers["upgrade"] == "websocket"
    error_of(response)


def still_open(client: Socket) -> None:
    client.ask(id="after", params={"max_tokens": 1})
    assert client.until("complete", "error")[-1]["type"] == "complete"
