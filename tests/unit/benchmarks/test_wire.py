"""HTTP answers and events, however the bytes are cut."""

import pytest

from benchmarks.wire import AnswerParser, WireError, request

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
EVENTS = b'data: {"a": 1}\n\ndata: two\n\n: a comment\n\nevent: ping\n\ndata: [DONE]\n\n'
DATA = [b'{"a": 1}', b"two", b"[DONE]"]


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


ANSWERS = {
    "until the end of the connection": STREAM + b"\r\n" + EVENTS,
    "carriage returns": STREAM + b"\r\n" + EVENTS.replace(b"\n", b"\r\n"),
    "one chunk": STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(EVENTS, 1000),
    "chunks that cut events": STREAM + b"transfer-encoding: Chunked\r\n\r\n" + chunked(EVENTS, 7),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_events_do_not_depend_on_how_bytes_arrive(answer: bytes, size: int) -> None:
    parser = AnswerParser()
    for at in range(0, len(answer), size):
        parser.feed(answer[at : at + size], float(at))
    parser.end()
    assert parser.status == 200
    assert [data for _, data in parser.events] == DATA
    times = [time for time, _ in parser.events]
    assert times == sorted(times)


def test_an_event_has_the_time_of_its_last_byte() -> None:
    parser = AnswerParser()
    parser.feed(STREAM + b"\r\ndata: on", 1.0)
    parser.feed(b"e\n", 2.0)
    assert parser.events == []
    parser.feed(b"\ndata: two\n\n", 3.0)
    assert parser.events == [(3.0, b"one"), (3.0, b"two")]


def test_a_plain_answer_has_a_body() -> None:
    parser = AnswerParser()
    parser.feed(b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{", 0.0)
    assert not parser.complete
    parser.feed(b"}", 1.0)
    assert (parser.status, bytes(parser.body), parser.complete) == (503, b"{}", True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        STREAM + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(EVENTS, 7)[:-5],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
    ],
)
def test_an_answer_that_breaks_off_is_an_error(answer: bytes) -> None:
    parser = AnswerParser()
    parser.feed(answer, 0.0)
    with pytest.raises(WireError):
        parser.end()


def test_what_is_no_http_is_an_error() -> None:
    with pytest.raises(WireError):
        AnswerParser().feed(b"SSH-2.0-OpenSSH\r\n\r\n", 0.0)


def test_request() -> None:
    head, _, body = request("127.0.0.1", 80, "/v1", b"{}").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
    assert b"Content-Length: 2" in head
    assert body == b"{}"
