"""One request of a WebSocket, from its `inference` to its `complete` or `error`, at the pace of its client."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from inferno_runtime.chat.events import CallBegin, CallBroken, CallDelta, CallEnd, Event, ReasoningDelta, TextDelta
from inferno_runtime.engine.request import FinishReason
from inferno_runtime.openai import errors, websocket
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.websocket import Inference, ServerMessage
from inferno_runtime.server.access import Caller
from inferno_runtime.server.context import Context
from inferno_runtime.server.flow import Backlog, Level, Window
from inferno_runtime.server.generate import Run
from inferno_runtime.server.hearing import Piece
from inferno_runtime.server.logging import request_id as logged_id
from inferno_runtime.server.record import CLIENT_CLOSED, Ended, record
from inferno_runtime.server.work import Arrival

_LARGER = 4  # times the usual batch of tokens, while the client is slow
_ENDPOINT = "websocket"

_log = logging.getLogger(__name__)


class Outbox:
    """The messages of a connection that are on their way to its client."""

    def __init__(self, socket: WebSocketHandler, stream: IOStream, limit: int) -> None:
        """limit: bytes that the client may leave untaken."""
        self.backlog = Backlog(limit, asyncio.get_running_loop().time)
        self.watchers: set[Callable[[], None]] = set()  # called when the socket has taken something
        self.sent = False  # whether something was, since this was last set to False
        self._socket = socket
        self._stream = stream

    def put(self, message: ServerMessage) -> None:
        """Send a message, now or when the socket takes it. Raises `WebSocketClosedError`."""
        data = websocket.encode(message)
        written = self._socket.write_message(data)
        self.sent = True
        size = len(data) if self._stream.writing() else 0
        if size:
            self.backlog.put(size)
        written.add_done_callback(partial(self._on_written, size))

    def _on_written(self, size: int, written: "asyncio.Future[None]") -> None:
        if not written.cancelled():
            written.exception()  # a connection that has closed says so by itself
        if size:
            self.backlog.taken(size)
            for watcher in tuple(self.watchers):
                watcher()


class Exchange:
    """A request that runs on a connection, beside others."""

    def __init__(
        self,
        context: Context,
        outbox: Outbox,
        message: Inference,
        request_id: str,
        request: HTTPServerRequest,
        caller: Caller,
    ) -> None:
        """request_id: the client's or one of the server's; request: the connection's handshake; caller: who made it."""
        self.id = request_id
        self._loop = asyncio.get_running_loop()
        self._arrival = Arrival(_ENDPOINT, request_id, self._loop.time(), request.headers, caller, caller.meter())
        self._context = context
        self._outbox = outbox
        self._message = message
        self._path = request.path
        self._run = Run(context, self._arrival)
        self._window = Window(message.window, self._loop.time)
        self._patience = context.config.server.ack_timeout_seconds
        self._changed = asyncio.Event()  # set when the client has taken, acknowledged or cancelled something
        self._task: asyncio.Task[None] | None = None  # once it has begun
        self._cancelled = False  # by the client
        self._finish: str = FinishReason.STOP
        self._level = Level.HEALTHY  # as the client knows it
        self._accumulated = ""

    async def serve(self) -> None:
        """Answer the request. However it ends, the client is told, if it is still there."""
        logged_id.set(self.id)
        self._task = asyncio.current_task()
        self._outbox.watchers.add(self._changed.set)
        status = 200
        error: ApiError | None = None
        try:
            if not self._cancelled:
                await self._answer()
            self._complete()
            if not self._cancelled:
                self._run.done()
        except ApiError as failure:
            error = failure
        except WebSocketClosedError:
            status = CLIENT_CLOSED
        except asyncio.CancelledError:
            if self._cancelled:  # before it was submitted
                self._complete()
            else:
                status = CLIENT_CLOSED
        except Exception:
            _log.exception("%s failed", self._path)
            error = errors.internal()
        finally:
            self._outbox.watchers.discard(self._changed.set)
            self._run.cancel()
        if error is not None:
            status = error.status
            self._tell(websocket.Error(self.id, error.fields))
        self._record(status, error)

    def cancel(self) -> None:
        """End the request at the client's wish."""
        self._cancelled = True
        self._finish = FinishReason.CANCELLED
        if self._run.generations:
            self._run.cancel()
            self._changed.set()
        elif self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        """End the request: the client has gone."""
        self._run.cancel()
        if self._task is not None:
            self._task.cancel()

    def ack(self, received: int) -> None:
        """The client has received so many `token` messages. Raises `ValueError` where fewer were sent."""
        self._window.ack(received)
        self._changed.set()

    async def _answer(self) -> None:
        run = self._run
        await self._arrival.meter.begin()
        await run.take(self._message.request, self._message.size)
        await run.submit()
        self._outbox.put(websocket.Start(self.id, run.model))
        await run.stream(self._write, self._pace)

    async def _write(self, index: int, piece: Piece) -> None:
        if not self._cancelled:
            scores = piece.delta.scores
            logprobs = self._run.logprobs.of_text(index, scores) if scores else None
            for event in piece.events:
                self._say(event, logprobs if isinstance(event, TextDelta) else None)
                if isinstance(event, TextDelta):
                    logprobs = None
            if logprobs is not None:  # of tokens that show nothing, or not yet, or something else
                self._say(TextDelta(""), logprobs)
            if piece.finish is not None:
                self._finish = piece.finish
        if piece.finish is None:
            await self._room()

    def _say(self, event: Event, logprobs: dict[str, Any] | None) -> None:
        match event:
            case TextDelta(text):
                token = websocket.Token(self.id, text)
                if logprobs is not None:
                    token.logprobs = logprobs
                if self._message.accumulated:
                    self._accumulated += text
                    token.accumulated = self._accumulated
                self._outbox.put(token)
                self._window.send()
            case ReasoningDelta(text):
                self._outbox.put(websocket.Reasoning(self.id, text))
            case CallBegin(call, call_id, name):
                self._outbox.put(websocket.ToolCall(self.id, call, "", call_id, name))
            case CallDelta(call, arguments):
                self._outbox.put(websocket.ToolCall(self.id, call, arguments))
            case CallEnd() | CallBroken():
                pass

    def _pace(self) -> tuple[int, float]:
        tokens, seconds = self._run.pace()
        if self._outbox.backlog.level is Level.HEALTHY:
            return tokens, seconds
        return tokens * _LARGER, seconds * _LARGER

    async def _room(self) -> None:
        """Wait until the client can take more; meanwhile the sequence is paused in the engine."""
        self._tell_level()
        self._refuse_to_wait()
        backlog, window = self._outbox.backlog, self._window
        if window.open and backlog.level is not Level.CRITICAL:
            return
        (generation,) = self._run.generations
        generation.pause()
        try:
            while not (self._cancelled or (window.open and backlog.level is Level.HEALTHY)):
                left = self._patience - max(backlog.silence, window.owing)
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(left, 0.0)):
                        await self._changed.wait()
                self._refuse_to_wait()
        finally:
            generation.resume()
        self._tell_level()

    def _refuse_to_wait(self) -> None:
        """Raises `ApiError` where the client has let the server wait for too long."""
        if self._outbox.backlog.silence >= self._patience:
            raise errors.client_stalled(self._patience)
        if self._window.owing >= self._patience:
            raise errors.ack_timed_out(self._patience)

    def _tell_level(self) -> None:
        backlog = self._outbox.backlog
        if backlog.level is not self._level:
            self._level = backlog.level
            self._outbox.put(websocket.Backpressure(self.id, self._level.value, round(backlog.usage, 3)))

    def _complete(self) -> None:
        usage = self._run.usage
        self._tell(websocket.Complete(self.id, usage["completion_tokens"], self._finish, usage))

    def _tell(self, message: ServerMessage) -> None:
        with contextlib.suppress(WebSocketClosedError):
            self._outbox.put(message)

    def _record(self, status: int, error: ApiError | None) -> None:
        run, arrival = self._run, self._arrival
        record(
            self._context,
            Ended(
                method="WS",
                path=self._path,
                endpoint=arrival.endpoint,
                status=status,
                began=arrival.at,
                request_id=self.id,
                model=run.model,
                headers=arrival.headers,
                fields={**arrival.caller.log_fields, **run.log_fields, **({"error": error.code} if error else {})},
                traced=run,
            ),
        )
