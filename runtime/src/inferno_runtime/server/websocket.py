"""`/ws/stream` and `/v1/ws/stream`: several requests on one connection, each at its client's pace.

Messages are not compressed. One of some 94 bytes would be 22, while the state that compresses takes 256 KiB of memory for
each connection, more than all else that it has. What can be large is the text that `accumulated` repeats, and a client
that minds leaves it out.
"""

import asyncio
import base64
import contextlib
import logging
import secrets
from typing import Any

from tornado.websocket import WebSocketClosedError, WebSocketHandler, _WebSocketParams

from inferno_runtime.openai import errors, websocket
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.websocket import Ack, BadMessage, Cancel, ClientMessage, Inference, Ping, ServerMessage
from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.context import Context
from inferno_runtime.server.exchange import Exchange, Outbox
from inferno_runtime.server.flow import Level
from inferno_runtime.server.origin import check_origin
from inferno_runtime.server.protocol import GOING_AWAY, INTERNAL, POLICY, Protocol
from inferno_runtime.server.stream import bound_send_buffer

_NONCE_BYTES = 16  # of a handshake's key

_log = logging.getLogger(__name__)


class SocketHandler(BaseHandler, WebSocketHandler):  # the former's `get` calls the latter's
    """One connection."""

    def initialize(self, context: Context) -> None:
        super().initialize(context)
        self._config = context.config.server
        self._exchanges: dict[str, Exchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._outbox: Outbox
        self._moved = asyncio.Event()  # set when the socket has taken something
        self._beats: asyncio.TimerHandle | None = None
        self._pinged = False  # at the last beat
        self._heard = False  # something of the client, since the last beat

    # The handshake

    async def run(self) -> None:
        self._check_handshake()
        check_origin(self.request, self._config.allowed_origins)
        if self.context.registry.draining:
            raise errors.unavailable("The server is shutting down.")
        with self.meter.connection():
            await WebSocketHandler.get(self)  # which lasts as long as the connection

    def _check_handshake(self) -> None:
        """Raises `ApiError` where tornado would answer without words that a client understands."""
        headers = self.request.headers
        connection = {word.strip().lower() for word in headers.get("Connection", "").split(",")}
        asked = headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in connection
        if not asked or self.request.version == "HTTP/1.0":
            raise errors.upgrade_required({"Upgrade": "websocket"})
        if headers.get("Sec-WebSocket-Version") != "13":
            raise errors.upgrade_required({"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
        if not _is_key(headers.get("Sec-WebSocket-Key", "")):
            raise errors.bad_request(
                f"The header Sec-WebSocket-Key must hold {_NONCE_BYTES} bytes in base64.", "Sec-WebSocket-Key"
            )
        headers.pop("Sec-WebSocket-Extensions", None)  # none is offered, and tornado stumbles over some

    def check_origin(self, origin: str) -> bool:
        return True  # `run` has

    def get_websocket_protocol(self) -> Protocol:
        return Protocol(self, False, _WebSocketParams(max_message_size=self._config.websocket_message_bytes))

    # Its life

    def open(self, *_: Any) -> None:
        protocol = self.ws_connection
        if protocol is None or protocol.stream is None:
            return  # the client has gone already
        self.set_nodelay(True)
        bound_send_buffer(protocol.stream)
        self._outbox = Outbox(self, protocol.stream, self._config.stream_buffer_kb * 1024)
        self._outbox.watchers.add(self._on_moved)
        self.context.enter(self)
        self.context.sockets.add(self)
        self._schedule_beat()
        if self.context.registry.draining:
            self.drain()

    def on_close(self) -> None:
        if self._beats is not None:
            self._beats.cancel()
        for exchange in self._exchanges.values():
            exchange.abandon()
        self._moved.set()
        self.context.sockets.discard(self)
        self.context.leave(self)

    def drain(self) -> None:
        """Close the connection once its last request has ended."""
        if not self._exchanges:
            self.close(GOING_AWAY, "The server is shutting down.")

    def on_pong(self, data: bytes) -> None:
        self._heard = True

    def on_ping(self, data: bytes) -> None:
        self._heard = True

    def _on_moved(self) -> None:
        self._heard = True
        self._moved.set()

    def _schedule_beat(self) -> None:
        self._beats = asyncio.get_running_loop().call_later(self._config.keep_alive_seconds, self._beat)

    def _beat(self) -> None:
        """Ping a client that was sent nothing since the last beat; close where the last ping was not answered."""
        if self._pinged and not self._heard:
            self.close(INTERNAL, "A ping was not answered.")
            return
        self._pinged = not self._outbox.sent
        self._outbox.sent = self._heard = False
        with contextlib.suppress(WebSocketClosedError):
            if self._pinged:
                self.ping()
            self._schedule_beat()

    # Messages

    async def on_message(self, message: str | bytes) -> None:
        self._heard = True
        try:
            await self._obey(websocket.parse(message))
        except BadMessage as bad:
            await self._reply(websocket.Error(bad.request_id, bad.error.fields))
        except WebSocketClosedError:
            pass
        except Exception:
            _log.exception("a message of %s failed", self.request.path)
            await self._reply(websocket.Error(None, errors.internal().fields))

    async def _obey(self, message: ClientMessage) -> None:
        match message:
            case Inference():
                await self._begin(message)
            case Cancel(request_id):
                if (exchange := self._exchanges.get(request_id)) is None:
                    raise BadMessage(errors.request_not_found(), request_id)
                exchange.cancel()
            case Ack(request_id, received):
                self._acknowledge(request_id, received)
            case Ping():
                await self._reply(websocket.Pong())

    async def _begin(self, message: Inference) -> None:
        # A client that sends and does not read must not fill the outbox with answers.
        await self._relief()
        request_id = message.id or f"req_{secrets.token_hex(12)}"
        if error := self._why_not(request_id):
            # Under the id of the request that it refuses, unless that is another's.
            raise BadMessage(error, None if request_id in self._exchanges else message.id)
        exchange = Exchange(self.context, self._outbox, message, request_id, self.request, self.caller)
        self._exchanges[request_id] = exchange
        task = asyncio.create_task(self._serve(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _why_not(self, request_id: str) -> ApiError | None:
        """Why a request of this id cannot be taken."""
        if request_id in self._exchanges:
            return errors.bad_request("A request of this 'id' is running on this connection.", "id", "id_in_use")
        if self.context.registry.draining:
            return errors.unavailable("The server is shutting down.")
        if len(self._exchanges) >= self._config.websocket_requests:
            return errors.too_many_requests(self._config.websocket_requests)
        return None

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await exchange.serve()
        finally:
            # Without a pause after its last message: from there on its id may be used again.
            del self._exchanges[exchange.id]
            if self.context.registry.draining:
                self.drain()

    def _acknowledge(self, request_id: str, received: int) -> None:
        if (exchange := self._exchanges.get(request_id)) is None:
            return  # it has ended while the acknowledgement was on its way
        try:
            exchange.ack(received)
        except ValueError as error:
            raise BadMessage(
                errors.bad_request(f"'received' is {received}, but {error}.", "received"), request_id
            ) from error

    async def _reply(self, message: ServerMessage) -> None:
        """Send a message that no request waits for, and read no further while the client takes too little."""
        with contextlib.suppress(WebSocketClosedError):
            self._outbox.put(message)
            await self._relief()

    async def _relief(self) -> None:
        """Wait while the outbox is full. Raises `WebSocketClosedError`, also where that takes too long."""
        backlog, patience = self._outbox.backlog, self._config.ack_timeout_seconds
        while backlog.level is Level.CRITICAL:
            if backlog.silence >= patience:
                self.close(POLICY, f"Nothing was read for {patience} seconds.")
                raise WebSocketClosedError
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience - backlog.silence):
                    await self._moved.wait()


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _NONCE_BYTES
    except ValueError:
        return False
