"""The events of a stream, and the index of each."""

from inferno_runtime.chat.events import CallBegin, CallDelta, CallEnd, ReasoningDelta, TextDelta
from inferno_runtime.openai.events import StreamEvents, has_ended


def test_the_index_is_the_position_of_the_events_first_token() -> None:
    events = StreamEvents("req_1")
    assert events.said([TextDelta("Hel")], 1) == b'id: req_1\nevent: token\ndata: {"token":"Hel","index":0}\n\n'
    assert events.said([TextDelta("lo")], 3) == b'event: token\ndata: {"token":"lo","index":1}\n\n'
    assert events.said([], 1) == b""  # half a code point
    assert events.said([TextDelta("\n\n")], 1) == b'event: token\ndata: {"token":"\\n\\n","index":4}\n\n'
    assert events.said([TextDelta("!")], 1) == b'event: token\ndata: {"token":"!","index":6}\n\n'


def test_the_end_is_told_from_a_cut() -> None:
    last = StreamEvents("req_1").complete("length", {"completion_tokens": 7, "total_tokens": 9})
    assert last == (
        b"id: req_1:complete\nevent: complete\n"
        b'data: {"total_tokens":7,"finish_reason":"length","usage":{"completion_tokens":7,"total_tokens":9}}\n\n'
    )
    assert has_ended("req_1:complete")
    assert not has_ended("req_1")


def test_reasoning_and_calls() -> None:
    events = StreamEvents("req_1")
    assert (
        events.said([ReasoningDelta("Hm.")], 2) == b'id: req_1\nevent: reasoning\ndata: {"token":"Hm.","index":0}\n\n'
    )
    assert events.said([CallBegin(0, "call_1", "now"), CallDelta(0, "{}"), CallEnd(0)], 9) == (
        b'event: tool_call\ndata: {"call":0,"id":"call_1","name":"now","arguments":""}\n\n'
        b'event: tool_call\ndata: {"call":0,"arguments":"{}"}\n\n'
    )
    assert events.said([TextDelta("So.")], 1) == b'event: token\ndata: {"token":"So.","index":11}\n\n'
