"""Sequences that follow a grammar, among others that do not. Tokens are ASCII characters here, and 0 ends a text."""

from typing import Any

import numpy as np
import pytest

from inferno_runtime.backends.base import MemoryTraits
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.request import FinishReason, Request, Sampling
from inferno_runtime.engine.sampling import Choice, History, sample
from tests.unit.engine.rig import Rig, expected, successor_in_circles

LETTERS = Constraint("start: /[a-c]{6}(x|yz)*/")
HOT = Sampling(temperature=1.5, top_k=0, top_p=1.0, seed=7)


def text(rig: Rig, request_id: int) -> str:
    return bytes(rig.said[request_id]).decode()


def test_neighbours_see_nothing_of_a_grammar() -> None:
    rig = Rig()
    rig.submit(1, [1, 2, 3], 12)
    rig.submit(2, [4, 5, 6], 12, constraint=LETTERS)
    rig.submit(3, [7, 8, 9], 12)
    rig.run()
    assert set(text(rig, 2)) <= set("abcxyz")
    for number, prompt in ((1, [1, 2, 3]), (3, [7, 8, 9])):
        assert rig.said[number] == expected(prompt, 12)


ENDS: dict[str, tuple[str, dict[str, Any], str, FinishReason]] = {
    "where it can only end": ('start: "abc"', {}, "abc", FinishReason.STOP),
    "with its last token": ('start: "abc"', {"max_tokens": 3}, "abc", FinishReason.STOP),
    "too late": ('start: "abc"', {"max_tokens": 2}, "ab", FinishReason.LENGTH),
    "before it begins": ('start: ""', {}, "", FinishReason.STOP),
    "though it is too short": ('start: "abc"', {"min_tokens": 5}, "abc", FinishReason.STOP),
    "though ends are ignored": ('start: "abc"', {"ignore_eos": True}, "abc", FinishReason.STOP),
    "not before it must": ("start: /a{0,4}/", {"ignore_eos": True}, "aaaa", FinishReason.STOP),
    "not before it may": ("start: /a{0,4}/", {"min_tokens": 2}, "aa", FinishReason.STOP),
}


@pytest.mark.parametrize(("lark", "options", "said", "reason"), ENDS.values(), ids=ENDS)
def test_a_text_ends(lark: str, options: dict[str, Any], said: str, reason: FinishReason) -> None:
    rig = Rig(choose=lambda tokens, size: 0)  # a model that wants to end
    rig.submit(1, [1, 2, 3], **{"max_tokens": 8, **options}, constraint=Constraint(lark))
    rig.run()
    assert (text(rig, 1), rig.finished[1].reason) == (said, reason)


def alone(**options: Any) -> list[int]:
    rig = Rig(**options)
    rig.scheduler.submit(Request(9, [1, 2, 3], 30, HOT, constraint=LETTERS))
    rig.run()
    return rig.said[9]


def test_drafts_change_nothing() -> None:
    texts = []
    for speculate in (False, True):
        rig = Rig(slots=4, context=400, max_batch=64, speculate=speculate, choose=successor_in_circles)
        rig.batch_seconds = 0.02
        form = Constraint("start: /([\\x01-\\x04]{1,9}[\\x05-\\x07]?)*/")
        for number in range(3):
            rig.submit(number, [number + 1, 2, 3], 120, constraint=form if number else None)
        rig.run()
        texts.append([rig.said[number] for number in range(3)])
        assert bool(rig.scheduler.speculation.accepted) is speculate
    assert texts[0] == texts[1]


@pytest.mark.parametrize("speculate", [False, True])
def test_batches_of_adapters(speculate: bool) -> None:
    """Two sequences of each adapter, one of them by a grammar, say what they say alone."""
    shape: dict[str, Any] = {"context": 400, "max_batch": 64, "adapters": 2, "choose": successor_in_circles}
    form = Constraint("start: /([\\x01-\\x04]{1,9}[\\x05-\\x07]?)*/")
    asked = {(adapter, by): [7 + adapter, 2, 3] for adapter in range(3) for by in (None, form)}
    rig = Rig(slots=6, speculate=speculate, **shape)
    rig.batch_seconds = 0.02
    for number, ((adapter, by), prompt) in enumerate(asked.items()):
        rig.submit(number, prompt, 100, adapter=adapter, constraint=by)
    rig.run()
    assert {len({span.adapter for span in call}) for call in rig.calls} == {1}
    assert bool(rig.scheduler.speculation.accepted) is speculate
    for number, ((adapter, by), prompt) in enumerate(asked.items()):
        alone = Rig(slots=1, **shape)
        alone.submit(number, prompt, 100, adapter=adapter, constraint=by)
        alone.run()
        assert rig.said[number] == alone.said[number]
        if by is None:
            assert rig.said[number] == expected(prompt, 100, choose=successor_in_circles, adapter=adapter)


