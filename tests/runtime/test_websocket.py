"""WebSockets with a real model: the messages, the pace of a slow client, clients that vanish and servers that end."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import websocket

from tests.runtime.process import MODEL, ServerProcess, eventually

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ENDLESS = {"max_tokens": 900, "ignore_eos": True, "temperature": 0}


class Client:
    """A connection that reads when it is told to, and whose socket takes little by itself."""

    def __init__(self, server: ServerProcess, path: str = "/ws/stream") -> None:
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}{path}",
            timeout=60,
            sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),),
        )

    def send(self, **message: object) -> None:
        self.socket.send(json.dumps(message))

    def ask(self, **fields: object) -> None:
        self.send(**{"type": "inference", "model": MODEL, "prompt": "Once", **fields})

    def receive(self) -> Any:
        return json.loads(self.socket.recv())

    def until(self, *kinds: str) -> list[Any]:
        """The messages up to the first of these types."""
        messages = [self.receive()]
        while messages[-1]["type"] not in kinds:
            messages.append(self.receive())
        return messages


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    made = Client(server)
    yield made
    made.socket.close()


def text_of(messages: list[Any], request_id: str) -> str:
    return "".join(m["token"] for m in messages if m["type"] == "token" and m["request_id"] == request_id)


@pytest.mark.parametrize("path", ["/ws/stream", "/v1/ws/stream"])
def test_a_chat_says_what_the_chat_endpoint_says(server: ServerProcess, path: str) -> None:
    client = Client(server, path)
    client.send(type="inference", model=MODEL, messages=QUESTION, params={"temperature": 0, "max_tokens": 20}, id="a")
    start, *tokens, complete = client.until("complete")
    client.socket.close()
    whole = server.chat(temperature=0, max_tokens=20).json()
    assert start == {"type": "start", "request_id": "a", "model": MODEL}
    assert text_of(tokens, "a") == whole["choices"][0]["message"]["content"] == tokens[-1]["accumulated"]
    assert complete["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert complete["total_tokens"] == whole["usage"]["completion_tokens"]


def test_several_requests_say_what_each_says_alone(server: ServerProcess, client: Client) -> None:
    prompts = {"a": "Once", "b": "The capital of", "c": "1 2 3", "d": "A"}
    for name, prompt in prompts.items():
        client.ask(id=name, prompt=prompt, params={"max_tokens": 60, "temperature": 0, "ignore_eos": True})
    messages = []
    for _ in prompts:
        messages += client.until("complete")
    for name, prompt in prompts.items():
        alone = server.complete(prompt, max_tokens=60, temperature=0, ignore_eos=True).json()
        assert text_of(messages, name) == alone["choices"][0]["text"]


def test_cancel_frees_the_slot(server: ServerProcess, client: Client) -> None:
    client.ask(id="a", params=ENDLESS)
    client.until("token")
    client.send(type="cancel", request_id="a")
    complete = client.until("complete")[-1]
    assert complete["finish_reason"] == "cancelled"
    assert 0 < complete["total_tokens"] < 900
    eventually(lambda: server.active() == 0, "the slot is free")


def test_acknowledgements_set_the_pace(server: ServerProcess, client: Client) -> None:
    client.ask(id="a", params=ENDLESS | {"max_tokens": 200}, flow_control={"ack": True, "window": 3})
    messages = [client.receive() for _ in range(4)]
    assert [message["type"] for message in messages] == ["start", "token", "token", "token"]
    client.send(type="ping")
    assert client.receive()["type"] == "pong"
    count = 3
    while messages[-1]["type"] != "complete":
        client.send(type="ack", request_id="a", received=count)
        messages += client.until("token", "complete")
        count += messages[-1]["type"] == "token"
    alone = server.complete("Once", **ENDLESS | {"max_tokens": 200}).json()
    assert text_of(messages, "a") == alone["choices"][0]["text"]


@pytest.mark.parametrize("phase", ["idle", "running", "paused"])
def test_a_client_that_vanishes(server: ServerProcess, phase: str) -> None:
    client = Client(server)
    if phase != "idle":
        client.ask(params=ENDLESS, flow_control={"ack": True, "window": 2} if phase == "paused" else {})
        client.until("token")
        if phase == "paused":
            eventually(lambda: server.metric("num_requests_paused") == 1, "the sequence is paused")
        eventually(lambda: server.active() == 1, "the request is active")
    connection = client.socket.sock
    assert connection is not None
    connection.close()  # without a word
    eventually(lambda: server.active() == 0, "its slot is free")
    assert server.complete("x", max_tokens=1).status_code == 200


def test_a_slow_reader_loses_nothing_and_holds_up_nobody() -> None:
    with ServerProcess("--stream-buffer-kb", "16", "--token-batch-size", "1") as server:
        alone = server.complete("Once", **ENDLESS).json()["choices"][0]["text"]
        client = Client(server)
        client.ask(id="a", params=ENDLESS)
        eventually(lambda: server.metric("num_requests_paused") == 1, "the sequence is paused")
        # Nothing is read, and others are served.
        for _ in range(3):
            assert server.complete("x", max_tokens=50).status_code == 200
        messages = client.until("complete")
        client.socket.close()
    assert text_of(messages, "a") == alone
    levels = [message["level"] for message in messages if message["type"] == "backpressure"]
    assert "critical" in levels
    assert messages[-1]["total_tokens"] == 900


def test_a_reader_that_stops_is_cancelled() -> None:
    with ServerProcess("--stream-buffer-kb", "16", "--token-batch-size", "1", "--ack-timeout-seconds", "1") as server:
        client = Client(server)
        client.ask(id="a", params=ENDLESS)
        eventually(lambda: server.active() == 1, "the request is active")
        eventually(lambda: server.active() == 0, "its slot is free")
        last = client.until("error", "complete")[-1]
        client.socket.close()
    assert (last["type"], last["error"]["type"], last["error"]["code"]) == ("error", "timeout_error", "client_stalled")


def test_a_paused_sequence_gives_its_slot_to_others() -> None:
    with ServerProcess("--slots", "1") as server:
        alone = server.complete("Once", **ENDLESS).json()["choices"][0]["text"]
        client = Client(server)
        client.ask(id="a", params=ENDLESS, flow_control={"ack": True, "window": 1})
        messages = client.until("token")
        eventually(lambda: server.metric("num_requests_paused") == 1, "the sequence is paused")
        assert server.complete("x", max_tokens=5).status_code == 200
        count = 1
        while messages[-1]["type"] != "complete":
            client.send(type="ack", request_id="a", received=count)
            messages += client.until("token", "complete")
            count += 1
        client.socket.close()
    assert text_of(messages, "a") == alone


def test_a_server_that_ends_says_goodbye() -> None:
    with ServerProcess() as server:
        idle, busy = Client(server), Client(server)
        busy.ask(id="a", params=ENDLESS)
        busy.until("token")
        server.signal(signal.SIGTERM)
        assert idle.socket.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
        messages = busy.until("complete")
        assert messages[-1]["finish_reason"] == "length"
        opcode, data = busy.socket.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert int.from_bytes(data[:2], "big") == 1001
        assert server.wait() == 0


def test_an_engine_that_is_killed_keeps_the_connection_open() -> None:
    with ServerProcess() as server:
        client = Client(server)
        client.ask(id="a", params=ENDLESS)
        client.until("token")
        os.kill(server.engine_pid(), signal.SIGKILL)
        error = client.until("error")[-1]
        assert (error["request_id"], error["error"]["code"]) == ("a", "engine_restarted")
        client.ask(id="a", params={"max_tokens": 5})
        assert client.until("complete", "error")[-1]["type"] == "complete"
        client.socket.close()
