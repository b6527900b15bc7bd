"""Where each sequence stands: it waits, its prompt is being evaluated, it runs, or its client cannot take more.

Pure bookkeeping: what moving a sequence means for its slot and its cells is the scheduler's to see to.
"""

from collections.abc import Iterator

from inferno_runtime.engine.queue import FairQueue
from inferno_runtime.engine.sequence import Sequence


class Roster:
    """Every sequence that has not ended stands in exactly one of these."""

    def __init__(self) -> None:
        self.waiting: FairQueue[Sequence] = FairQueue()  # for a slot, as all that follow but `parked` have one
        self.prefilling: list[Sequence] = []
        self.running: list[Sequence] = []  # by slot, as backends like it
        self.paused: list[Sequence] = []  # the longest paused first
        self.parked: list[Sequence] = []  # paused, too, and without a slot

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.holders
        yield from self.waiting
        yield from self.parked

    @property
    def busy(self) -> bool:
        """Whether anything can be evaluated, or wants to be."""
        return bool(self.running or self.prefilling or self.waiting)

    @property
    def holders(self) -> list[Sequence]:
        """Those that hold a slot."""
        return [*self.prefilling, *self.running, *self.paused]

    def find(self, request_id: int) -> Sequence | None:
        """The sequence of this request, if it has not ended."""
        return next((seq for seq in self if seq.id == request_id), None)

    def remove(self, seq: Sequence) -> bool:
        """Take a sequence out. Returns whether it held a slot."""
        if self.waiting.discard(seq):
            return False
        if seq in self.parked:
            self.parked.remove(seq)
            return False
        next(place for place in (self.running, self.prefilling, self.paused) if seq in place).remove(seq)
        return True

    def wait_again(self, seq: Sequence, now: float) -> None:
        """Let a sequence without a slot that was among the others wait for one, if it is not paused."""
        if seq.paused:
            self.parked.append(seq)
        else:
            self.waiting.put_back(seq, now)

    def run(self, seq: Sequence) -> None:
        """Let a sequence with a slot run, which is in no place now."""
        if seq.paused:
            self.paused.append(seq)
        else:
            self.running.append(seq)
            self.sort()

    def sort(self) -> None:
        """Bring those that run into the order of their slots."""
        self.running.sort(key=_slot)

    def pause(self, seq: Sequence) -> None:
        """Have nothing more evaluated for a sequence, but a prompt that is being evaluated."""
        seq.paused = True
        if seq in self.running:
            self.running.remove(seq)
            self.paused.append(seq)
        elif self.waiting.discard(seq):
            self.parked.append(seq)

    def resume(self, seq: Sequence) -> None:
        """Undo `pause`."""
        seq.paused = False
        if seq in self.paused:
            self.paused.remove(seq)
            self.run(seq)
        elif seq in self.parked:
            self.parked.remove(seq)
            self.waiting.push(seq)


def _slot(seq: Sequence) -> int:
    return seq.slot
