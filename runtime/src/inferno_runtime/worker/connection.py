"""The engine's end of the socket to its server."""

import select
import socket

from inferno_runtime.worker.frames import FromEngine, Reader, ToEngine, encode, to_engine


class Connection:
    """The engine's end of the socket.

    Frames are written without waiting for the server: what the socket does not take stays here, and is bounded by what
    the sequences that the server asked for can generate.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._unsent = bytearray()
        self._reader: Reader[ToEngine] = Reader(to_engine)

    def send(self, frame: FromEngine) -> None:
        """Send a frame, or as much of it as the socket takes now."""
        self._unsent += encode(frame)
        self._flush()

    def receive(self, *, wait: bool) -> list[ToEngine]:
        """The frames that have come; with `wait`, not before there is one. Raises `EOFError` at the socket's end."""
        readable, writable, _ = select.select(
            [self._sock], [self._sock] if self._unsent else [], [], None if wait else 0
        )
        if writable:
            self._flush()
        if not readable:
            return []
        try:
            data = self._sock.recv(1 << 20)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        return list(self._reader.feed(data))

    def flush(self) -> None:
        """Send everything, however long the server takes."""
        self._sock.setblocking(True)
        self._sock.sendall(self._unsent)

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
