"""Server-sent events on a response: written as they come, kept alive while nothing comes."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from tornado.iostream import IOStream, StreamClosedError

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.compression import Encoder, encoder, negotiate

_LAST_WORDS_SECONDS = 5.0
_COMMENT = b": waiting\n\n"
_SEND_BUFFER = 64 * 1024  # bytes


def bound_send_buffer(stream: IOStream) -> None:
    """Have the kernel keep little of a stream of tokens.

    By itself it takes megabytes, so that a client that reads nothing would look for minutes like one that reads all.
    Raises `StreamClosedError`.
    """
    if stream.closed():
        raise StreamClosedError
    with contextlib.suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def error_event(error: ApiError, name: bytes = b"") -> bytes:
    """An event that is an error object. name: the event's, if it has one."""
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + error.body() + b"\n\n"


class EventStream:
    """The events of one response, in the coding that the client likes best.

    The headers leave with the first event, so that what fails before it still has a status of its own. Several tasks
    may send.
    """

    def __init__(
        self, handler: BaseHandler, *, failure: Callable[[ApiError], bytes] = error_event, silence: bytes = _COMMENT
    ) -> None:
        """failure: the events that tell of an error; silence: the event that tells that nothing comes."""
        server = handler.context.config.server
        self._handler = handler
        self._failure = failure
        self._beat_event = silence
        self._patience = server.ack_timeout_seconds
        self._silence = server.keep_alive_seconds
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self.open = False  # whether the response has begun
        self._encoder: Encoder | None = None
        self._ended = False
        # The connection keeps only the last write's future, so writers must take turns to wait for theirs.
        self._turn = asyncio.Lock()
        self._timer = self._loop.call_later(self._silence, self._beat)

    async def send(self, events: bytes) -> None:
        """Write events; waits while the client does not take them.

        Raises `StreamClosedError`, and `ApiError` where the client takes nothing for too long.
        """
        if not events:
            return
        async with self._turn:
            if self._ended:  # a comment, which the last event has overtaken
                return
            self._sent_at = self._loop.time()
            if not self.open:
                await self._open(events)
                return
            # What the handler's own write and flush add (joining, transforms) costs more than the event itself.
            written = self._handler.connection.write(self._encoded(events))
            if not written.done():
                # Meanwhile the sequence waits, and after a while the engine pauses it.
                await asyncio.wait((written,), timeout=self._patience)
                if not written.done():
                    raise errors.client_stalled(self._patience)

    async def _open(self, events: bytes) -> None:
        self.open = True
        handler = self._handler
        handler.set_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.set_header("Cache-Control", "no-cache")
        handler.set_header("X-Accel-Buffering", "no")
        coding = negotiate(handler.request.headers.get("Accept-Encoding")).coding
        self._encoder = encoder(coding)
        if self._encoder is not None:
            handler.set_header("Content-Encoding", coding)
        handler.write(self._encoded(events))
        bound_send_buffer(handler.connection.stream)
        await handler.flush()
        # Events are small and must not wait for one another.
        handler.connection.stream.set_nodelay(True)

    def _encoded(self, events: bytes) -> bytes:
        return events if self._encoder is None else self._encoder.encode(events)

    async def fail(self, error: ApiError) -> None:
        """End with an error: raise it where nothing was sent yet, send it as an event otherwise."""
        if not self.open:
            raise error
        self._handler.log_fields["error"] = error.code
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self.send(self._failure(error))
                await self._finish()
        except (TimeoutError, ApiError):
            # The client takes nothing, which may be why it failed.
            self._handler.connection.close()

    async def end(self, last: bytes) -> None:
        """End well. Raises as `send` does."""
        await self.send(last)
        try:
            async with asyncio.timeout(self._patience):
                await self._finish()
        except TimeoutError:
            self._handler.connection.close()

    async def _finish(self) -> None:
        self.close()
        connection = self._handler.connection
        async with self._turn:
            self._ended = True
            if self._encoder is not None:
                connection.write(self._encoder.end())
            await self._handler.finish()
        if self._handler.request.version == "HTTP/1.0":
            # Which has no chunks: its clients know a stream's end by the connection's.
            connection.close()

    def close(self) -> None:
        """Stop the heartbeat."""
        self._timer.cancel()

    def _beat(self) -> None:
        silent = self._loop.time() - self._sent_at
        if silent >= self._silence and not self._turn.locked():
            self._task = self._loop.create_task(self._send_comment())
            silent = 0.0
        self._timer = self._loop.call_later(max(self._silence - silent, 0.01), self._beat)

    async def _send_comment(self) -> None:
        # Where the client has gone, the handler hears of it by itself; where it stalls, the next event tells.
        with contextlib.suppress(StreamClosedError, ApiError):
            await self.send(self._beat_event)
