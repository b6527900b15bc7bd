"""Cells in host memory, under a byte limit: evicted prefixes, and those of sequences that wait to go on."""

from collections import OrderedDict
from dataclasses import dataclass

from inferno_runtime.backends.base import Saved
from inferno_runtime.engine.prefix_tree import PrefixTree


@dataclass(slots=True, eq=False)
class Entry:
    """The saved cells of one prefix."""

    tokens: list[int]
    adapter: int
    data: Saved

    def begins(self, tokens: list[int], adapter: int) -> bool:
        """Whether it is a prefix of these, as a whole."""
        return self.adapter == adapter and tokens[: len(self.tokens)] == self.tokens


class PrefixStore:
    """Keeps what slots held, the least recently used goes first."""

    def __init__(self, limit: int) -> None:
        """limit: bytes of saved cells; 0 keeps nothing."""
        self._limit = limit
        self._entries: OrderedDict[Entry, None] = OrderedDict()  # least recently used first
        self._tree: PrefixTree[Entry] = PrefixTree()
        self._aside = 0  # bytes that are not for prefixes
        self.used = 0  # bytes, with these

    def __len__(self) -> int:
        return len(self._entries)

    def fits(self, size: int) -> bool:
        """Whether something of `size` bytes would be kept at all."""
        return 0 < size <= self._limit - self._aside

    def put(self, tokens: list[int], adapter: int, data: Saved) -> None:
        """Keep a prefix; what is a prefix of it in turn is dropped, and so is what no longer fits."""
        if not self.fits(len(data)):
            return
        for entry in [entry for entry in self._entries if entry.begins(tokens, adapter)]:
            self._drop(entry)
        self._make_room(len(data))
        entry = Entry(tokens, adapter, data)
        self._entries[entry] = None
        self._tree.extend(entry, tokens, len(tokens), adapter)
        self.used += len(data)

    def longest(self, tokens: list[int], adapter: int, *, whole: bool) -> tuple[int, Entry | None]:
        """The longest prefix of `tokens` that is kept. whole: only entries that are prefixes of `tokens` themselves."""
        return self._tree.longest(
            tokens,
            adapter,
            lambda entry: entry.tokens,
            (lambda entry: entry.begins(tokens, adapter) and len(entry.tokens) < len(tokens))
            if whole
            else (lambda _: True),
        )

    def touch(self, entry: Entry) -> None:
        """Note that an entry was used."""
        self._entries.move_to_end(entry)

    def set_aside(self, size: int) -> bool:
        """Take so many bytes for what is kept elsewhere, and drop prefixes for it. False if there are not so many."""
        if not self.fits(size):
            return False
        self._make_room(size)
        self._aside += size
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        """Have bytes again that were set aside."""
        self._aside -= size
        self.used -= size

    def _make_room(self, size: int) -> None:
        while self.used + size > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry]
        self._tree.remove(entry)
        self.used -= len(entry.data)
