"""Which inputs an embedding model encodes next.

Sequences lie in a batch one behind the other, without padding, so a batch is a number of tokens and nothing else about its
inputs matters. Requests have their turn by priority and age, and among equals by what is left of them less the time that
they have waited: one short input goes before the rest of a hundred long ones, and the hundred, once they have waited for as
long as they take, before anybody who comes later. Pure: the times are told.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from inferno_runtime.engine.queue import rank
from inferno_runtime.engine.request import Priority

_LEAST = 64  # tokens in a batch, however long they take: in smaller ones each token costs markedly more
_TELLING = 32  # tokens in a batch from which the cost of a token is learnt
_SMOOTHING = 0.2  # weight of the newest measurement


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a request."""

    request_id: int
    index: int
    tokens: int


class Packer:
    """The inputs that wait, by request, and the batches that they make."""

    def __init__(self, max_tokens: int, max_inputs: int, budget: float) -> None:
        """max_tokens: in a batch of several inputs; a single one may have more; budget: seconds that a batch may take."""
        self._max_tokens = max_tokens
        self._max_inputs = max_inputs
        self._budget = budget
        self._token_seconds = 0.0  # 0 until it was measured
        self._requests: dict[int, _Request] = {}

    def __len__(self) -> int:
        """Requests with inputs that wait."""
        return len(self._requests)

    def add(self, request_id: int, sizes: Sequence[int], now: float, priority: Priority = Priority.NORMAL) -> None:
        """Take a request with inputs of these many tokens, 1 or more each."""
        self._requests[request_id] = _Request(request_id, sizes, now, priority)

    def remove(self, request_id: int) -> None:
        """Forget what waits of a request; one that is unknown is ignored."""
        self._requests.pop(request_id, None)

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from what a batch took."""
        if tokens < _TELLING:
            return
        measured = seconds / tokens
        weight = _SMOOTHING if self._token_seconds else 1.0
        self._token_seconds += weight * (measured - self._token_seconds)

    def next(self, now: float) -> list[Input]:
        """The next batch, whose inputs wait no longer; empty if there are none."""
        room = self._room()
        batch: list[Input] = []
        for request in sorted(self._requests.values(), key=lambda request: self._urgency(request, now)):
            while len(batch) < self._max_inputs:
                # The most urgent request gets on in every batch, also with an input that is larger than one.
                taken = request.take(room, at_any_size=not batch)
                if taken is None:
                    break
                batch.append(taken)
                room -= taken.tokens
            if not request.waiting:
                del self._requests[request.id]
            if room <= 0 or len(batch) == self._max_inputs:
                break
        return batch

    def _room(self) -> int:
        """Tokens in a batch: what fits into the time, so that who comes meanwhile need not wait for long."""
        fitting = int(self._budget / self._token_seconds) if self._token_seconds else 0
        return min(max(fitting, _LEAST), self._max_tokens)

    def _urgency(self, request: "_Request", now: float) -> tuple[int, float]:
        """The least goes first."""
        return -rank(request, now), request.tokens * self._token_seconds - (now - request.arrived)


class _Request:
    """The inputs of one request that are in no batch yet."""

    __slots__ = ("arrived", "id", "priority", "tokens", "waiting")

    def __init__(self, request_id: int, sizes: Sequence[int], arrived: float, priority: Priority) -> None:
        self.id = request_id
        self.arrived = arrived
        self.priority = priority
        self.waiting = sorted((tokens, index) for index, tokens in enumerate(sizes))
        self.tokens = sum(sizes)

    def take(self, room: int, *, at_any_size: bool) -> Input | None:
        """The longest input that fits, since the short ones fit into what is left; else, if that is allowed, the shortest."""
        at = bisect_right(self.waiting, room, key=_size) - 1
        if at < 0:
            if not at_any_size or not self.waiting:
                return None
            at = 0
        tokens, index = self.waiting.pop(at)
        self.tokens -= tokens
        return Input(self.id, index, tokens)


def _size(entry: tuple[int, int]) -> int:
    return entry[0]
