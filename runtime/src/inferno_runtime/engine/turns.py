"""Which adapter's sequences decode next, where there are several: a batch can have only one.

Start-time fair queueing, as among priorities: each adapter with running sequences has the same share of the time, by what
its batches took, so one with long contexts costs the others no more than one with short ones. Changing the adapter has a
cost of its own, so one keeps its turn for some batches where they are short. Pure: the times are told.
"""

from collections.abc import Set

_TURN = 0.05  # seconds that an adapter keeps its turn: what is as long as that anyway changes after every batch
_LEAST = 0.001  # seconds that a batch counts as, so that turns end on a clock of any resolution


class Turns:
    """The adapters' shares."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}  # virtual time by adapter, in seconds
        self._virtual = 0.0  # the latest at which a turn began
        self._present: Set[int] = frozenset()
        self._current = 0
        self._left = 0.0  # seconds of the current turn
        self._batches = 0  # since prompts had their turn

    def next(self, adapters: Set[int]) -> int:
        """The one of these to decode; the same until `observe` is told what that took. There must be one."""
        for adapter in adapters - self._present:  # time without anything to do is no time saved
            self._spent[adapter] = max(self._spent.get(adapter, 0.0), self._virtual)
        self._present = adapters
        if self._left <= 0 or self._current not in adapters:
            self._current = min(adapters, key=lambda adapter: (self._spent[adapter], adapter))
            self._virtual = max(self._virtual, self._spent[self._current])
            self._left = _TURN
        return self._current

    def observe(self, seconds: float) -> None:
        """Take what the batch of the adapter whose turn it is took."""
        seconds = max(seconds, _LEAST)
        self._spent[self._current] += seconds
        self._left -= seconds
        self._batches += 1

    def round(self) -> int:
        """The batches since the last round, once there were as many as adapters; before that 0, and no prompt's turn."""
        if self._batches < len(self._present):
            return 0
        batches, self._batches = max(self._batches, 1), 0
        return batches
