"""An engine's process without a model: it answers each sequence with its prompt, and dies of one that holds `DEADLY`.

It is never ready for the model `NEVER`.
"""

import contextlib
import os
import socket
import sys

from inferno_runtime.backends.base import ModelInfo
from inferno_runtime.engine.request import Finished, FinishReason, Request, Started
from inferno_runtime.worker.connection import Connection
from inferno_runtime.worker.frames import Load, Ready, Step, Submit

DEADLY = 13
NEVER = "never"


def main() -> None:
    connection = Connection(socket.socket(fileno=int(sys.argv[1])))
    with contextlib.suppress(EOFError):
        while True:
            for frame in connection.receive(wait=True):
                if isinstance(frame, Load) and frame.path != NEVER:
                    connection.send(Ready(ModelInfo("gguf", "fake", "none", 0, 0, 64, 259), 64, 4, "a fake", {}))
                elif isinstance(frame, Submit):
                    if DEADLY in frame.request.prompt:
                        os._exit(3)
                    connection.send(answer(frame.request))


def answer(request: Request) -> Step:
    return Step(
        ids=[request.id] * len(request.prompt),
        tokens=request.prompt,
        started=[Started(request.id, 0, 0.0, 0.0)],
        finished=[Finished(request.id, FinishReason.STOP)],
        active=0,
        queued=0,
        cells_used=0,
    )


if __name__ == "__main__":
    main()
