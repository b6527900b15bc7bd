"""Which slot a sequence gets, and what of its prompt need not be evaluated again.

A slot keeps its cells when its sequence ends. A prompt's beginning is looked for in three places: in the slot itself, in
another slot, running or not, and in the store of what slots held before they were given to others. What is found is
used where moving it costs less than evaluating it. What was evaluated with one adapter is of no use to another.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from inferno_runtime.backends.base import Backend, BackendError
from inferno_runtime.engine.cost import PrefillCost
from inferno_runtime.engine.images import settled
from inferno_runtime.engine.prefix_tree import BLOCK, PrefixTree
from inferno_runtime.engine.sequence import Sequence
from inferno_runtime.engine.store import Entry, PrefixStore

_COPY_RATE = 3e9  # bytes a second, through host memory and back: on the slow side
_WORTH_WAITING = BLOCK // 2  # tokens that a leader must spare a follower
_WORTH_SAVING = 2 * BLOCK  # tokens


@dataclass(slots=True)
class Slot:
    """A slot and what its cells hold: `tokens` when it is free, and its owner's otherwise."""

    number: int
    owner: Sequence | None = None
    tokens: list[int] = field(default_factory=list)
    adapter: int = 0  # that the cells were evaluated with

    @property
    def held(self) -> list[int]:
        """The tokens in the cells."""
        return self.tokens if self.owner is None else self.owner.tokens[: self.owner.position]


