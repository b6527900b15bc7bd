"""HTTP/1.1 answers and server-sent events, as bytes come in: no input or output of its own.

It is as small as what the servers under test answer with. A benchmark's client must cost little beside the servers that
it shares the machine with, so events are kept as bytes and decoded when the answer is complete.
"""

from dataclasses import dataclass, field


class WireError(Exception):
    """The answer is not HTTP as this module knows it."""


@dataclass(slots=True)
class AnswerParser:
    """Feed it what arrives; `events` are the data of each event and the time at which it was complete.

    `status` is 0 until the head is there. For an answer that is no event stream, `body` holds it.
    """

    status: int = 0
    events: list[tuple[float, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False
    _stream: bool = False
    _chunked: bool = False
    _length: int | None = None
    _raw: bytearray = field(default_factory=bytearray)  # not yet taken apart
    _event: bytearray = field(default_factory=bytearray)  # the beginning of the next event
    _in_chunk: int = 0

    def feed(self, data: bytes, now: float) -> None:
        """Take what arrived at `now`. Raises `WireError`."""
        self._raw += data
        if not self.status and not self._take_head():
            return
        if self._chunked:
            self._take_chunks(now)
        else:
            self._take_body(bytes(self._raw), now)
            self._raw.clear()
            if self._length is not None and len(self.body) >= self._length:
                self.complete = True

    def end(self) -> None:
        """The connection has ended. Raises `WireError` where something is missing."""
        if not self.status or (self._chunked and not self.complete):
            raise WireError("the connection ended in the middle of an answer")
        if self._length is not None and len(self.body) < self._length and not self._stream:
            raise WireError("the connection ended in the middle of an answer")
        self.complete = True

    def _take_head(self) -> bool:
        head, separator, rest = bytes(self._raw).partition(b"\r\n\r\n")
        if not separator:
            return False
        lines = head.split(b"\r\n")
        words = lines[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise WireError(f"not an HTTP answer: {lines[0][:80]!r}")
        self.status = int(words[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self._header(name.strip().lower(), value.strip().lower())
        self._raw = bytearray(rest)
        return True

    def _header(self, name: bytes, value: bytes) -> None:
        if name == b"transfer-encoding":
            self._chunked = value == b"chunked"
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"content-type":
            self._stream = value.startswith(b"text/event-stream")

    def _take_chunks(self, now: float) -> None:
        raw = bytes(self._raw)
        at = 0
        while not self.complete and at < len(raw):
            if not self._in_chunk:
                end = raw.find(b"\r\n", at)
                if end < 0:
                    break
                line = raw[at:end].partition(b";")[0].strip()
                at = end + 2
                if line:  # an empty line ends the chunk before
                    self._in_chunk = int(line, 16)
                    self.complete = self._in_chunk == 0
            else:
                piece = raw[at : at + self._in_chunk]
                at += len(piece)
                self._in_chunk -= len(piece)
                self._take_body(piece, now)
        del self._raw[:at]

    def _take_body(self, piece: bytes, now: float) -> None:
        if not self._stream:
            self.body += piece
            return
        self._event += piece.replace(b"\r", b"")  # lines may end with either; JSON never holds a bare one
        while (end := self._event.find(b"\n\n")) >= 0:
            data = [line[5:].lstrip() for line in bytes(self._event[:end]).split(b"\n") if line.startswith(b"data:")]
            del self._event[: end + 2]
            if data:
                self.events.append((now, b"\n".join(data)))


def request(host: str, port: int, path: str, body: bytes) -> bytes:
    """A POST that asks the server to close the connection after its answer."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
