"""Time-outs and heartbeats: their defaults, and each of them on each transport with a shorter one."""

from collections.abc import Iterator

import httpx
import pytest
import websocket

from inferno_runtime.config import ServerConfig
from tests.conformance.conftest import Serve
from tests.conformance.covering import covers
from tests.conformance.trouble import ENDLESS, LONG_CONTEXT, standing_still
from tests.conformance.wire import STORY, Socket, checked, chunks_of, error_of, events_of
from tests.runtime.process import MODEL, ServerProcess, eventually

BODY = {"model": MODEL, "prompt": STORY, "stream": True, **ENDLESS}
STREAMS = ["/v1/completions", "/v1/stream/sse"]


def last_error(path: str, text: str) -> dict[str, object]:
    """The error object that ends a stream."""
    if path == "/v1/completions":
        last = chunks_of(text)[-1]
        assert set(last) == {"error"}
        return checked(last["error"])
    name, data = events_of(text)[-1]
    assert name == "error"
    return checked(data["error"])


@covers("timeouts.inference", "timeouts.token", "timeouts.ack", "timeouts.keep-alive")
def test_the_defaults() -> None:
    config = ServerConfig()
    assert config.inference_timeout_seconds == 5 * 60
    assert config.token_timeout_seconds == config.ack_timeout_seconds == config.keep_alive_seconds == 30


@pytest.fixture(scope="module")
def hasty(serve: Serve) -> Iterator[ServerProcess]:
    """A request may take two seconds, in which nobody makes 90,000 tokens."""
    with serve("--inference-timeout-seconds", "2", *LONG_CONTEXT) as server:
        yield server
        eventually(lambda: server.active() == 0, "all slots are free")


@covers("timeouts.inference", "errors.504", "errors.timeout_error")
def test_a_whole_answer_that_takes_too_long(hasty: ServerProcess) -> None:
    response = hasty.complete(STORY, **ENDLESS)
    assert response.status_code == 504
    assert error_of(response)["type"] == "timeout_error"


@covers("timeouts.inference", "streaming.error-event")
@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_that_takes_too_long(hasty: ServerProcess, path: str) -> None:
    response = hasty.client.post(path, json=BODY)
    assert response.status_code == 200
    assert last_error(path, response.text)["type"] == "timeout_error"


@covers("timeouts.inference", "streaming.error-event")
def test_a_websockets_request_that_takes_too_long(hasty: ServerProcess) -> None:
    with Socket(hasty) as client:
        client.ask(id="a", params=ENDLESS)
        error = client.until("error", "complete")[-1]
        assert (error["request_id"], error["error"]["type"]) == ("a", "timeout_error")
        client.ask(id="b", params={"max_tokens": 1})
        assert client.until("error", "complete")[-1]["type"] == "complete"


@pytest.fixture(scope="module")
def watchful(serve: Serve) -> Iterator[ServerProcess]:
    """Waits a second for a token, and lets none be silent for longer."""
    with serve("--token-timeout-seconds", "1", "--keep-alive-seconds", "1", *LONG_CONTEXT) as server:
        yield server


@covers("timeouts.token", "streaming.error-event", "errors.timeout_error")
@pytest.mark.parametrize("path", STREAMS)
def test_a_token_that_does_not_come(watchful: ServerProcess, path: str) -> None:
    with httpx.stream("POST", watchful.root + path, json=BODY, timeout=60, trust_env=False) as response:
        pieces = response.iter_text()
        text = next(pieces)
        with standing_still(watchful):
            text += "".join(pieces)
    assert last_error(path, text)["type"] == "timeout_error"
    eventually(lambda: watchful.active() == 0, "its slot is free")


@covers("timeouts.token", "streaming.error-event")
def test_a_token_that_does_not_come_on_a_websocket(watchful: ServerProcess) -> None:
    with Socket(watchful) as client:
        client.ask(id="a", params=ENDLESS)
        client.until("token")
        with standing_still(watchful):
            error = client.until("error", "complete")[-1]
        assert (error["request_id"], error["error"]["type"]) == ("a", "timeout_error")
    eventually(lambda: watchful.active() == 0, "its slot is free")


@covers("timeouts.keep-alive", "streaming.heartbeat")
@pytest.mark.parametrize("path", STREAMS)
def test_a_silent_stream_sends_comments(watchful: ServerProcess, path: str) -> None:
    body = BODY | {"max_tokens": 3}
    with standing_still(watchful):
        stream = httpx.stream("POST", watchful.root + path, json=body, timeout=60, trust_env=False)
        response = stream.__enter__()
        pieces = response.iter_text()
        comment = next(pieces)
    text = comment + "".join(pieces)
    stream.__exit__(None, None, None)
    assert comment.startswith(":")
    assert comment.endswith("\n\n")
    assert len(chunks_of(text)) + len(events_of(text)) > 1  # nothing of the stream is lost


@covers("timeouts.keep-alive", "streaming.heartbeat")
def test_a_silent_websocket_pings(watchful: ServerProcess) -> None:
    with Socket(watchful) as client:
        opcode, _ = client.connection.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_PING
        client.ask(params={"max_tokens": 1})
        assert client.until("complete", "error")[-1]["type"] == "complete"