class SlotTable:
    """Gives slots to sequences and takes them back."""

    def __init__(self, backend: Backend, cost: PrefillCost, store: PrefixStore) -> None:
        self._backend = backend
        self._cost = cost
        self._store = store
        self._slots = [Slot(number) for number in range(backend.slots)]
        self._tree: PrefixTree[int] = PrefixTree()  # of slots, by number
        self._leaders: PrefixTree[int] = PrefixTree()  # slots whose owner is still evaluating its prompt, by all of it

    @property
    def free(self) -> int:
        """Slots that nobody owns."""
        return sum(slot.owner is None for slot in self._slots)

    @property
    def retained(self) -> int:
        """Cells that free slots hold for whoever may come with the same prefix."""
        return sum(len(slot.tokens) for slot in self._slots if slot.owner is None)

    @property
    def store_bytes(self) -> int:
        """Bytes that the store holds."""
        return self._store.used

    def acquire(self, seq: Sequence) -> bool:
        """Give `seq` a slot that holds as much of its tokens as pays; there must be a free one.

        Returns False where another sequence is just evaluating the prefix that this one needs: it had better wait.
        """
        if seq.aside is not None and self._take_up(seq, seq.aside):
            return True
        usable = seq.reusable
        held, source = self._longest_slot(usable, seq.adapter)
        held = self._settled(held, seq)
        saved, entry = self._store.longest(usable, seq.adapter, whole=not self._backend.memory.cut)
        saved = self._settled(saved, seq)
        target = min(slot.number for slot in self._slots if slot.owner is None)
        if entry is not None and not (self._fits(entry, target) and self._pays(saved, len(entry.tokens))):
            saved, entry = 0, None
        if self._wait_pays(usable, seq.adapter, max(held, saved)):
            return False
        dense = max((slot.number for slot in self._slots if slot.owner is not None), default=-1) + 1
        if source is not None and source.owner is None and held >= saved and source.number <= max(dense, target):
            if len(source.tokens) - held >= _WORTH_SAVING:
                self._save(source)  # another conversation, which only begins like this one
            target, held = source.number, self._cut(source.number, held)
        elif entry is not None and saved >= held:
            self._store.touch(entry)
            self._vacate(target)
            held = self._cut(target, saved) if self._backend.restore(target, entry.data) else 0
        elif source is not None and self._copy_pays(source, target, held):
            self._vacate(target)
            held = self._cut(target, held) if self._backend.copy(source.number, target) else 0
        else:
            self._vacate(target)
            held = 0
        if not held:
            self._backend.clear(target)
        self._own(self._slots[target], seq, held)
        return True

    def set_aside(self, seq: Sequence) -> None:
        """Save the cells of a sequence that is about to give its slot up, if there is room for them.

        Evaluated again they would not be the same to the last bit, since prompts are added up in another order than single
        tokens are, and so the text might become another.
        """
        if (
            seq.position
            and self._backend.memory.save
            and self._store.fits(seq.position * self._backend.memory.cell_bytes)
        ):
            data = self._backend.save(seq.slot)
            if data is not None and self._store.set_aside(len(data)):
                seq.aside = Entry(seq.tokens[: seq.position], seq.adapter, data)

    def forget_aside(self, seq: Sequence) -> None:
        """Give up what was set aside for a sequence."""
        if seq.aside is not None:
            self._store.give_back(len(seq.aside.data))
            seq.aside = None

    def index(self, seq: Sequence) -> None:
        """Note how far a sequence has come, so that others find what it has."""
        self._tree.extend(seq.slot, seq.tokens, seq.position, seq.adapter)
        seq.indexed = seq.position

    def prefilled(self, seq: Sequence) -> None:
        """Note that nobody need wait for this sequence's prompt any more."""
        self._leaders.remove(seq.slot)
        self.index(seq)

    def release(self, seq: Sequence, *, sound: bool = True) -> None:
        """Take a slot back. Its cells stay, unless a failed evaluation left them in doubt."""
        slot = self._slots[seq.slot]
        self._leaders.remove(slot.number)
        slot.tokens = seq.tokens[: seq.position]
        slot.owner = None
        if sound:
            self._tree.extend(slot.number, slot.tokens, len(slot.tokens), slot.adapter)
        else:
            self.forget(slot)

    def forget(self, slot: Slot) -> None:
        """Clear a free slot."""
        self._tree.remove(slot.number)
        slot.tokens = []
        self._backend.clear(slot.number)

    def forget_retained(self) -> bool:
        """Give up what free slots hold, when memory is short. Returns whether there was anything."""
        slots = [slot for slot in self._slots if slot.owner is None and slot.tokens]
        for slot in slots:
            self.forget(slot)
        return bool(slots)

    def compact(self, running: Iterable[Sequence], step_seconds: float) -> None:
        """Move the running sequence with the highest slot into the lowest hole, if the rest of its life is worth it.

        As many moves as the batch gets faster by are weighed together, and one of them is made, so that no step waits for all.
        """
        if not self._backend.memory.copy:
            return
        holes = [slot.number for slot in self._slots if slot.owner is None]
        if not holes:
            return
        highest = sorted(running, key=lambda seq: -seq.slot)
        moves = [(seq, hole) for seq, hole in zip(highest, holes, strict=False) if hole < seq.slot]
        if not moves:
            return
        before = self._backend.columns(sorted(seq.slot for seq in highest))
        after = self._backend.columns(sorted([hole for _, hole in moves] + [seq.slot for seq in highest[len(moves) :]]))
        seq, hole = moves[0]
        spared = step_seconds * (1 - after / before) * seq.remaining
        if spared > 4 * sum(self._move_seconds(mover.position) for mover, _ in moves):
            self._move(seq, hole)

    def _move(self, seq: Sequence, hole: int) -> None:
        self._vacate(hole)
        if not self._backend.copy(seq.slot, hole):
            self._backend.clear(hole)
            return
        left = self._slots[seq.slot]
        left.owner, left.tokens = None, seq.tokens[: seq.position]
        self._own(self._slots[hole], seq, seq.position)
        self._leaders.remove(hole)  # it is past its prompt

    def _take_up(self, seq: Sequence, aside: Entry) -> bool:
        """Give a sequence a slot with the cells that were set aside for it. False if there is no room for them."""
        target = min(slot.number for slot in self._slots if slot.owner is None)
        fits = self._fits(aside, target) or (self.forget_retained() and self._fits(aside, target))
        if fits:
            self._vacate(target)
            fits = self._backend.restore(target, aside.data)
        if fits:
            self._own(self._slots[target], seq, len(aside.tokens))
        self.forget_aside(seq)
        return fits

    def _own(self, slot: Slot, seq: Sequence, held: int) -> None:
        slot.owner, slot.tokens, slot.adapter = seq, [], seq.adapter
        seq.slot, seq.position = slot.number, held
        self._tree.extend(slot.number, seq.tokens, held, seq.adapter)
        seq.indexed = held
        self._leaders.extend(slot.number, seq.tokens, len(seq.tokens), seq.adapter)

    def _longest_slot(self, tokens: list[int], adapter: int) -> tuple[int, Slot | None]:
        def accept(number: int) -> bool:
            held = self._slots[number].held
            return self._backend.memory.cut or tokens[: len(held)] == held

        length, number = self._tree.longest(tokens, adapter, lambda number: self._slots[number].held, accept)
        return length, None if number is None else self._slots[number]

    def _settled(self, length: int, seq: Sequence) -> int:
        """How much of a prefix can be used: nothing ends in the middle of a part of an image."""
        whole = settled(length, seq.request.images)
        return whole if whole == length or self._backend.memory.cut else 0

    def _wait_pays(self, tokens: list[int], adapter: int, have: int) -> bool:
        """Whether a sequence in prefill will soon hold much more of this prompt than anybody does now."""
        if not (self._backend.memory.copy and self._backend.memory.cut):
            return False  # what the leader holds could not be used: it will not be exactly what is shared
        promised, leader = self._leaders.longest(
            tokens, adapter, lambda number: owner.tokens if (owner := self._slots[number].owner) else []
        )
        owner = self._slots[leader].owner if leader is not None else None
        return owner is not None and promised - have >= _WORTH_WAITING and owner.position < promised

    def _copy_pays(self, source: Slot, target: int, held: int) -> bool:
        return self._backend.memory.copy and source.number != target and self._pays(held, len(source.held))

    def _fits(self, entry: Entry, target: int) -> bool:
        """Whether there are cells for a saved prefix beside what the other slots hold."""
        if not self._backend.memory.shared:
            return True
        others = sum(len(slot.held) for slot in self._slots if slot.number != target)
        return others + len(entry.tokens) <= self._backend.cells

    def _pays(self, spared: int, moved: int) -> bool:
        return self._move_seconds(moved) < self._cost.seconds(spared, 0)

    def _move_seconds(self, cells: int) -> float:
        if self._backend.memory.shared:
            return 0.0
        return 1e-4 + 2 * cells * self._backend.memory.cell_bytes / _COPY_RATE

    def _cut(self, number: int, count: int) -> int:
        """Shorten a slot to `count` cells, and return how many it has. What cannot be cut was chosen to fit as it is."""
        self._tree.cut(number, count)
        if self._backend.memory.cut:
            try:
                self._backend.cut(number, count)
            except BackendError:
                return 0
        return count

    def _vacate(self, number: int) -> None:
        """Empty a free slot; what it holds goes to the store."""
        self._save(self._slots[number])
        self._tree.remove(number)
        self._slots[number].tokens = []

    def _save(self, slot: Slot) -> None:
        """Put what a free slot holds into the store, unless it is little, or to be had elsewhere."""
        tokens, memory = slot.tokens, self._backend.memory
        if len(tokens) < _WORTH_SAVING or not memory.save or not self._store.fits(len(tokens) * memory.cell_bytes):
            return
        if not self._tree.shared(slot.number) and (data := self._backend.save(slot.number)) is not None:
            self._store.put(tokens, slot.adapter, data)
