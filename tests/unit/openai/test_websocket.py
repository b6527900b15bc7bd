"""What a client may say on a WebSocket, and everything that it may not."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.engine.request import FinishReason
from inferno_runtime.openai import websocket
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest
from inferno_runtime.openai.websocket import Ack, BadMessage, Cancel, Inference, Ping, parse

ASK: dict[str, Any] = {"type": "inference", "model": "m", "prompt": "Hi"}


def said(**fields: object) -> str:
    return msgspec.json.encode(fields).decode()


def asked(**fields: object) -> Inference:
    message = parse(said(**ASK | fields))
    assert isinstance(message, Inference)
    return message


def test_a_request() -> None:
    message = asked(params={"max_tokens": 5, "temperature": 0, "stop": ["x"]}, id="mine", unknown=1)
    assert (message.id, message.window, message.accumulated) == ("mine", None, True)
    request = message.request()
    assert isinstance(request, CompletionRequest)
    assert (request.prompt, request.max_tokens, request.temperature, request.stop) == ("Hi", 5, 0, ["x"])
    assert request.stream


def test_a_chat() -> None:
    message = parse(said(type="inference", model="m", messages=[{"role": "user", "content": "Hi"}]))
    assert isinstance(message, Inference)
    assert isinstance(message.request(), ChatRequest)


@pytest.mark.parametrize(
    ("flow", "window"),
    [
        (None, None),
        ({}, None),
        ({"ack": False, "window": 5}, None),
        ({"ack": True}, 64),
        ({"ack": True, "window": None}, 64),
        ({"ack": True, "window": 1}, 1),
    ],
)
def test_the_window(flow: object, window: int | None) -> None:
    assert asked(flow_control=flow).window == window


@pytest.mark.parametrize(
    ("params", "wanted"), [(None, True), ({"accumulated": False}, False), ({"accumulated": None}, True)]
)
def test_the_accumulated_text_can_be_left_out(params: object, wanted: bool) -> None:
    message = asked(params=params)
    assert message.accumulated is wanted
    message.request()


def test_what_stands_outside_is_not_taken_from_params() -> None:
    request = asked(params={"model": "other", "prompt": "no", "messages": []}).request()
    assert isinstance(request, CompletionRequest)
    assert (request.model, request.prompt) == ("m", "Hi")


def test_the_other_messages() -> None:
    assert parse(said(type="cancel", request_id="a")) == Cancel("a")
    assert parse(said(type="ack", request_id="a", received=3)) == Ack("a", 3)
    assert parse(said(type="ping")) == Ping()
    assert parse(b'{"type":"ping","more":[1]}') == Ping()


# What is sent, the param and the code of the error, and the request that it is about.
MALFORMED: list[tuple[str | bytes, str | None, str, str | None]] = [
    ("", None, "invalid_json", None),
    (" ", None, "invalid_json", None),
    ("{", None, "invalid_json", None),
    ("ping", None, "invalid_json", None),
    ("null", None, "invalid_json", None),
    ("5", None, "invalid_json", None),
    ('"ping"', None, "invalid_json", None),
    ("[]", None, "invalid_json", None),
    ('[{"type":"ping"}]', None, "invalid_json", None),
    ('{"type":"ping"} {}', None, "invalid_json", None),
    ('{"type":"ping",}', None, "invalid_json", None),
    ("{'type':'ping'}", None, "invalid_json", None),
    ('{"type":"\\ud800"}', None, "invalid_json", None),
    ('{"type":NaN}', None, "invalid_json", None),
    (b"\xff\xfe", None, "invalid_json", None),
    (b'{"type":"\xff"}', None, "invalid_json", None),
    ("[" * 100_000, None, "invalid_json", None),
    ('{"a":' * 100_000, None, "invalid_json", None),
    ("{}", "type", "missing_required_parameter", None),
    ('{"type":null}', "type", "missing_required_parameter", None),
    ('{"type":""}', "type", "unknown_type", None),
    ('{"type":5}', "type", "unknown_type", None),
    ('{"type":["ping"]}', "type", "unknown_type", None),
    ('{"type":"PING"}', "type", "unknown_type", None),
    ('{"type":"token","request_id":"a"}', "type", "unknown_type", "a"),
    ('{"type":"cancel"}', "request_id", "missing_required_parameter", None),
    ('{"type":"cancel","request_id":null}', "request_id", "invalid_value", None),
    ('{"type":"cancel","request_id":5}', "request_id", "invalid_value", None),
    ('{"type":"ack","request_id":"a"}', "received", "missing_required_parameter", "a"),
    ('{"type":"ack","received":1}', "request_id", "missing_required_parameter", None),
    ('{"type":"ack","request_id":"a","received":-1}', "received", "invalid_value", "a"),
    ('{"type":"ack","request_id":"a","received":1.5}', "received", "invalid_value", "a"),
    ('{"type":"ack","request_id":"a","received":"1"}', "received", "invalid_value", "a"),
    ('{"type":"ack","request_id":"a","received":true}', "received", "invalid_value", "a"),
    (said(**ASK | {"id": ""}), "id", "invalid_value", None),
    (said(**ASK | {"id": 5}), "id", "invalid_value", None),
    (said(**ASK | {"id": "a\nb"}), "id", "invalid_value", None),
    (said(**ASK | {"id": "\x7f"}), "id", "invalid_value", None),
    (said(**ASK | {"id": "a" * 129}), "id", "invalid_value", None),
    (said(**ASK | {"id": "a", "params": []}), "params", "invalid_value", "a"),
    (said(**ASK | {"id": "a", "params": "x"}), "params", "invalid_value", "a"),
    (said(**ASK | {"params": {"accumulated": "no"}}), "accumulated", "invalid_value", None),
    (said(**ASK | {"flow_control": True}), "flow_control", "invalid_value", None),
    (said(**ASK | {"flow_control": {"ack": 1}}), "flow_control", "invalid_value", None),
    (said(**ASK | {"flow_control": {"ack": True, "window": 0}}), "flow_control", "invalid_value", None),
    (said(**ASK | {"flow_control": {"ack": True, "window": -5}}), "flow_control", "invalid_value", None),
    (said(**ASK | {"flow_control": {"ack": True, "window": "all"}}), "flow_control", "invalid_value", None),
]


@pytest.mark.parametrize(("message", "param", "code", "request_id"), MALFORMED)
def test_a_malformed_message(message: str | bytes, param: str | None, code: str, request_id: str | None) -> None:
    with pytest.raises(BadMessage) as caught:
        parse(message)
    error = caught.value.error
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert (error.param, error.code, caught.value.request_id) == (param, code, request_id)


# Messages that are well formed and whose request is not, and the param of the error.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"prompt": None}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["a", "b"]}, "prompt"),
    ({"messages": [{"role": "user", "content": "Hi"}]}, "prompt"),
    ({"prompt": None, "messages": "Hi"}, "messages"),
    ({"prompt": None, "messages": [{"content": "Hi"}]}, "messages"),
    ({"params": {"temperature": "0.5"}}, "temperature"),
    ({"params": {"max_tokens": 0}}, "max_tokens"),
    ({"params": {"n": 2}}, "n"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_a_wrong_request(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        asked(**fields).request()
    assert (caught.value.status, caught.value.param) == (400, param)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("id", "request_id", "received", "model", "prompt", "messages", "params", "flow_control", "priority")


@given(
    kind=st.sampled_from(["inference", "cancel", "ack", "ping"]),
    fields=st.dictionaries(st.sampled_from(FIELDS), JSON),
)
def test_no_message_is_anything_but_understood_or_refused(kind: str, fields: dict[str, Any]) -> None:
    try:
        message = parse(said(type=kind, **fields))
    except BadMessage:
        return
    if isinstance(message, Inference):
        with contextlib.suppress(ApiError):
            message.request()


def test_the_servers_messages() -> None:
    def decoded(message: websocket.ServerMessage) -> Any:
        return msgspec.json.decode(websocket.encode(message))

    assert decoded(websocket.Start("a", "m")) == {"type": "start", "request_id": "a", "model": "m"}
    assert decoded(websocket.Token("a", "x")) == {"type": "token", "request_id": "a", "token": "x"}
    assert decoded(websocket.Token("a", "x", "wx")) == {
        "type": "token",
        "request_id": "a",
        "token": "x",
        "accumulated": "wx",
    }
    assert decoded(websocket.Complete("a", 3, FinishReason.CANCELLED, {"total_tokens": 9})) == {
        "type": "complete",
        "request_id": "a",
        "total_tokens": 3,
        "finish_reason": "cancelled",
        "usage": {"total_tokens": 9},
    }
    assert decoded(websocket.Backpressure("a", "moderate", 0.75)) == {
        "type": "backpressure",
        "request_id": "a",
        "level": "moderate",
        "buffer_usage": 0.75,
    }
    error = ApiError(400, "Oh.", param="id")
    assert decoded(websocket.Error(None, error.fields)) == {
        "type": "error",
        "request_id": None,
        "error": {"message": "Oh.", "type": "invalid_request_error", "param": "id", "code": None},
    }
    assert decoded(websocket.Pong()) == {"type": "pong", "request_id": None}
