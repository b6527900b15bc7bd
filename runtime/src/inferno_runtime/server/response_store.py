"""Responses that can be asked for later, and gone on from: in memory, for a while, and only so many.

Each belongs to an account, and no other account sees it or that it is there. Where there are too many, the account that
holds most loses its oldest: whoever stores a lot takes nothing from those beside it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response, as JSON. response: the object; items: the whole conversation that it answered, as a list.

    output: the ids of its output's items.
    """

    response: bytes
    items: bytes
    output: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.response) + len(self.items)


@dataclass(slots=True)
class _Account:
    responses: OrderedDict[
        str, tuple[float, StoredResponse]
    ]  # by id, with the time at which each goes, the oldest first
    items: dict[str, str] = field(default_factory=dict)  # ids of responses by those of what they put out
    size: int = 0


class ResponseStore:
    """The stored responses of all accounts. Belongs to the event loop."""

    def __init__(self, most: int, most_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """most: responses, 0 for none; seconds: for which one is kept."""
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._order: OrderedDict[tuple[str, str], None] = OrderedDict()  # the oldest first
        self._size = 0

    def __len__(self) -> int:
        return len(self._order)

    @property
    def size(self) -> int:
        """Bytes that all of them have."""
        return self._size

    @property
    def keeps(self) -> bool:
        """Whether anything is stored at all."""
        return self._most > 0

    def put(self, account: str, response_id: str, stored: StoredResponse) -> None:
        """Keep a response. One that is larger than all may be together is not kept."""
        self._expire()
        if not self.keeps or stored.size > self._most_bytes:
            return
        held = self._accounts.setdefault(account, _Account(OrderedDict()))
        held.responses[response_id] = (self._clock() + self._seconds, stored)
        held.items |= dict.fromkeys(stored.output, response_id)
        held.size += stored.size
        self._order[account, response_id] = None
        self._size += stored.size
        while self._size > self._most_bytes:
            self._drop_oldest(max(self._accounts, key=lambda name: self._accounts[name].size))
        while len(self._order) > self._most:
            self._drop_oldest(max(self._accounts, key=lambda name: len(self._accounts[name].responses)))

    def get(self, account: str, response_id: str) -> StoredResponse | None:
        """A response of this account's, if it is still there."""
        self._expire()
        held = self._accounts.get(account)
        found = held.responses.get(response_id) if held else None
        return found[1] if found else None

    def find(self, account: str, item_id: str) -> StoredResponse | None:
        """A response of this account's whose output has this item, if it is still there."""
        self._expire()
        held = self._accounts.get(account)
        response_id = held.items.get(item_id) if held else None
        return None if response_id is None else self.get(account, response_id)

    def delete(self, account: str, response_id: str) -> bool:
        """Forget a response; whether it was there."""
        if self.get(account, response_id) is None:
            return False
        self._drop(account, response_id)
        return True

    def _expire(self) -> None:
        now = self._clock()
        while self._order:
            account, response_id = next(iter(self._order))
            if self._accounts[account].responses[response_id][0] > now:
                return
            self._drop(account, response_id)

    def _drop_oldest(self, account: str) -> None:
        self._drop(account, next(iter(self._accounts[account].responses)))

    def _drop(self, account: str, response_id: str) -> None:
        held = self._accounts[account]
        _, stored = held.responses.pop(response_id)
        for item_id in stored.output:
            held.items.pop(item_id, None)
        held.size -= stored.size
        self._size -= stored.size
        del self._order[account, response_id]
        if not held.responses:
            del self._accounts[account]
