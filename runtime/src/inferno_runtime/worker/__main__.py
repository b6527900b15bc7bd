"""The engine's process: load, warm up, then steps while there is work.

Started by `inferno_runtime.worker.process` with the number of a connected socket. The socket's end is the process's end,
so an engine never outlives its server.
"""

import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from inferno_runtime.backends import load_backend
from inferno_runtime.backends.base import Backend, BackendError, ModelError, Span
from inferno_runtime.config import EngineConfig
from inferno_runtime.engine.masking import Masker
from inferno_runtime.engine.scheduler import Scheduler
from inferno_runtime.engine.step import StepResult
from inferno_runtime.memory import give_back, memory_available
from inferno_runtime.worker.connection import Connection
from inferno_runtime.worker.draft import load_draft
from inferno_runtime.worker.embedding import serve_embeddings
from inferno_runtime.worker.frames import (
    Cancel,
    Counters,
    Failed,
    Load,
    Log,
    Measure,
    Measured,
    Pause,
    Ready,
    Resume,
    Step,
    Submit,
    ToEngine,
)
from inferno_runtime.worker.tuning import StartTuner, governor

_SILENCE = 1.0  # seconds between two signs of life
_MOST_STORE_BYTES = 8 << 30  # that a pod takes for evicted prefixes without being told to


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
    serve = serve_generation if load.task == "generate" else serve_embeddings
    try:
        serve(connection, load)
    except ModelError as error:
        connection.send(Failed(str(error)))
        connection.flush()


def serve_generation(connection: Connection, load: Load) -> None:
    """Load a model that generates and run sequences on it until the socket ends. Raises `ModelError`."""
    config = EngineConfig.model_validate(load.engine)
    tuner = StartTuner(Path(load.path), config, load.tuning)
    backend = load_backend(load.path, config, tuner, load.adapters, load.projector)
    draft = load_draft(config, backend)
    for adapter in range(len(load.adapters), -1, -1):
        _warm_up(backend, adapter)
    if draft is not None:
        _warm_up(draft)
    scheduler = Scheduler(
        backend,
        end_tokens=load.end_tokens,
        step_budget=config.step_budget_ms / 1000,
        clock=time.monotonic,
        store_bytes=_store_bytes(config),
        speculate=config.speculation != "off",
        draft=draft,
        governor=governor(config, backend.threads),
        masker=Masker(load.tokens, load.end_tokens),
        adapters=len(load.adapters),
    )
    give_back()
    tuning = {**(tuner.tuning.wire() if tuner.tuning else {}), **backend.settings}
    connection.send(Ready(backend.info, backend.context, backend.slots, backend.description, tuning))
    reporter = Reporter(scheduler)
    if backend.vision is not None:
        backend.vision.on_progress = sign_of_life(connection.send, reporter, time.monotonic)
    while True:
        for frame in connection.receive(wait=not scheduler.busy):
            if isinstance(frame, Measure):
                connection.send(_measured(backend, frame))
            else:
                _obey(scheduler, frame)
        if scheduler.busy:
            connection.send(reporter.frame(scheduler.step()))


def _obey(scheduler: Scheduler, frame: ToEngine) -> None:
    match frame:
        case Submit(request):
            scheduler.submit(request)
        case Cancel(number):
            scheduler.cancel(number)
        case Pause(number):
            scheduler.pause(number)
        case Resume(number):
            scheduler.resume(number)


def sign_of_life(send: Callable[[Step], None], reporter: "Reporter", clock: Callable[[], float]) -> Callable[[], None]:
    """Tells the server now and then that a step is being made, so that a long one is not taken for a standstill."""
    last = clock()

    def tell() -> None:
        nonlocal last
        if clock() - last >= _SILENCE:
            last = clock()
            send(reporter.frame(StepResult()))

    return tell


def _measured(backend: Backend, frame: Measure) -> Measured:
    if backend.vision is None:
        return Measured(frame.id, None, "the model reads no images")
    try:
        return Measured(frame.id, backend.vision.layout(frame.width, frame.height))
    except BackendError as error:
        return Measured(frame.id, None, str(error))


def _first_frame(connection: Connection) -> Load:
    while not (frames := connection.receive(wait=True)):
        pass
    if len(frames) != 1 or not isinstance(frames[0], Load):
        raise ValueError("the first frame must be the one that names the model")
    return frames[0]


def _store_bytes(config: EngineConfig) -> int:
    """Host memory for evicted prefixes: what is configured, or a share of what the model has left free."""
    if config.prefix_cache_mb is not None:
        return config.prefix_cache_mb << 20
    return min(memory_available() // 4, _MOST_STORE_BYTES)


def _warm_up(backend: Backend, adapter: int = 0) -> None:
    """Evaluate a prompt and a token: pages are touched, buffers laid out, and a model that cannot run shows it now."""
    tokens = [1, 2, 3, 4]
    backend.evaluate([Span(0, 0, tokens, 1, adapter)])
    backend.evaluate([Span(0, len(tokens), [5], 1, adapter)])
    backend.clear(0)


class Reporter:
    """Says what a step brought forth, and what the engine has counted, where that has changed."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._told = Counters()

    def frame(self, result: StepResult) -> Step:
        """The frame of a step that has just been made."""
        scheduler, speculation = self._scheduler, self._scheduler.speculation
        counters = Counters(scheduler.preemptions, speculation.drafted, speculation.accepted, scheduler.store_bytes)
        changed = counters != self._told
        self._told = counters
        return Step(
            result.ids,
            result.tokens,
            result.started,
            result.finished,
            scheduler.active,
            scheduler.queued,
            scheduler.cells_used,
            scheduler.queued_by_priority,
            counters if changed else None,
            result.scores,
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
