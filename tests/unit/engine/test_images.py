"""Images in prompts: evaluated in their place, found again, and never taken for others."""

import hashlib
from typing import Any

import pytest

from inferno_runtime.backends.base import BackendError, Image, Layout, MemoryTraits
from inferno_runtime.backends.fake import FakeVision, seen
from inferno_runtime.engine.images import Chunk, Gallery, ids, piece, place, settled
from inferno_runtime.engine.prefix_tree import BLOCK
from inferno_runtime.engine.request import FinishReason
from inferno_runtime.engine.sampling import History
from tests.unit.engine.rig import Rig, expected

LAYOUT: Layout = [[7], 24, [8, 9], 12, [8]]


def image(name: str) -> Image:
    return Image(hashlib.sha256(name.encode()).digest(), 4, 4, "")


def prompt(*parts: list[int] | Image, layout: Layout = LAYOUT) -> tuple[list[int], tuple[Chunk, ...], list[int]]:
    """Tokens, the chunks among them, and what the fake model sees in their place."""
    tokens: list[int] = []
    chunks: list[Chunk] = []
    visible: list[int] = []
    for part in parts:
        if isinstance(part, list):
            tokens += part
            visible += part
            continue
        more, placed = place(part, layout, len(tokens))
        tokens += more
        chunks += placed
        number = 0
        for piece_ in layout:
            if isinstance(piece_, list):
                visible += piece_
            else:
                visible += seen(part.digest, number, piece_)
                number += 1
    return tokens, tuple(chunks), visible


class Seeing:
    """A rig whose model reads images, with a record of what was encoded."""

    def __init__(self, *, whole: bool = False, layout: Layout = LAYOUT, **options: Any) -> None:
        self.encoded: list[tuple[bytes, int]] = []
        self.error: BackendError | None = None
        vision = FakeVision(layout, whole=whole, on_encode=self._on_encode)
        self.rig = Rig(**{"context": 512, "vision": vision, **options})
        self.layout = layout

    def _on_encode(self, shown: Image, chunk: int) -> None:
        self.encoded.append((shown.digest, chunk))
        self.rig.now += 1.0
        if self.error is not None:
            raise self.error

    def ask(self, number: int, *parts: list[int] | Image, max_tokens: int = 8) -> list[int]:
        """Submit a prompt; returns what must be said to it."""
        tokens, chunks, visible = prompt(*parts, layout=self.layout)
        self.rig.submit(number, tokens, max_tokens, images=chunks)
        return expected(visible, max_tokens)


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({}, False),
        ({}, True),
        ({"max_batch": 24}, True),
        ({"max_batch": 16}, False),
        ({"budget": 0.001}, False),
        ({"budget": 0.001}, True),
        ({"speculate": True}, False),
        ({"memory": MemoryTraits(copy=True, cut=False, save=True, shift=False, cell_bytes=4)}, True),
        ({"memory": MemoryTraits(copy=True, cut=True, save=True, shift=False, shared=True), "cells": 150}, False),
    ],
    ids=["plain", "whole", "whole-small", "pieces", "slow", "slow-whole", "drafts", "uncuttable", "pool"],
)
def test_what_is_said_follows_from_what_is_seen(options: dict[str, Any], whole: bool) -> None:
    seeing = Seeing(whole=whole, **options)
    cat, dog = image("cat"), image("dog")
    wanted = {
        1: seeing.ask(1, [1, 2, 3], cat, [4, 5]),
        2: seeing.ask(2, [1, 2, 3], dog, [4, 5]),
        3: seeing.ask(3, [1, 2], cat, [3], dog, [4, 5]),
        4: seeing.ask(4, [6] * 40),
        5: seeing.ask(5, dog, [4, 5], cat, [1]),
    }
    seeing.rig.run()
    assert {number: seeing.rig.said[number] for number in wanted} == wanted


def test_an_image_is_encoded_once_and_its_cells_are_found_again() -> None:
    seeing = Seeing()
    cat = image("cat")
    first = [1, 2, 3]
    said = seeing.ask(1, first, cat, [4, 5])
    seeing.rig.run()
    tokens, _, _ = prompt(first, cat, [4, 5])
    want = seeing.ask(2, first, cat, [4, 5], said, [6])
    seeing.rig.run()
    assert seeing.rig.said[2] == want
    assert seeing.rig.started[2].cached_tokens >= len(tokens)
    want = seeing.ask(3, [9, 9], cat, [4, 5])  # elsewhere, its cells are of no use, but its embeddings are
    seeing.rig.run()
    assert seeing.rig.said[3] == want
    assert seeing.rig.started[3].cached_tokens == 0
    assert seeing.encoded == [(cat.digest, 0), (cat.digest, 1)]


def test_another_image_in_the_same_place_is_another() -> None:
    seeing = Seeing()
    seeing.ask(1, [1, 2, 3], image("cat"), [4, 5])
    seeing.rig.run()
    want = seeing.ask(2, [1, 2, 3], image("dog"), [4, 5])
    seeing.rig.run()
    assert seeing.rig.said[2] == want
    assert seeing.rig.started[2].cached_tokens <= 4


def test_nothing_ends_in_the_middle_of_an_image() -> None:
    # What was cancelled within an image leaves a part of it behind.
    seeing = Seeing(layout=[4 * BLOCK], max_batch=BLOCK, budget=0.001)
    cat = image("cat")
    seeing.ask(1, [1] * BLOCK, cat, [4, 5])
    seeing.rig.steps(4)
    seeing.rig.scheduler.cancel(1)
    want = seeing.ask(2, [1] * BLOCK, cat, [4, 5])
    seeing.rig.run()
    assert seeing.rig.said[2] == want
    assert seeing.rig.started[2].cached_tokens == BLOCK


