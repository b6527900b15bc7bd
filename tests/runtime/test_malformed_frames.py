"""WebSocket handshakes, frames and messages that are wrong: each gets an answer, a close code or an error."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.process import MODEL, ServerProcess
from tests.runtime.raw import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    WebSocket,
    answers,
    ask,
    checked,
    exchange,
    frame,
    get,
    message,
    request,
    unharmed,
    upgrade,
)

MOST = 1024 * 1024  # bytes of a message, by default
CONTINUED = 0x0
ASK = {"type": "inference", "model": MODEL, "prompt": "x", "params": {"max_tokens": 1}}


@pytest.fixture(autouse=True)
def _unharmed(server: ServerProcess) -> Iterator[None]:
    with unharmed(server):
        yield


@pytest.fixture
def client(server: ServerProcess) -> Iterator[WebSocket]:
    made = WebSocket(server)
    yield made
    made.close()


def assert_open(client: WebSocket) -> None:
    """The connection serves on."""
    client.send(message(type="ping"))
    assert client.message()["type"] == "pong"


# Handshakes


def keyed(key: bytes) -> bytes:
    return upgrade(f"Sec-WebSocket-Key: {base64.b64encode(key).decode()}", without="Sec-WebSocket-Key")


NO_HANDSHAKES = {
    "no upgrade": (upgrade(without="Upgrade"), 426, "upgrade_required"),
    "no connection": (upgrade(without="Connection"), 426, "upgrade_required"),
    "an upgrade to something else": (upgrade("Upgrade: h2c", without="Upgrade"), 426, "upgrade_required"),
    "no version": (upgrade(without="Sec-WebSocket-Version"), 426, "upgrade_required"),
    "an old version": (
        upgrade("Sec-WebSocket-Version: 8", without="Sec-WebSocket-Version"),
        426,
        "upgrade_required",
    ),
    "two versions": (upgrade("Sec-WebSocket-Version: 8"), 426, "upgrade_required"),
    "HTTP/1.0": (upgrade(version="HTTP/1.0"), 426, "upgrade_required"),
    "no key": (upgrade(without="Sec-WebSocket-Key"), 400, "invalid_value"),
    "an empty key": (keyed(b""), 400, "invalid_value"),
    "a short key": (keyed(bytes(15)), 400, "invalid_value"),
    "a long key": (keyed(bytes(17)), 400, "invalid_value"),
    "two keys": (upgrade(f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}"), 400, "invalid_value"),
    "a key that is not base64": (
        upgrade("Sec-WebSocket-Key: ????????????????????????", without="Sec-WebSocket-Key"),
        400,
        "invalid_value",
    ),
    "a page of another origin": (upgrade("Origin: https://evil.example"), 403, "origin_not_allowed"),
    "an origin that is none": (upgrade("Origin: http://[x"), 403, "origin_not_allowed"),
    "a path that is not there": (upgrade(path="/ws"), 404, "not_found"),
}


@pytest.mark.parametrize(("data", "status", "code"), NO_HANDSHAKES.values(), ids=NO_HANDSHAKES)
def test_what_is_no_handshake(server: ServerProcess, data: bytes, status: int, code: str) -> None:
    answer, *after = answers(exchange(server, data + get("/health")))
    assert (answer.status, answer.error["code"]) == (status, code)
    assert [more.status for more in after] == ([] if b"HTTP/1.0" in data else [200])


def test_other_methods(server: ServerProcess) -> None:
    answer = ask(server, request(b"{}", path="/ws/stream"))
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")


EXTENSIONS = {
    "compression": "permessage-deflate; client_max_window_bits",
    "compression that is malformed": "permessage-deflate; server_max_window_bits=99; x=y",
    "words": ';;;="',
    "a parameter in a thousand parts": "x; a*" + "9" * 5000 + "=b",
}


@pytest.mark.parametrize("extension", EXTENSIONS.values(), ids=EXTENSIONS)
def test_extensions_are_not_taken(server: ServerProcess, extension: str) -> None:
    hello = upgrade(f"Sec-WebSocket-Extensions: {extension}", "Sec-WebSocket-Protocol: x, y")
    answer = exchange(server, hello + frame(CLOSE))
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-extensions" not in answer.lower()
    assert b"sec-websocket-protocol" not in answer.lower()


# Frames

NORMAL = (1000).to_bytes(2, "big")
HALF = frame(TEXT, b'{"type":', fin=False)
BROKEN = {
    "a frame that is not masked": (frame(TEXT, b"{}", masked=False), 1002),
    "a ping that is not masked": (frame(PING, masked=False), 1002),
    "a close that is not masked": (frame(CLOSE, NORMAL, masked=False), 1002),
    "the first reserved bit": (frame(TEXT, b"{}", reserved=4), 1002),
    "the second reserved bit": (frame(TEXT, b"{}", reserved=2), 1002),
    "the third reserved bit": (frame(TEXT, b"{}", reserved=1), 1002),
    **{f"opcode {opcode}": (frame(opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping in fragments": (frame(PING, fin=False), 1002),
    "a pong in fragments": (frame(PONG, fin=False), 1002),
    "a close in fragments": (frame(CLOSE, fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "a close of 126 bytes": (frame(CLOSE, NORMAL + b"x" * 124), 1002),
    "the rest of nothing": (frame(CONTINUED, b"{}"), 1002),
    "a message within a message": (HALF + frame(TEXT, b"{}"), 1002),
    "text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text with half a character": (frame(TEXT, b"\xe2\x82"), 1007),
    "text with a surrogate": (frame(TEXT, b'"\xed\xa0\x80"'), 1007),
    "fragments that are not UTF-8": (HALF + frame(CONTINUED, b'"\xff"}'), 1007),
    "a message that is too large": (frame(TEXT, size=MOST + 1), 1009),
    "a message of 2⁶² bytes": (frame(TEXT, size=1 << 62), 1009),
    "a message of 2⁶³ bytes": (frame(TEXT, size=1 << 63), 1009),
    "fragments that are too large": (HALF + frame(CONTINUED, size=MOST), 1009),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close whose reason is not UTF-8": (frame(CLOSE, NORMAL + b"\xff"), 1002),
    **{
        f"a close with code {code}": (frame(CLOSE, code.to_bytes(2, "big")), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN)
def test_a_broken_protocol_is_the_connections_end(client: WebSocket, data: bytes, code: int) -> None:
    client.send(data)
    assert client.close_code() == code


@pytest.mark.parametrize("code", [None, 1000, 1001, 1014, 3000, 4999])
def test_a_goodbye_is_answered(client: WebSocket, code: int | None) -> None:
    client.send(frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + "à bientôt".encode()))
    assert client.close_code() == code


def test_a_message_in_a_thousand_fragments_with_pings_between(client: WebSocket) -> None:
    data = json.dumps({"type": "ping", "padding": "x" * 1000}).encode()
    client.send(frame(TEXT, fin=False))
    for byte in data:
        client.send(frame(CONTINUED, bytes([byte]), fin=False))
    client.send(frame(PING, b"still there?"))
    assert client.receive() == (PONG, b"still there?")
    client.send(frame(CONTINUED))
    assert client.message()["type"] == "pong"


def test_binary_messages_are_read_like_text(client: WebSocket) -> None:
    client.send(frame(BINARY, b'{"type":"ping"}'))
    assert client.message()["type"] == "pong"
    client.send(frame(BINARY, b"\xff"))
    assert checked(client.message()["error"])["code"] == "invalid_json"
    assert_open(client)


# Messages, and the code and the field of the error

NOT_MESSAGES = {
    "nothing": "",
    "a space": " ",
    "half an object": '{"type"',
    "an array": "[]",
    "a string": '"ping"',
    "null": "null",
    "a NUL": "\0",
    "a byte order mark": '\ufeff{"type":"ping"}',
    "NaN": '{"type":"ping","x":NaN}',
    "a lone surrogate": '{"type":"ping","x":"\\ud800"}',
    "two objects": '{"type":"ping"}{"type":"ping"}',
    "levels": "[" * 100_000,
    "levels in an object": '{"type":"inference","params":' * 20_000,
}


@pytest.mark.parametrize("text", NOT_MESSAGES.values(), ids=NOT_MESSAGES)
def test_what_is_no_message(client: WebSocket, text: str) -> None:
    client.send(frame(TEXT, text.encode()))
    answer = client.message()
    assert (answer["type"], answer["request_id"]) == ("error", None)
    assert checked(answer["error"])["code"] == "invalid_json"
    assert_open(client)


WRONG_MESSAGES: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no type": ({}, "type", "missing_required_parameter"),
    "a type of null": ({"type": None}, "type", "missing_required_parameter"),
    "an unknown type": ({"type": "what"}, "type", "unknown_type"),
    "a type that is a number": ({"type": 1}, "type", "unknown_type"),
    "a type that is an object": ({"type": {}}, "type", "unknown_type"),
    "the end of nothing": ({"type": "cancel"}, "request_id", "missing_required_parameter"),
    "the end of a number": ({"type": "cancel", "request_id": 1}, "request_id", "invalid_value"),
    "the end of what does not run": ({"type": "cancel", "request_id": "a"}, "request_id", "request_not_found"),
    "an acknowledgement of nothing": ({"type": "ack", "received": 1}, "request_id", "missing_required_parameter"),
    "no number": ({"type": "ack", "request_id": "a"}, "received", "missing_required_parameter"),
    "a negative number": ({"type": "ack", "request_id": "a", "received": -1}, "received", "invalid_value"),
    "a number in words": ({"type": "ack", "request_id": "a", "received": "x"}, "received", "invalid_value"),
    "half a message": ({"type": "ack", "request_id": "a", "received": 0.5}, "received", "invalid_value"),
    "no model": (ASK | {"model": None}, "model", "missing_required_parameter"),
    "an unknown model": (ASK | {"model": "other"}, "model", "model_not_found"),
    "no prompt": (ASK | {"prompt": None}, "prompt", "missing_required_parameter"),
    "both": (ASK | {"messages": [{"role": "user", "content": "Hi"}]}, "prompt", "invalid_value"),
    "messages that are none": (ASK | {"prompt": None, "messages": []}, "messages", "invalid_value"),
    "a prompt that is a number": (ASK | {"prompt": 1}, "prompt", "invalid_value"),
    "two prompts": (ASK | {"prompt": ["a", "b"]}, "prompt", "invalid_value"),
    "a long prompt": (ASK | {"prompt": "word " * 5000}, "prompt", "context_length_exceeded"),
    "params that are a list": (ASK | {"params": []}, "params", "invalid_value"),
    "a temperature out of range": (ASK | {"params": {"temperature": 9}}, "temperature", "invalid_value"),
    "a flag that is a number": (ASK | {"params": {"accumulated": 1}}, "accumulated", "invalid_value"),
    "an empty stop": (ASK | {"params": {"stop": ""}}, "stop", "invalid_value"),
    "two answers": (ASK | {"params": {"n": 2}}, "n", "invalid_value"),
    "an unknown priority": (ASK | {"priority": "urgent"}, "priority", "invalid_value"),
    "an id that is a number": (ASK | {"id": 1}, "id", "invalid_value"),
    "an empty id": (ASK | {"id": ""}, "id", "invalid_value"),
    "a long id": (ASK | {"id": "x" * 129}, "id", "invalid_value"),
    "an id of two lines": (ASK | {"id": "a\nb"}, "id", "invalid_value"),
    "flow control in words": (ASK | {"flow_control": "x"}, "flow_control", "invalid_value"),
    "a window of nothing": (ASK | {"flow_control": {"ack": True, "window": 0}}, "flow_control", "invalid_value"),
    "a window beyond any": (ASK | {"flow_control": {"ack": True, "window": 10**9}}, "flow_control", "invalid_value"),
}


@pytest.mark.parametrize(("fields", "param", "code"), WRONG_MESSAGES.values(), ids=WRONG_MESSAGES)
def test_a_message_that_is_wrong(client: WebSocket, fields: dict[str, Any], param: str | None, code: str) -> None:
    client.send(message(**fields))
    answer = client.message()
    assert answer["type"] == "error", answer
    error = checked(answer["error"])
    assert (error["param"], error["code"]) == (param, code), error
    assert_open(client)


def test_an_acknowledgement_that_comes_too_late_is_ignored(client: WebSocket) -> None:
    client.send(message(type="ack", request_id="over", received=10**9))
    assert_open(client)


def test_what_is_sent_before_the_handshake_is_answered(server: ServerProcess) -> None:
    """A client that does not wait: its frames lie behind the handshake."""
    answer = exchange(server, upgrade() + message(type="ping") + frame(CLOSE, NORMAL))
    assert answer.endswith(b'{"type":"pong","request_id":null}\x88\x02' + NORMAL)