def test_a_draft_may_pass_an_end() -> None:
    """The prompt repeats an end token, which the grammar allows there, and nothing behind it."""
    rig = Rig(slots=1, context=400, speculate=True, choose=lambda tokens, size: tokens[-3])
    rig.batch_seconds = 0.02
    prompt = [97, 98, 0] * 20 + [97, 98]
    rig.submit(1, prompt, 20, constraint=Constraint("start: /(b|a)*/"), ignore_eos=True)
    rig.submit(2, prompt, 20, constraint=Constraint("start: /(b|a)*/"))
    rig.run()
    assert len(rig.said[1]) == 20
    assert set(text(rig, 1)) <= {"a", "b"}
    assert (rig.said[2], rig.finished[2].reason) == ([], FinishReason.STOP)


def test_a_preempted_text_goes_on_where_it_was() -> None:
    pool = MemoryTraits(copy=True, cut=True, save=False, shift=False, shared=True)
    rig = Rig(slots=4, context=200, cells=150, memory=pool)
    for number in range(4):
        rig.scheduler.submit(Request(number, [number + 1] * 10, 80, HOT, ignore_eos=True, constraint=LETTERS))
    rig.run()
    assert rig.scheduler.preemptions
    for number in range(4):
        single = Rig(slots=1, context=200)
        single.scheduler.submit(Request(number, [number + 1] * 10, 80, HOT, ignore_eos=True, constraint=LETTERS))
        single.run()
        assert rig.said[number] == single.said[number]


def test_a_paused_text_goes_on_where_it_was() -> None:
    rig = Rig(slots=1)
    rig.scheduler.submit(Request(9, [1, 2, 3], 30, HOT, constraint=LETTERS))
    while len(rig.said[9]) < 4:
        rig.step()
    rig.scheduler.pause(9)
    rig.submit(2, [4, 5, 6], 5)  # takes its slot
    rig.run()
    rig.scheduler.resume(9)
    rig.run()
    assert rig.said[9] == alone()


def test_a_batch_that_fails_is_evaluated_one_by_one() -> None:
    rig = Rig()
    rig.submit(1, [1, 2, 3], 8, constraint=LETTERS)
    rig.submit(2, [4, 5, 6], 8, constraint=LETTERS)
    while len(rig.said[1]) < 2 or len(rig.said[2]) < 2:
        rig.step()
    rig.fail_slots = {0}
    rig.step()
    rig.fail_slots = set()
    rig.run()
    reasons = {rig.finished[1].reason, rig.finished[2].reason}
    assert FinishReason.ERROR in reasons
    assert len(reasons) == 2


BROKEN = {
    "one that does not compile": "start: /a[/",
    "one that grows too large under way": "start: b{1,1000}\nb: a{1,1000}\na: /[a-z]/ | /[a-y]/",
}


@pytest.mark.parametrize("lark", BROKEN.values(), ids=BROKEN)
def test_a_grammar_that_fails_fails_its_own_text(lark: str) -> None:
    rig = Rig(context=256)
    rig.submit(1, [1, 2, 3], 12)
    rig.submit(2, [4, 5, 6], 200, constraint=Constraint(lark), ignore_eos=True)
    rig.submit(3, [7, 8, 9], 12, constraint=LETTERS)
    rig.run()
    assert rig.finished[2].reason is FinishReason.ERROR
    assert "grammar" in (rig.finished[2].error or "")
    assert rig.said[1] == expected([1, 2, 3], 12)
    assert rig.finished[3].reason is not FinishReason.ERROR


def test_nobody_waits_for_anothers_grammar() -> None:
    rig = Rig(slots=1)
    many = " | ".join(f'"{number:05}"' for number in range(20_000))  # takes some 100 ms to compile
    rig.submit(1, [1, 2, 3], 8, constraint=Constraint(f"start: {many}"))
    rig.submit(2, [4, 5, 6], 8)
    rig.run()
    assert text(rig, 1).isdecimal()
    assert list(rig.finished) == [2, 1]


@pytest.mark.parametrize(
    ("allowed", "banned", "chosen"),
    [([1, 2], (), 2), ([1, 2], (2,), 1), ([2], (2,), 2), ([0, 9], (), 9), ([], (), None)],
)
def test_a_mask_goes_before_all_else(allowed: list[int], banned: tuple[int, ...], chosen: int | None) -> None:
    """The mask has a bit less than there are logits: what it does not speak of is not allowed."""
    bits = np.zeros(16, dtype=np.uint8)
    bits[allowed] = 1
    logits = np.arange(17, dtype=np.float32)[None]
    sampling = Sampling(temperature=0, logit_bias=((12, 100.0),), repeat_penalty=1.5)
    choice = Choice(sampling, History([1, 2], 1), (), banned, np.packbits(bits, bitorder="little"))
    (token,) = sample(logits, [choice])
    assert token == chosen if chosen is not None else isinstance(token, Exception)
