"""Bytes over a socket, for what no HTTP or WebSocket client would send."""

import base64
import contextlib
import io
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any, cast

from tests.runtime.process import MODEL, ServerProcess

SECONDS = 60.0  # that an answer may take before a test fails
GOOD = json.dumps({"model": MODEL, "prompt": "x", "max_tokens": 1}).encode()
_KEY = base64.b64encode(bytes(16)).decode()
_HANDSHAKE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {_KEY}")

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA  # opcodes


# HTTP


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, complete."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object, which must have its four fields."""
        (error,) = json.loads(self.body).values()
        return checked(error)


def checked(error: Any) -> dict[str, Any]:
    """An error object, if it has its four fields."""
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return dict(error)


def head(*lines: str, method: str = "POST", path: str = "/v1/completions", version: str = "HTTP/1.1") -> bytes:
    """A request's head, with a Host; each character is a byte."""
    return "\r\n".join((f"{method} {path} {version}", "Host: x", *lines, "", "")).encode("latin-1")


def request(body: bytes, *lines: str, method: str = "POST", path: str = "/v1/completions") -> bytes:
    """A request that is its connection's last."""
    return head(f"Content-Length: {len(body)}", "Connection: close", *lines, method=method, path=path) + body


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    """A request without a body that is its connection's last."""
    return head("Connection: close", *lines, method=method, path=path)


def connect(server: ServerProcess) -> socket.socket:
    """A connection on which everything is waited for, but not for ever."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)


def read(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection, however it ends."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            data += piece
    return data


def exchange(server: ServerProcess, data: bytes) -> bytes:
    """Send bytes; everything that comes back until the server closes."""
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):  # it may have read enough
            connection.sendall(data)
        return read(connection)


class _Recording(io.BytesIO):
    """What was read, in the place of the socket that it was read from."""

    def makefile(self, *_: object) -> "_Recording":
        return self

    def close(self) -> None:
        """Kept open: another response may follow."""


def answers(data: bytes, method: str = "GET") -> list[Answer]:
    """The responses in what was read, which must consist of nothing else. method: of the requests."""
    data = data.replace(b"HTTP/1.1 100 (Continue)\r\n\r\n", b"")  # a promise, which need not be kept
    recording = _Recording(data)
    found = []
    while recording.tell() < len(data):
        response = HTTPResponse(cast(socket.socket, recording), method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        found.append(Answer(response.status, headers, response.read()))
    return found


def ask(server: ServerProcess, data: bytes) -> Answer:
    """The only response to some bytes."""
    (answer,) = answers(exchange(server, data))
    return answer


@contextlib.contextmanager
def unharmed(server: ServerProcess) -> Iterator[None]:
    """Whatever happens meanwhile, a new connection is served afterwards, and the log tells of no fault of the server's own."""
    before = len(server.log)
    yield
    assert ask(server, request(GOOD)).status == 200
    assert not [line for line in server.log[before:].splitlines() if "Traceback" in line]


# WebSocket (RFC 6455, section 5.2)


def upgrade(*lines: str, path: str = "/ws/stream", version: str = "HTTP/1.1", without: str = "none") -> bytes:
    """A handshake. without: the header that is left out."""
    kept = [line for line in _HANDSHAKE if not line.startswith(without)]
    return head(*kept, *lines, method="GET", path=path, version=version)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    size: int | None = None,
) -> bytes:
    """A frame. reserved: the three bits; size: the payload's, if it says another than it has."""
    size = len(payload) if size is None else size
    if size < 126:
        length, extended = size, b""
    elif size < 1 << 16:
        length, extended = 126, struct.pack("!H", size)
    else:
        length, extended = 127, struct.pack("!Q", size)
    start = bytes([fin << 7 | reserved << 4 | opcode, masked << 7 | length]) + extended
    return start + (bytes(4) if masked else b"") + payload  # a mask of zeros changes nothing


def message(**fields: object) -> bytes:
    """A message in a frame."""
    return frame(TEXT, json.dumps(fields).encode())


class WebSocket:
    """A connection past its handshake, which sends whatever it is told to."""

    def __init__(self, server: ServerProcess) -> None:
        self.socket = connect(server)
        self.send(upgrade())
        self._file = self.socket.makefile("rb")
        assert self._file.readline().startswith(b"HTTP/1.1 101 ")
        while self._file.readline() != b"\r\n":
            pass

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload; of the server's, which are short or of 16 bits, and never masked."""
        start = self._file.read(2)
        size = start[1] if start[1] < 126 else int.from_bytes(self._file.read(2), "big")
        return start[0] & 0x0F, self._file.read(size)

    def message(self) -> Any:
        """The next message."""
        opcode, payload = self.receive()
        assert opcode == TEXT
        return json.loads(payload)

    def close_code(self) -> int | None:
        """The code with which the server closes, None if it gives none; nothing may come after."""
        opcode, payload = self.receive()
        assert opcode == CLOSE
        assert self._file.read() == b""
        return int.from_bytes(payload[:2], "big") if payload else None

    def close(self) -> None:
        self._file.close()
        self.socket.close()
