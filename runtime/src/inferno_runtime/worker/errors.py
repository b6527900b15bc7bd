"""What can go wrong between the server and an engine; each message is a sentence fit for the client.

::

    EngineError
     ├── Overloaded          the queue is full; try again later
     ├── EngineUnavailable   no engine takes requests: it could not be started again
     │    └── ServerEnding   or will never be
     ├── EngineLost          the engine's process died under a running sequence
     ├── GenerationFailed    this one sequence failed in the engine
     ├── EncodingFailed      this one request for vectors failed in the engine
     ├── OutOfMemory         the engine has no memory for this one sequence
     ├── GrammarRefused      the grammar that it must follow does not compile, or takes too much
     ├── ImageRefused        an image cannot be decoded, is too large, or none that the model can be shown
     ├── GenerationTimeout   it took longer than a request may
     └── TokenTimeout        it ran, and no token came for longer than is allowed
"""


class EngineError(Exception):
    """A sequence could not be generated."""


class Overloaded(EngineError):
    """The queue is full."""


class EngineUnavailable(EngineError):
    """No engine takes requests."""


class ServerEnding(EngineUnavailable):
    """The server ends, and its engines with it."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down.")


class EngineLost(EngineError):
    """The engine's process died under a running sequence."""


class GenerationFailed(EngineError):
    """This sequence failed; its neighbours go on."""


class EncodingFailed(EngineError):
    """This request for vectors failed; its neighbours go on."""


class OutOfMemory(EngineError):
    """There is no memory for this sequence; its neighbours go on."""


class GrammarRefused(EngineError):
    """The grammar does not compile within its bounds; the message is the compiler's, in one line."""


class ImageRefused(EngineError):
    """The image is broken, too large or none; the message goes on from "The image is refused: "."""


class GenerationTimeout(EngineError):
    """The request took longer than it may."""


class TokenTimeout(EngineError):
    """The sequence ran, and no token came for longer than is allowed."""