def test_running_sequences_go_on_between_the_parts_of_an_image() -> None:
    seeing = Seeing()
    seeing.ask(1, [1, 2], max_tokens=20)
    seeing.rig.steps(3)
    before = len(seeing.rig.said[1])
    seeing.ask(2, [1, 2, 3], image("cat"), [4, 5])
    heard = []
    while 2 not in seeing.rig.started:
        seeing.rig.step()
        heard.append((len(seeing.encoded), len(seeing.rig.said[1]) - before))
    for encoded in (1, 2):  # a token after each encoding, before anything else of the prompt
        assert max(said for count, said in heard if count == encoded) > max(
            said for count, said in heard if count == encoded - 1
        )


def test_a_sequence_can_be_cancelled_between_the_parts_of_its_image() -> None:
    seeing = Seeing()
    seeing.ask(1, [1, 2, 3], image("cat"), [4, 5])
    while not seeing.encoded:
        seeing.rig.step()
    seeing.rig.scheduler.cancel(1)
    seeing.rig.run()
    assert seeing.rig.finished[1].reason is FinishReason.CANCELLED
    assert len(seeing.encoded) == 1


def test_an_image_that_cannot_be_encoded_fails_its_own_request_alone() -> None:
    seeing = Seeing()
    want = seeing.ask(1, [1, 2], max_tokens=10)
    seeing.rig.steps(2)
    seeing.error = BackendError("broken")
    seeing.ask(2, [1, 2, 3], image("cat"), [4, 5])
    seeing.rig.run()
    assert seeing.rig.said[1] == want
    assert seeing.rig.finished[2].reason is FinishReason.ERROR
    assert "broken" in (seeing.rig.finished[2].error or "")


def test_a_batch_that_fails_is_repeated_with_the_images_of_its_sequences() -> None:
    uncuttable = MemoryTraits(copy=True, cut=False, save=True, shift=False, cell_bytes=4)
    seeing = Seeing(whole=True, memory=uncuttable)
    wanted = {number: seeing.ask(number, [number], image("cat"), [4, 5]) for number in (1, 2)}
    while len(seeing.rig.scheduler._roster.running) < 2:
        seeing.rig.step()
    seeing.rig.fail_slots = {1}
    while not seeing.rig.failed:
        seeing.rig.step()
    seeing.rig.run()
    assert seeing.rig.said[1] == wanted[1]
    assert seeing.rig.finished[2].reason is FinishReason.ERROR


def test_a_preempted_sequence_sees_its_image_again() -> None:
    memory = MemoryTraits(copy=True, cut=True, save=False, shift=False, shared=True)
    seeing = Seeing(memory=memory, cells=170, layout=[16])
    wanted = {number: seeing.ask(number, [number], image(str(number)), [4], max_tokens=100) for number in (1, 2)}
    seeing.rig.run()
    assert seeing.rig.scheduler.preemptions
    assert {number: seeing.rig.said[number] for number in wanted} == wanted


def test_penalties_look_at_words_alone() -> None:
    tokens, _, _ = prompt([1, 2, 3], image("cat"), [4, 5])
    history = History(tokens, len(tokens))
    assert history.last(-1).tolist() == [1, 2, 3, 7, 8, 9, 8, 4, 5]
    tokens.append(6)
    assert history.last(3, [7]).tolist() == [5, 6, 7]


def test_ids_are_no_tokens_and_tell_images_and_chunks_apart() -> None:
    rows = [ids(image(name).digest, chunk, 20) for name in ("cat", "dog") for chunk in (0, 1)]
    assert all(-(2**31) <= number < 0 for row in rows for number in row)
    assert len({tuple(row[:8]) for row in rows}) == len(rows)
    assert all(len(row) == 20 for row in rows)


@pytest.mark.parametrize(
    ("length", "want"), [(0, 0), (3, 3), (4, 4), (5, 4), (27, 4), (28, 28), (29, 29), (31, 30), (43, 43)]
)
def test_a_prefix_is_settled_at_the_edges_of_chunks(length: int, want: int) -> None:
    _, chunks, _ = prompt([1, 2, 3], image("cat"), [4])
    assert settled(length, chunks) == want


@pytest.mark.parametrize(
    ("start", "most", "number", "count"),
    [
        (0, 100, None, 4),
        (0, 2, None, 2),
        (4, 100, 0, 24),
        (10, 100, 0, 18),
        (10, 5, 0, 5),
        (28, 9, None, 2),
        (43, 9, None, 9),
    ],
)
def test_a_piece_is_text_or_of_one_chunk(start: int, most: int, number: int | None, count: int) -> None:
    _, chunks, _ = prompt([1, 2, 3], image("cat"), [4])
    chunk, length = piece(start, most, chunks)
    assert (chunk.number if chunk else None, length) == (number, count)


def test_the_gallery_forgets_what_was_not_asked_for_longest() -> None:
    vision = FakeVision([10])
    gallery = Gallery(vision, limit=100)  # 40 bytes for each
    chunks = {name: place(image(name), [10], 0)[1][0] for name in "abc"}
    for name in "ab":
        gallery.encode(chunks[name])
    assert gallery.find(chunks["a"]) is not None
    gallery.encode(chunks["c"])
    assert [gallery.find(chunks[name]) is not None for name in "abc"] == [True, False, True]
