"""The engine's process: load, warm up, then steps while there is work.

Started by `inferno_runtime.worker.process` with the number of a connected socket. The socket's end is the process's end,
so an engine never outlives its server.
"""

import contextlib
import logging
import select
import signal
import socket
import sys
import time
from pathlib import Path

from inferno_runtime.backends import load_backend
from inferno_runtime.backends.base import Backend, ModelError, Span
from inferno_runtime.config import EngineConfig
from inferno_runtime.cpu import IdleCores, cpu_quota
from inferno_runtime.engine.scheduler import Scheduler, StepResult
from inferno_runtime.engine.threads import ThreadGovernor
from inferno_runtime.memory import give_back, memory_available
from inferno_runtime.worker.draft import load_draft
from inferno_runtime.worker.frames import (
    Cancel,
    Failed,
    FromEngine,
    Load,
    Log,
    Reader,
    Ready,
    Step,
    Submit,
    ToEngine,
    encode,
    to_engine,
)
from inferno_runtime.worker.tuning import StartTuner

_MOST_STORE_BYTES = 8 << 30  # that a pod takes for evicted prefixes without being told to


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


class FrameHandler(logging.Handler):
    """Sends log records to the server, which knows the format and the model's name."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.send(Log(record.levelno, self.format(record)))


def run(connection: Connection) -> None:
    """Serve until the socket ends."""
    load = _first_frame(connection)
    config = EngineConfig.model_validate(load.engine)
    try:
        tuner = StartTuner(Path(load.path), config)
        backend = load_backend(load.path, config, tuner)
        draft = load_draft(config, backend)
        for loaded in (backend, draft):
            if loaded is not None:
                _warm_up(loaded)
    except ModelError as error:
        connection.send(Failed(str(error)))
        connection.flush()
        return
    scheduler = Scheduler(
        backend,
        end_tokens=load.end_tokens,
        step_budget=config.step_budget_ms / 1000,
        clock=time.monotonic,
        store_bytes=_store_bytes(config),
        speculate=config.speculation != "off",
        draft=draft,
        governor=_governor(config, backend),
    )
    give_back()
    tuning = tuner.tuning.wire() if tuner.tuning else {}
    connection.send(Ready(backend.info, backend.context, backend.slots, backend.description, tuning))
    while True:
        for frame in connection.receive(wait=not scheduler.busy):
            if isinstance(frame, Submit):
                scheduler.submit(frame.request)
            elif isinstance(frame, Cancel):
                scheduler.cancel(frame.id)
        if scheduler.busy:
            connection.send(_step_frame(scheduler, scheduler.step()))


def _first_frame(connection: Connection) -> Load:
    while not (frames := connection.receive(wait=True)):
        pass
    if len(frames) != 1 or not isinstance(frames[0], Load):
        raise ValueError("the first frame must be the one that names the model")
    return frames[0]


def _governor(config: EngineConfig, backend: Backend) -> ThreadGovernor | None:
    """Who says how many threads evaluate; nobody where that is configured, not ours to say, or no choice."""
    quota = cpu_quota()
    if config.threads or not backend.threads or quota == 1:
        return None
    return ThreadGovernor(quota, backend.threads, IdleCores())


def _store_bytes(config: EngineConfig) -> int:
    """Host memory for evicted prefixes: what is configured, or a share of what the model has left free."""
    if config.prefix_cache_mb is not None:
        return config.prefix_cache_mb << 20
    return min(memory_available() // 4, _MOST_STORE_BYTES)


def _warm_up(backend: Backend) -> None:
    """Evaluate a prompt and a token: pages are touched, buffers laid out, and a model that cannot run shows it now."""
    tokens = [1, 2, 3, 4]
    backend.evaluate([Span(0, 0, tokens, logits=True)])
    backend.evaluate([Span(0, len(tokens), [5], logits=True)])
    backend.clear(0)


def _step_frame(scheduler: Scheduler, result: StepResult) -> Step:
    return Step(
        result.ids,
        result.tokens,
        result.started,
        result.finished,
        scheduler.active,
        scheduler.queued,
        scheduler.cells_used,
    )


def main() -> None:
    """Serve on the socket whose number is the first argument."""
    # A terminal's Ctrl-C reaches the whole process group, but when to end is the server's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(socket.socket(fileno=int(sys.argv[1])))
    logging.basicConfig(level=logging.INFO, handlers=[FrameHandler(connection)], format="%(message)s")
    with contextlib.suppress(EOFError, ConnectionError):  # the server has gone
        run(connection)


if __name__ == "__main__":
    main()
