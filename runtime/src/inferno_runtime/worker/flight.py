"""What the engine was asked for and has not answered yet, and what becomes of it when the engine's process dies.

Pure bookkeeping: who sends the frames is the client.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.frames import Embed, Pause, Submit
from inferno_runtime.worker.generation import Generation

Work = Generation | Encoding
"""One or the other, by the model's task."""


@dataclass(slots=True)
class _Asked:
    work: Work
    frame: Submit | Embed
    again: bool = False  # it is with a second process


class Flight:
    """All that is under way."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._paused: set[int] = set()  # of them, those that the engine is to leave alone
        self._cancelled: set[int] = set()  # that are no longer among them, and which the engine has not answered

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def paused(self) -> int:
        """How many the engine is to leave alone."""
        return len(self._paused)

    @property
    def working(self) -> bool:
        """Whether the engine should make progress: it owes tokens, vectors, or the answer to a cancellation."""
        return len(self._asked) > len(self._paused) or bool(self._cancelled)

    def begin(self, work: Work, frame: Submit | Embed) -> None:
        """It is asked for, by this frame."""
        self._asked[work.id] = _Asked(work, frame)

    def find(self, number: int) -> Work | None:
        """What goes by this number, if it is still under way."""
        asked = self._asked.get(number)
        return asked.work if asked is not None else None

    def pause(self, number: int, paused: bool) -> None:
        """The engine is to leave it alone, or to go on with it."""
        (self._paused.add if paused else self._paused.discard)(number)

    def cancel(self, number: int) -> None:
        """Nobody wants it any more."""
        self.forget(number)
        self._cancelled.add(number)

    def answered(self, number: int) -> Work | None:
        """The engine is done with it. Gives it, unless it was cancelled."""
        self._cancelled.discard(number)
        return self.forget(number)

    def forget(self, number: int) -> Work | None:
        """It is not under way any more. Gives it, if it was."""
        self._paused.discard(number)
        asked = self._asked.pop(number, None)
        return asked.work if asked is not None else None

    def clear(self) -> list[Work]:
        """Nothing is under way any more. Gives what was."""
        works = [asked.work for asked in self._asked.values()]
        self._asked.clear()
        self._paused.clear()
        self._cancelled.clear()
        return works

    def strand(self) -> list[Work]:
        """The process has died. Gives what is lost with it, which is no longer under way.

        The rest is as new, since no client knows of it, and another process can have it. But only once: it may be what the
        process died of.
        """
        self._cancelled.clear()
        lost = [number for number, asked in self._asked.items() if asked.again or not asked.work.start_over()]
        works = [work for number in lost if (work := self.forget(number)) is not None]
        for asked in self._asked.values():
            asked.again = True
        return works

    def frames(self) -> Iterator[Submit | Embed | Pause]:
        """What a process must be sent that is to have all of it."""
        for number, asked in self._asked.items():
            yield asked.frame
            if number in self._paused:
                yield Pause(number)
