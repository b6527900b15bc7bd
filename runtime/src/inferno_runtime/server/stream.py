"""Server-sent events on a response: written as they come, kept alive while nothing comes."""

import asyncio
import contextlib

from tornado.iostream import StreamClosedError

from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.responses import DONE
from inferno_runtime.server.base import BaseHandler

HEARTBEAT_SECONDS = 30.0  # of silence, after which a comment is sent
_LAST_WORDS_SECONDS = 5.0
_COMMENT = b": waiting\n\n"


class EventStream:
    """The events of one response.

    The headers leave with the first event, so that what fails before it still has a status of its own. Several tasks
    may send.
    """

    def __init__(self, handler: BaseHandler) -> None:
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self.open = False  # whether the response has begun
        # The connection keeps only the last write's future, so writers must take turns to wait for theirs.
        self._turn = asyncio.Lock()
        self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    async def send(self, events: bytes) -> None:
        """Write events; waits while the client does not take them. Raises `StreamClosedError`."""
        if not events:
            return
        async with self._turn:
            self._sent_at = self._loop.time()
            if not self.open:
                self.open = True
                self._handler.set_header("Content-Type", "text/event-stream; charset=utf-8")
                self._handler.set_header("Cache-Control", "no-cache")
                self._handler.set_header("X-Accel-Buffering", "no")
                self._handler.write(events)
                await self._handler.flush()
                # Events are small and must not wait for one another.
                self._handler.connection.stream.set_nodelay(True)
                return
            # What the handler's own write and flush add (joining, transforms) costs more than the event itself.
            written = self._handler.connection.write(events)
            if not written.done():
                await written

    async def fail(self, error: ApiError) -> None:
        """End with an error: raise it where nothing was sent yet, send it as an event otherwise."""
        if not self.open:
            raise error
        self._handler.log_fields["error"] = error.code
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self.send(b"data: " + error.body() + b"\n\n")
                await self._finish()
        except TimeoutError:
            # The client takes nothing, which may be why it failed.
            self._handler.connection.close()

    async def end(self) -> None:
        """End well."""
        await self.send(DONE)
        await self._finish()

    async def _finish(self) -> None:
        connection = self._handler.connection
        await self._handler.finish()
        if self._handler.request.version == "HTTP/1.0":
            # Which has no chunks: its clients know a stream's end by the connection's.
            connection.close()

    def close(self) -> None:
        """Stop the heartbeat."""
        self._timer.cancel()

    def _beat(self) -> None:
        silent = self._loop.time() - self._sent_at
        if silent >= HEARTBEAT_SECONDS and not self._turn.locked():
            self._task = self._loop.create_task(self._send_comment())
            silent = 0.0
        self._timer = self._loop.call_later(max(HEARTBEAT_SECONDS - silent, 0.01), self._beat)

    async def _send_comment(self) -> None:
        # Where the client has gone, the handler hears of it by itself.
        with contextlib.suppress(StreamClosedError):
            await self.send(_COMMENT)
