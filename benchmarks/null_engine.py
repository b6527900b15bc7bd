"""An engine without a model, in the place of the real one: it says the same token to everybody.

It makes as many steps a second as NULL_ENGINE_STEPS says, or as many as are read.
"""

import os
import socket
import sys
import time

from inferno_runtime.backends.base import ModelInfo
from inferno_runtime.engine.request import Finished, FinishReason, Started
from inferno_runtime.worker.frames import (
    Cancel,
    FromEngine,
    Load,
    Pause,
    Reader,
    Ready,
    Resume,
    Step,
    Submit,
    ToEngine,
    encode,
    to_engine,
)

CONTEXT = 4096
_SEND_BUFFER = 32 * 1024  # bytes: the engine is never far ahead of its reader
_TOKEN = 100


class NullEngine:
    """Every sequence says a token in every step, until it has said all or is paused."""

    def __init__(self) -> None:
        self._new: list[int] = []
        self._left: dict[int, int] = {}  # by sequence, the tokens that it still has to say
        self._paused: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def obey(self, frame: ToEngine) -> None:
        """Take what the server sends."""
        match frame:
            case Submit(request):
                self._left[request.id] = request.max_tokens
                self._new.append(request.id)
            case Cancel(number):
                self._left.pop(number, None)
                self._paused.pop(number, None)
            case Pause(number) if number in self._left:
                self._paused[number] = self._left.pop(number)
            case Resume(number) if number in self._paused:
                self._left[number] = self._paused.pop(number)

    def step(self) -> Step:
        """The next token of everybody."""
        ids = list(self._left)
        started = [Started(number, 0, 0.0, 0.0) for number in self._new]
        self._new.clear()
        finished = []
        for number in ids:
            self._left[number] -= 1
            if not self._left[number]:
                del self._left[number]
                finished.append(Finished(number, FinishReason.LENGTH, None))
        return Step(ids, [_TOKEN] * len(ids), started, finished, len(self._left), 0, 0)


def serve(sock: socket.socket) -> None:
    """Answer until the socket ends."""
    reader: Reader[ToEngine] = Reader(to_engine)
    engine = NullEngine()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    rate = float(os.environ.get("NULL_ENGINE_STEPS", "0"))
    due = time.monotonic()
    while True:
        sock.setblocking(not engine.busy)
        try:
            data = sock.recv(1 << 20)
        except BlockingIOError:
            pass
        else:
            if not data:
                return
            for frame in reader.feed(data):
                if isinstance(frame, Load):
                    _send(sock, Ready(ModelInfo("gguf", "null", "none", 0, 0, CONTEXT, 0), CONTEXT, 1024, "null", {}))
                else:
                    engine.obey(frame)
        if engine.busy:
            if rate:
                due = max(due + 1 / rate, time.monotonic() - 1.0)
                time.sleep(max(due - time.monotonic(), 0.0))
            _send(sock, engine.step())


def _send(sock: socket.socket, frame: FromEngine) -> None:
    sock.setblocking(True)
    sock.sendall(encode(frame))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
