"""The events of a stream, and the index of each."""

from inferno_runtime.engine.request import FinishReason
from inferno_runtime.openai.events import StreamEvents, has_ended


def test_the_index_is_the_position_of_the_events_first_token() -> None:
    events = StreamEvents("req_1")
    assert events.text("Hel", 1) == b'id: req_1\nevent: token\ndata: {"token":"Hel","index":0}\n\n'
    assert events.text("lo", 3) == b'event: token\ndata: {"token":"lo","index":1}\n\n'
    assert events.text("", 1) == b""  # half a code point
    assert events.text("\n\n", 1) == b'event: token\ndata: {"token":"\\n\\n","index":4}\n\n'
    assert events.text("!", 1) == b'event: token\ndata: {"token":"!","index":6}\n\n'


def test_the_end_is_told_from_a_cut() -> None:
    last = StreamEvents("req_1").complete(FinishReason.LENGTH, {"completion_tokens": 7, "total_tokens": 9})
    assert last == (
        b"id: req_1:complete\nevent: complete\n"
        b'data: {"total_tokens":7,"finish_reason":"length","usage":{"completion_tokens":7,"total_tokens":9}}\n\n'
    )
    assert has_ended("req_1:complete")
    assert not has_ended("req_1")
