"""What is not evaluated twice: a slot's own prefix, another slot's, and the store's."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.backends.fake import cell
from inferno_runtime.engine.prefix_tree import BLOCK, PrefixTree
from inferno_runtime.engine.request import FinishReason
from inferno_runtime.engine.store import PrefixStore
from tests.unit.engine.rig import Rig, expected, successor_in_circles

LONG = [(i * 7) % 120 + 1 for i in range(10 * BLOCK)]
PLENTY: dict[str, Any] = {"context": 1000, "max_batch": 512}


def traits(**change: Any) -> MemoryTraits:
    return MemoryTraits(**{"copy": True, "cut": True, "save": True, "shift": False, "cell_bytes": 4, **change})


def test_a_conversation_goes_on_in_its_slot() -> None:
    rig = Rig(slots=2, **PLENTY)
    rig.submit(1, LONG, max_tokens=5)
    rig.run()
    before = rig.evaluated
    turn = LONG + rig.said[1] + [99, 98]
    rig.submit(2, turn, max_tokens=3)
    rig.run()
    assert rig.started[2].cached_tokens == len(LONG) + 4  # the last token said was never evaluated
    assert rig.evaluated - before == 3 + 2
    assert rig.said[2] == expected(turn, 3)


def test_the_same_prompt_again_evaluates_one_token() -> None:
    rig = Rig(slots=1, **PLENTY)
    rig.submit(1, LONG, max_tokens=1)
    rig.submit(2, LONG, max_tokens=1)
    rig.run()
    assert rig.started[2].cached_tokens == len(LONG) - 1
    assert rig.said[1] == rig.said[2] == expected(LONG, 1)


def test_a_running_sequence_lends_its_prefix() -> None:
    rig = Rig(slots=2, **PLENTY)
    rig.submit(1, [*LONG, 1], max_tokens=50)
    while not rig.started:
        rig.step()
    rig.submit(2, [*LONG, 2], max_tokens=3)
    rig.run()
    assert rig.started[2].cached_tokens == len(LONG)
    assert rig.said[2] == expected([*LONG, 2], 3)
    assert rig.said[1] == expected([*LONG, 1], 50)


def test_requests_that_come_together_compute_their_prefix_once() -> None:
    rig = Rig(slots=8, budget=0.04, **PLENTY)
    for request_id in range(8):
        rig.submit(request_id, [*LONG, request_id + 1, 5, 6], max_tokens=4)
    rig.submit(100, [77, 78], max_tokens=4)  # another that shares nothing is not held up by those who wait
    while not rig.started:
        rig.step()
    assert 100 in rig.started
    rig.run()
    assert rig.evaluated <= len(LONG) + 9 * (3 + 4) + 7 * BLOCK // 2  # the last few are not worth waiting for
    cached = sorted(started.cached_tokens for started in rig.started.values())
    assert cached[:2] == [0, 0]
    assert cached[2] >= len(LONG) - BLOCK // 2
    for request_id in range(8):
        assert rig.said[request_id] == expected([*LONG, request_id + 1, 5, 6], 4)


def test_followers_go_on_when_their_leader_is_cancelled() -> None:
    rig = Rig(slots=4, budget=0.02, **PLENTY)
    for request_id in range(3):
        rig.submit(request_id, [*LONG, request_id + 1], max_tokens=4)
    rig.step()
    rig.scheduler.cancel(0)
    rig.run()
    for request_id in (1, 2):
        assert rig.said[request_id] == expected([*LONG, request_id + 1], 4)


def test_more_conversations_than_slots_come_back_from_the_store() -> None:
    rig = Rig(slots=2, store_bytes=1 << 20, **PLENTY)
    talks = {i: [i + 1] * (3 * BLOCK) for i in range(6)}
    for turn in range(3):
        for i, talk in talks.items():
            request_id = turn * 10 + i
            rig.submit(request_id, list(talk), max_tokens=4)
            rig.run()
            if turn:
                assert rig.started[request_id].cached_tokens == len(talk) - 3  # all but the last word and the question
            talk += [*rig.said[request_id], 50 + i, 60 + i]
            assert rig.said[request_id] == expected(talk[: -len(rig.said[request_id]) - 2], 4)


def test_the_store_keeps_to_its_limit_and_drops_the_oldest() -> None:
    store = PrefixStore(100)
    for name in range(5):
        store.put([name] * (2 * BLOCK), 0, bytes(30))
    assert (len(store), store.used) == (3, 90)
    assert store.longest([0] * 40, 0, whole=False) == (0, None)
    length, entry = store.longest([2] * 40, 0, whole=False)
    assert length == 2 * BLOCK
    assert entry is not None
    store.touch(entry)
    store.put([9] * (2 * BLOCK), 0, bytes(30))
    assert store.longest([2] * 40, 0, whole=False)[1] is entry
    assert store.longest([3] * 40, 0, whole=False)[1] is None
    store.put([8] * 64, 0, bytes(101))  # too large to keep at all
    assert store.used == 90
    store.put([2] * (3 * BLOCK), 0, bytes(40))  # the longer one takes the shorter one's place
    assert store.used <= 100
    assert store.longest([2] * 40, 0, whole=False)[0] == 40


def test_another_conversation_with_the_same_beginning_is_not_lost() -> None:
    rig = Rig(slots=1, store_bytes=1 << 20, **PLENTY)
    first, second = LONG + [1] * 40, LONG + [2] * 40
    for request_id, prompt in enumerate((first, second, first, second)):
        rig.submit(request_id, prompt, max_tokens=2)
        rig.run()
        assert rig.said[request_id] == expected(prompt, 2)
    assert [rig.started[i].cached_tokens for i in range(4)] == [0, len(LONG), len(first) - 1, len(first) - 1]


@pytest.mark.parametrize("save", [True, False])
def test_memory_that_cannot_be_cut_is_reused_only_where_it_fits_as_it_is(save: bool) -> None:
    rig = Rig(slots=2, store_bytes=1 << 20, memory=traits(cut=False, save=save), **PLENTY)
    rig.submit(1, LONG, max_tokens=3)
    rig.run()
    turn = LONG + rig.said[1] + [9]
    rig.submit(2, turn, max_tokens=2)  # goes on exactly where the slot stands
    rig.run()
    assert rig.started[2].cached_tokens == len(LONG) + 2
    rig.submit(3, [*LONG, 5], max_tokens=2)  # would need the slot cut
    rig.run()
    assert rig.started[3].cached_tokens == 0
    assert rig.said[2] == expected(turn, 2)
    assert rig.said[3] == expected([*LONG, 5], 2)


def in_pairs(slots: Sequence[int]) -> int:
    return -(-len(slots) // 2) * 2


def in_pairs_and_with_holes(slots: Sequence[int]) -> int:
    return in_pairs(range(slots[0], slots[-1] + 1))


@pytest.mark.parametrize(
    ("columns", "ended", "slots"),
    [
        (None, (1, 3), [0, 1, 2, 3]),
        (len, (1, 3), [0, 2, 4, 5]),
        (in_pairs_and_with_holes, (1,), [0, 2, 3, 4, 5]),
        (in_pairs_and_with_holes, (1, 3), [0, 1, 2, 3]),
    ],
    ids=["holes are computed", "holes cost nothing", "one move spares nothing", "two moves spare a pair"],
)
def test_holes_are_closed_where_the_batch_gets_faster_by_it(
    columns: Callable[[Sequence[int]], int] | None,
    ended: tuple[int, ...],
    slots: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(slots=6, **PLENTY)
    if columns is not None:
        monkeypatch.setattr(rig.backend, "columns", columns)
    for request_id in range(6):
        rig.submit(request_id, [request_id + 1] * 4, max_tokens=3 if request_id in ended else 200)
    while len(rig.finished) < len(ended):
        rig.step()
    for _ in range(4):
        rig.step()
    assert sorted(span.slot for span in rig.calls[-1]) == slots
    rig.run()
    for request_id, (prompt, count) in rig.prompts.items():
        assert rig.said[request_id] == expected(prompt, count)


FULL: dict[str, Any] = {"slots": 4, "context": 200, "max_batch": 200, "cells": 150}


@pytest.mark.parametrize("store_bytes", [0, 100, 1 << 20], ids=["none are saved", "some are saved", "all are saved"])
def test_a_pool_that_is_full_preempts_the_youngest_and_nobody_sees_it(store_bytes: int) -> None:
    rig = Rig(store_bytes=store_bytes, memory=traits(shared=True), **FULL)
    for request_id in range(4):
        rig.submit(request_id, [request_id + 1] * 10, max_tokens=80)
    rig.run()
    assert rig.scheduler.preemptions > 0
    assert all(finished.error is None for finished in rig.finished.values())
    for request_id, (prompt, count) in rig.prompts.items():
        assert rig.said[request_id] == expected(prompt, count)


def test_what_is_preempted_goes_on_from_its_own_cells() -> None:
    rig = Rig(store_bytes=1 << 20, memory=traits(shared=True), **FULL)
    for request_id in range(4):
        rig.submit(request_id, [request_id + 1] * 10, max_tokens=80)
    rig.run()
    assert rig.scheduler.preemptions > 0
    computed = [(span.tokens, span.start) for call in rig.calls for span in call if len(span.tokens) > 1]
    assert computed == [([request_id + 1] * 10, 0) for request_id in range(4)]  # nothing but the prompts, and once


def test_what_was_set_aside_for_a_sequence_goes_with_it() -> None:
    rig = Rig(store_bytes=1 << 20, memory=traits(shared=True), **FULL)
    for request_id in range(4):
        rig.submit(request_id, [request_id + 1] * 10, max_tokens=80)
    while not rig.scheduler.preemptions:
        rig.step()
    assert rig.scheduler.store_bytes > 0
    for request_id in range(4):
        rig.scheduler.cancel(request_id)
    rig.run()
    assert rig.scheduler.store_bytes == 0


def test_what_is_set_aside_takes_the_place_of_prefixes() -> None:
    store = PrefixStore(100)
    store.put([1] * (2 * BLOCK), 0, bytes(60))
    assert store.set_aside(30)
    assert (len(store), store.used) == (1, 90)
    assert store.set_aside(40)
    assert (len(store), store.used) == (0, 70)
    assert not store.set_aside(31)
    store.put([1] * (2 * BLOCK), 0, bytes(31))
    assert (len(store), store.used) == (0, 70)
    store.give_back(70)
    assert store.used == 0


def test_a_saved_prefix_takes_the_place_of_what_the_slot_has_of_it() -> None:
    rig = Rig(slots=1, store_bytes=1 << 20, context=200, max_batch=200, cells=200, memory=traits(shared=True))
    first, second = LONG[: 4 * BLOCK] + [1] * 100, LONG[: 4 * BLOCK] + [2] * 60
    for request_id, prompt in enumerate((first, second, first)):
        rig.submit(request_id, prompt, max_tokens=2)
        rig.run()
        assert rig.said[request_id] == expected(prompt, 2)
    assert [rig.started[i].cached_tokens for i in range(3)] == [0, 4 * BLOCK, len(first) - 1]


def test_a_request_that_no_pool_could_hold_fails_alone() -> None:
    rig = Rig(slots=2, context=200, max_batch=200, cells=60, memory=traits(shared=True))
    rig.submit(1, [1] * 10, max_tokens=150)
    rig.run()
    assert rig.finished[1].reason is FinishReason.NO_MEMORY
    assert "memory" in (rig.finished[1].error or "")
    rig.submit(2, [2] * 10, max_tokens=20)
    rig.run()
    assert rig.said[2] == expected([2] * 10, 20)


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 2), max_size=80)), max_size=12))
def test_the_tree_finds_what_a_search_of_all_finds(changes: list[tuple[int, list[int]]]) -> None:
    tree: PrefixTree[int] = PrefixTree()
    held: dict[int, list[int]] = {}
    for holder, tokens in changes:
        tree.remove(holder)
        tree.extend(holder, tokens, len(tokens), adapter=0)
        held[holder] = tokens
        cut = len(tokens) // 2 if holder % 2 else len(tokens)
        tree.cut(holder, cut)
        held[holder] = tokens[:cut]
    for _, tokens in changes:
        found, holder_found = tree.longest(tokens, 0, held.__getitem__)
        lengths = {
            other: next(
                (i for i, (a, b) in enumerate(zip(tokens, kept, strict=False)) if a != b), min(len(tokens), len(kept))
            )
            for other, kept in held.items()
        }
        best = max(lengths.values(), default=0)
        if best >= BLOCK:
            assert found // BLOCK == best // BLOCK
            assert holder_found is not None
            assert lengths[holder_found] >= found
        else:
            assert (found, holder_found) == (0, None)


PROMPTS = st.builds(
    lambda shared, own, tail: LONG[: shared * BLOCK] + [own] * tail,
    st.integers(0, 6),
    st.integers(1, 4),
    st.integers(1, 40),
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.tuples(PROMPTS, st.integers(0, 2)), st.integers(1, 30)),
        st.tuples(st.sampled_from(["cancel", "pause", "resume"]), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 6), st.just(0)),
        st.tuples(st.just("fail"), st.integers(0, 3), st.just(0)),
    ),
    max_size=40,
)
MEMORIES = st.builds(traits, cut=st.booleans(), copy=st.booleans(), save=st.booleans(), shared=st.booleans())


@settings(max_examples=300, deadline=None)
@given(
    actions=ACTIONS,
    memory=MEMORIES,
    store=st.sampled_from([0, 300, 1 << 20]),
    slots=st.integers(1, 4),
    speculate=st.booleans(),
    adapters=st.integers(0, 2),
)
def test_whatever_happens_nothing_is_lost_and_the_text_is_right(
    actions: list[tuple[str, Any, int]], memory: MemoryTraits, store: int, slots: int, speculate: bool, adapters: int
) -> None:
    cells = 260 if memory.shared else 0
    shape: dict[str, Any] = {"slots": slots, "context": 240, "max_batch": 64, "memory": memory, "cells": cells}
    rig = Rig(
        budget=0.03, store_bytes=store, speculate=speculate, choose=successor_in_circles, adapters=adapters, **shape
    )
    asked: dict[int, int] = {}  # adapter by request
    rig.batch_seconds = 0.004  # so that a larger batch is cheaper by the token, and drafts pay
    for kind, value, count in actions:
        if kind == "submit":
            prompt, adapter = value
            asked[len(rig.prompts)] = adapter = min(adapter, adapters)
            rig.submit(len(rig.prompts), prompt, max_tokens=count, adapter=adapter)
        elif kind in ("cancel", "pause", "resume"):
            getattr(rig.scheduler, kind)(value)
        elif kind == "fail":
            rig.fail_slots = {value}
            if rig.scheduler.busy:
                rig.step()
            rig.fail_slots = set()
        else:
            for _ in range(value):
                if rig.scheduler.busy:
                    rig.step()
    rig.run()  # as far as it goes without the paused ones
    for request_id in rig.prompts:
        rig.scheduler.resume(request_id)
    rig.run()
    assert set(rig.finished) == set(rig.prompts)
    for request_id, (prompt, count) in rig.prompts.items():
        said = rig.said[request_id]
        right = expected(prompt, count, choose=successor_in_circles, adapter=asked[request_id])
        if rig.finished[request_id].reason is FinishReason.LENGTH:
            assert said == right
        else:
            assert said == right[: len(said)]
            assert rig.finished[request_id].reason in (
                FinishReason.CANCELLED,
                FinishReason.ERROR,
                FinishReason.NO_MEMORY,
            )
    assert (rig.scheduler.active, rig.scheduler.queued, rig.scheduler.cells_used) == (0, 0, 0)
    for number, slot in enumerate(rig.scheduler._slots._slots):
        assert slot.owner is None
        kept = [cell(token, slot.adapter, 128) for token in slot.tokens]
        assert kept == rig.backend.held[number], "the table and the memory differ"
