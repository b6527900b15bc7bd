"""A web server on the loopback that can be told to misbehave."""

import hashlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Fault = Callable[["Handler", bytes], None]


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go in the middle of an answer are what is tested."""


class Web:
    """Files by path. ``faults`` are what happens to the next requests, one each; after them all goes well."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files or {}
        self.etags: dict[str, str] = {}
        self.faults: deque[Fault | None] = deque()
        self.seen: list[Seen] = []
        self.hook: Callable[[Handler], bool] | None = None
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def etag(self, path: str) -> str:
        return self.etags.get(path) or '"' + hashlib.md5(self.files[path]).hexdigest() + '"'

    def ranges(self) -> list[str | None]:
        """What the requests asked for."""
        return [seen.headers.get("range") for seen in self.seen]

    def __enter__(self) -> "Web":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.web.seen.append(Seen(self.command, self.path, headers))
        if self.web.hook and self.web.hook(self):
            return None
        path = self.path.partition("?")[0]
        body = self.web.files.get(path)
        if body is None:
            return self.answer(404, {}, b"")
        fault = self.web.faults.popleft() if self.web.faults else None
        if fault is not None:
            return fault(self, body)
        return self.well(body)

    def well(self, body: bytes) -> None:
        """As a good server answers, ranges and conditions included."""
        etag = self.web.etag(self.path.partition("?")[0])
        if self.headers.get("If-None-Match") == etag:
            return self.answer(304, {"ETag": etag}, b"")
        if self.headers.get("If-Match") not in (None, etag):
            return self.answer(412, {}, b"")
        start = self.start()
        if start is not None and self.headers.get("If-Range") in (None, etag):
            if start >= len(body):
                return self.answer(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return self.answer(206, {"ETag": etag, "Content-Range": span}, body[start:])
        return self.answer(200, {"ETag": etag, "Accept-Ranges": "bytes"}, body)

    def start(self) -> int | None:
        value = self.headers.get("Range", "")
        return int(value.removeprefix("bytes=").removesuffix("-")) if value else None

    def answer(self, status: int, headers: dict[str, str], body: bytes, send: int | None = None) -> None:
        """An answer of which ``send`` bytes are sent."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:send])
            self.wfile.flush()
        if send is not None:
            self.close_connection = True


def _handler(web: Web) -> type[Handler]:
    return type("_Handler", (Handler,), {"web": web})


def cut(size: int) -> Fault:
    """The connection ends after so many bytes of the body."""

    def fault(handler: Handler, body: bytes) -> None:
        start = handler.start() or 0
        headers = {"ETag": handler.web.etag(handler.path)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.answer(206 if start else 200, headers, body[start:], send=size)

    return fault


def reset(size: int) -> Fault:
    """The connection is reset after so many bytes."""

    def fault(handler: Handler, body: bytes) -> None:
        cut(size)(handler, body)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return fault


def status(code: int, **headers: str) -> Fault:
    """An answer with this status and headers (with - for _)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.answer(code, named, b"no")


def stall(size: int) -> Fault:
    """Nothing more after so many bytes."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", handler.web.etag(handler.path))
        handler.end_headers()
        handler.wfile.write(body[:size])
        handler.web.closing.wait()
        handler.close_connection = True

    return fault


def whole(handler: Handler, body: bytes) -> None:
    """The whole file, whatever range was asked for."""
    handler.answer(200, {"ETag": handler.web.etag(handler.path)}, body)


def wrong_start(by: int) -> Fault:
    """A range that begins elsewhere."""

    def fault(handler: Handler, body: bytes) -> None:
        start = (handler.start() or 0) + by
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.answer(206, {"Content-Range": span, "ETag": handler.web.etag(handler.path)}, body[start:])

    return fault


def other_file(body_instead: bytes, etag: str | None) -> Fault:
    """A range of another file, with or without an ETag that says so."""

    def fault(handler: Handler, _: bytes) -> None:
        start = handler.start() or 0
        headers = {"Content-Range": f"bytes {start}-{len(body_instead) - 1}/{len(body_instead)}"}
        if etag:
            headers["ETag"] = etag
        handler.answer(206, headers, body_instead[start:])

    return fault


def chunked(handler: Handler, body: bytes) -> None:
    """The body in chunks, without a length."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for start in range(0, len(body), 1000):
        piece = body[start : start + 1000]
        handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def endless(handler: Handler, body: bytes) -> None:
    """The body until the connection ends, without a length."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def redirect(target: str, code: int = 302) -> Fault:
    """To another place."""
    return lambda handler, _: handler.answer(code, {"Location": target}, b"")


@dataclass
class Sleeps:
    """In place of sleeping."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
