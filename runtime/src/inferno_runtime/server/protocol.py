"""The WebSocket protocol: tornado's, and stricter where RFC 6455 is."""

from asyncio import Future

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13

_MASKED = 0x80  # in a frame's second byte
_TEXT, _CLOSE = 0x1, 0x8  # opcodes

# Why a connection is closed (section 7.4.1).
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
NOT_UTF8 = 1007
POLICY = 1008
INTERNAL = 1011

_SENDABLE = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})  # of those below 3000


class Protocol(WebSocketProtocol13):
    """Where a client breaks the protocol it is told why its connection is closed, which tornado does without a word.

    And only masked frames are taken (5.1), and only close frames of a form that may be answered (5.5.1).
    """

    _at_header = False  # whether a frame's first bytes are to come

    async def _receive_frame(self) -> None:
        self._at_header = True
        await super()._receive_frame()

    async def _read_bytes(self, n: int) -> bytes:
        data = await super()._read_bytes(n)
        if self._at_header:
            self._at_header = False
            if not data[1] & _MASKED:
                self._abort()
                raise StreamClosedError
        return data

    def _handle_message(self, opcode: int, data: bytes) -> "Future[None] | None":
        if opcode == _TEXT and not _is_utf8(data):
            self._fail(NOT_UTF8)
            return None
        if opcode == _CLOSE and not _is_close(data):
            self._abort()
            return None
        return super()._handle_message(opcode, data)

    def _abort(self) -> None:
        self._fail(PROTOCOL_ERROR)

    def _fail(self, code: int) -> None:
        """Close at once, and say why if nothing was said yet."""
        if self.stream is not None and not self.stream.closed():
            self.close(code)  # of which only the first has an effect
        super()._abort()


def _is_close(data: bytes) -> bool:
    """Whether a close frame may carry this: nothing, or a code and a reason."""
    if len(data) < 2:
        return not data
    code = int.from_bytes(data[:2], "big")
    return (code in _SENDABLE or 3000 <= code < 5000) and _is_utf8(data[2:])


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
