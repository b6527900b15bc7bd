"""The server's connections: what is not HTTP is answered with the error object, too."""

import secrets
import time
from asyncio import Future
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import format_timestamp
from tornado.iostream import IOStream, SSLIOStream

from inferno_runtime.openai import errors
from inferno_runtime.server.base import API_VERSION

# What tornado writes, in one piece and before it closes the connection, where it cannot read a request. It never asks
# the application: there may be no method and no path yet.
_BARE = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class Stream(IOStream):
    """A connection's bytes."""

    def write(self, data: bytes | memoryview) -> "Future[None]":
        return super().write(_malformed() if data == _BARE else data)


class Server(HTTPServer):
    """tornado's server over these connections."""

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        if not isinstance(stream, SSLIOStream):
            # The stream is new, and nobody has it yet.
            stream = Stream(
                stream.socket, max_buffer_size=stream.max_buffer_size, read_chunk_size=stream.read_chunk_size
            )
        super().handle_stream(stream, address)


def _malformed() -> bytes:
    """The answer to a request that cannot be read."""
    error = errors.malformed_request()
    body = error.body()
    lines = (
        "HTTP/1.1 400 Bad Request",
        "Server: inferno",
        f"Date: {format_timestamp(time.time())}",
        f"X-Request-Id: req_{secrets.token_hex(12)}",
        f"openai-version: {API_VERSION}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body
