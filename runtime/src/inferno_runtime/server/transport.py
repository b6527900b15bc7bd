"""The server's connections: how many there may be, how long the head of a request may take, and an answer in words where
tornado has none: to what is not HTTP, to a head that is too large and to one that does not come to an end.
"""

import asyncio
import logging
import resource
import secrets
import time
from asyncio import Future
from collections.abc import Callable
from http import HTTPStatus
from socket import socket
from typing import Any, cast

from tornado.concurrent import future_add_done_callback
from tornado.httpserver import HTTPServer
from tornado.httputil import format_timestamp
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server.base import API_VERSION

MAX_HEAD = 64 * 1024  # bytes of a request's first line and headers
HEAD_SECONDS = 30.0  # that these may take from their first byte on
MAX_CONNECTIONS = 10_000
_OTHER_FILES = 128  # that the process may have open besides: its engines, its log, models

# What tornado writes, in one piece and before it closes the connection, where it cannot read a request. It never asks
# the application: there may be no method and no path yet.
_BARE = b"HTTP/1.1 400 Bad Request\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 (Continue)\r\n\r\n"

_log = logging.getLogger(__name__)


class Stream(IOStream):
    """A connection's bytes."""

    def __init__(self, connection: socket, on_closed: Callable[[], None], **sizes: Any) -> None:
        """on_closed: called once the connection is closed; sizes: those that `IOStream` takes."""
        super().__init__(connection, **sizes)
        self._on_closed = on_closed
        self._in_head = False  # whether the next thing to come is a head, or the rest of one
        self._unanswered = True  # whether nothing of an answer to the current request was written
        self._timer: asyncio.TimerHandle | None = None  # while a head has begun and not ended

    # A head

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> "Future[bytes]":
        # Nothing but heads is read so. What lies behind a connection's last request is none.
        if self.closed():
            raise StreamClosedError(self.error)
        self._in_head = self._unanswered = True
        head = cast("Future[bytes]", super().read_until_regex(regex, max_bytes))
        future_add_done_callback(head, self._on_head)
        return head

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        size = super().read_from_fd(buf)
        if size and self._in_head and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._on_late)
        return size

    def _on_head(self, _: "Future[bytes]") -> None:
        """It is complete, or will never be."""
        self._in_head = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_late(self) -> None:
        self._refuse(errors.request_timed_out(f"its head took longer than {HEAD_SECONDS:g} seconds"))
        self.close()

    # An answer

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        super().set_close_callback(callback)
        if callback is not None and not self.closed():
            # tornado does not look whether the client has gone while there is something behind its request, and some
            # clients send an empty line there (RFC 9112, 2.2).
            self._add_io_state(self.io_loop.READ)

    # What was not understood

    def write(self, data: bytes | memoryview) -> "Future[None]":
        if data == _BARE:
            # Where a request was refused already, its body need not be understood.
            data = _answer(errors.malformed_request()) if self._unanswered else b""
        if data != _CONTINUE:
            self._unanswered = False
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError):
            # More than it may be has come of a head, or of a line between a body's chunks.
            self._refuse(errors.head_too_large(MAX_HEAD) if self._in_head else errors.malformed_request())
        super().close(exc_info)

    def _refuse(self, error: ApiError) -> None:
        if self._unanswered and not self.closed():
            self.write(_answer(error))

    def close_fd(self) -> None:
        super().close_fd()
        self._on_closed()


class Server(HTTPServer):
    """tornado's server over these connections."""

    def initialize(self, *args: Any, max_connections: int = MAX_CONNECTIONS, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self._max_connections = max_connections
        self._open = 0

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        if not isinstance(stream, SSLIOStream):
            # The stream is new, and nobody has it yet.
            stream = Stream(
                stream.socket,
                self._on_closed,
                max_buffer_size=stream.max_buffer_size,
                read_chunk_size=stream.read_chunk_size,
            )
            self._open += 1
            if self._open > self._max_connections:
                most = f"{self._max_connections} connections are open, the most that this server takes."
                stream.write(_answer(errors.unavailable(most, retry_after=1, code="overloaded")))
                stream.close()
                return
        super().handle_stream(stream, address)

    def _on_closed(self) -> None:
        self._open -= 1


def affordable_connections() -> int:
    """How many connections the process can have open, once it is allowed as many files as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    if resource.RLIM_INFINITY != soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(soft - _OTHER_FILES, 1))


def _answer(error: ApiError) -> bytes:
    """The last answer on a connection, to a request that no handler has."""
    _log.info("a connection is closed with %d %s", error.status, error.code)
    body = error.body()
    headers = {
        "Server": "inferno",
        "Date": format_timestamp(time.time()),
        "X-Request-Id": f"req_{secrets.token_hex(12)}",
        "openai-version": API_VERSION,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **error.headers,
    }
    lines = (f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *map(": ".join, headers.items()), "", "")
    return "\r\n".join(lines).encode() + body
