"""Back pressure and acknowledgements: nobody is sent more than he takes, and no token is lost."""

import asyncio
import socket
from statistics import mean
from typing import Any

import pytest

from inferno_runtime.config import ServerConfig
from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.wire import STORY, Socket, text_of
from tests.runtime.process import MODEL, ServerProcess, eventually
from tests.unit.server.conftest import Start
from tests.unit.server.fakes import FakeEngine
from tests.unit.server.test_websocket import Connect

LONG = {"max_tokens": 900, "temperature": 0, "ignore_eos": True}
SHORT = {"max_tokens": 60, "temperature": 0, "ignore_eos": True}
# Each token takes a kilobyte and more, so that no buffer of the kernel's holds the answer, in however few messages it comes.
LARGE: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me a story."}]}
LARGE["params"] = {**LONG, "logprobs": True, "top_logprobs": 20}
# A socket that takes little by itself.
SMALL: dict[str, Any] = {"sockopt": ((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),)}
LEVELS = {"healthy": (0.0, 0.7), "moderate": (0.7, 0.9), "critical": (0.9, 1000.0)}


def whole(server: ServerProcess, **fields: object) -> str:
    return str(server.complete(STORY, **fields).json()["choices"][0]["text"])


@covers("flow.levels", "flow.messages", "flow.paused", "flow.nothing-dropped", "matrix.extensions.flow-control")
def test_a_slow_reader(serve: Serve) -> None:
    with serve("--stream-buffer-kb", "16", "--token-batch-size", "1") as server:
        alone = server.chat(LARGE["messages"][0]["content"], **LONG).json()["choices"][0]["message"]["content"]
        with Socket(server, **SMALL) as client:
            client.send(type="inference", model=MODEL, id="a", **LARGE)
            # Nothing is read: the sequence is paused in the engine, and others go on.
            eventually(lambda: server.metric("num_requests_paused") == 1, "the sequence is paused")
            assert server.complete("x", max_tokens=20).status_code == 200
            messages = client.until("complete")
    told = [message for message in messages if message["type"] == "backpressure"]
    for message in told:
        assert set(message) == {"type", "request_id", "level", "buffer_usage"}
        assert message["request_id"] == "a"
        least, most = LEVELS[message["level"]]
        assert least <= message["buffer_usage"] <= most
    assert {"critical", "healthy"} <= {message["level"] for message in told}
    assert text_of(messages) == alone
    assert messages[-1]["total_tokens"] == 900


@covers("flow.larger-batches", "flow.levels")
@pytest.mark.asyncio
async def test_tokens_come_in_larger_batches_while_a_reader_is_slow(start: Start, connect: Connect) -> None:
    # In one process, where tokens are characters and never come together by chance.
    server = await start(FakeEngine(says="x" * 4000), token_batch_size=1)
    server.engine.context = 8000
    client = await connect(server)
    await client.ask(params={"max_tokens": 4000})
    while (1, True) not in server.engine.pauses:  # nothing is read meanwhile
        await asyncio.sleep(0.01)
    messages = await client.until("complete")
    sizes: dict[str, list[int]] = {level: [] for level in LEVELS}
    level = "healthy"
    for message in messages:
        level = message.get("level", level)
        sizes[level] += [len(message["token"])] if message["type"] == "token" else []
    assert sizes["moderate"]
    # A notice may come a message late, so each by itself may be of another size.
    assert mean(sizes["moderate"]) > 2 * mean(sizes["healthy"][:100])


@covers("flow.levels")
def test_a_reader_who_keeps_up_is_told_nothing(server: ServerProcess) -> None:
    with Socket(server) as client:
        client.ask(params=SHORT)
        assert {message["type"] for message in client.until("complete")} == {"start", "token", "complete"}


@covers("websocket.ack", "websocket.window")
@pytest.mark.parametrize("window", [1, 3])
def test_a_window_of_messages(server: ServerProcess, window: int) -> None:
    with Socket(server) as client:
        client.ask(id="a", params=SHORT, flow_control={"ack": True, "window": window})
        messages = [client.receive() for _ in range(window + 1)]
        assert [message["type"] for message in messages] == ["start", *["token"] * window]
        client.send(type="ping")
        assert client.receive()["type"] == "pong"  # and no further token before it
        received = window
        while messages[-1]["type"] != "complete":
            client.send(type="ack", request_id="a", received=received)
            messages += client.until("token", "complete")
            received += messages[-1]["type"] == "token"
    assert text_of(messages) == whole(server, **SHORT)


@covers("websocket.window")
def test_the_window_is_64_by_default(serve: Serve) -> None:
    with serve("--token-batch-size", "1") as server, Socket(server) as client:
        client.ask(id="a", params=LONG, flow_control={"ack": True})
        messages = [client.receive() for _ in range(65)]
        assert [message["type"] for message in messages] == ["start", *["token"] * 64]
        client.send(type="ping")
        assert client.receive()["type"] == "pong"
        client.send(type="cancel", request_id="a")
        assert client.until("complete")[-1]["finish_reason"] == "cancelled"


@covers("websocket.ack")
def test_more_than_was_sent_is_an_error_and_not_the_requests_end(server: ServerProcess) -> None:
    with Socket(server) as client:
        client.ask(id="a", params=SHORT, flow_control={"ack": True, "window": 1})
        assert [client.receive()["type"] for _ in range(2)] == ["start", "token"]
        client.send(type="ack", request_id="a", received=99)
        error = client.receive()
        assert (error["type"], error["request_id"]) == ("error", "a")
        client.send(type="ack", request_id="a", received=1)
        assert client.receive()["type"] == "token"
        client.send(type="cancel", request_id="a")
        client.until("complete")
        client.send(type="ack", request_id="a", received=2)  # of one that has ended: ignored
        client.send(type="ping")
        assert client.receive()["type"] == "pong"


@covers("flow.patience", "timeouts.ack")
def test_who_owes_an_acknowledgement_for_too_long_is_cancelled(serve: Serve) -> None:
    assert ServerConfig().ack_timeout_seconds == 30
    with serve("--ack-timeout-seconds", "1") as server, Socket(server) as client:
        client.ask(id="a", params=LONG, flow_control={"ack": True, "window": 1})
        error = client.until("error", "complete")[-1]
        assert (error["type"], error["request_id"], error["error"]["type"]) == ("error", "a", "timeout_error")
        eventually(lambda: server.active() == 0, "its slot is free")


@covers("flow.patience", "timeouts.ack")
def test_who_takes_nothing_for_too_long_is_cancelled(serve: Serve) -> None:
    flags = ("--stream-buffer-kb", "16", "--token-batch-size", "1", "--ack-timeout-seconds", "1")
    with serve(*flags) as server, Socket(server, **SMALL) as client:
        client.send(type="inference", model=MODEL, id="a", **LARGE)
        eventually(lambda: server.active() == 1, "the request is active")
        eventually(lambda: server.active() == 0, "its slot is free")
        error = client.until("error", "complete")[-1]
        assert (error["type"], error["request_id"], error["error"]["type"]) == ("error", "a", "timeout_error")
