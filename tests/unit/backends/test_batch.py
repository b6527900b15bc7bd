"""What is added to a batch so that libllama's kernels run at full speed."""

import pytest

from inferno_runtime.backends.llama_cpp.batch import columns, padding


def usable(count: int, *full: int) -> list[bool]:
    return [number not in full for number in range(count)]


@pytest.mark.parametrize(
    ("slots", "added"),
    [
        ([0], []),  # a batch of one has kernels of its own
        ([0, 1, 2], []),  # a few are cheaper as they are
        ([0, 1, 2, 3], []),
        ([0, 1, 2, 3, 4], [5, 6, 7]),
        ([0, 1, 2, 3, 4, 5, 6], [7]),
        ([0, 1, 2, 3, 4, 5, 6, 7], []),
        ([0, 1, 2, 4, 5, 6, 7], [3]),
        ([0, 1, 3, 4, 6], [2, 5, 7]),
        ([0, 1, 2, 9, 10], [3, 4, 5, 6, 7, 8, 11]),
        ([2, 3, 4, 5, 6], [7, 8, 9]),
    ],
)
def test_holes_are_filled_and_tiles_made_whole(slots: list[int], added: list[int]) -> None:
    assert padding(slots, usable(16), usable(16)) == added


@pytest.mark.parametrize(
    ("slots", "full", "added"),
    {
        "alone": ([0], [], [1]),
        "alone, with none behind it": ([15], [], [14]),
        "alone, with no room behind it": ([3], [4], [2]),
        "alone among full ones": ([3], [2, 4], []),
        "two": ([0, 1], [], []),
        "far from the others": ([0, 1, 12], [], [13]),
        "far apart": ([0, 12], [], [1, 13]),
        "many": ([0, 1, 2, 3, 4], [], [5, 6, 7]),
    }.values(),
)
def test_none_is_alone_whose_sums_must_not_change(slots: list[int], full: list[int], added: list[int]) -> None:
    assert padding(slots, usable(16, *full), usable(16), steady=True) == added
    assert padding([0], usable(1), usable(1), steady=True) == []


def test_a_wide_hole_stays_and_each_run_is_made_whole() -> None:
    assert padding([0, 1, 2, 3, 4, 20, 21, 22, 23, 24, 25], usable(32), usable(32)) == [5, 6, 7, 26, 27]


def test_no_token_goes_where_there_is_no_room() -> None:
    assert padding([0, 1, 3, 4], usable(8, 2), usable(8)) == []
    assert padding([0, 1, 2, 3, 4, 5, 6], usable(8, 7), usable(8)) == []
    assert padding([0, 1, 2, 3, 4, 5, 6], usable(7), usable(7)) == []
    assert padding([0, 1, 3, 4, 5, 6, 7], usable(12, 2), usable(12)) == [8, 9, 10]


def test_no_token_attends_to_a_long_text_only_to_make_a_tile_whole() -> None:
    assert padding([0, 1, 2, 3, 4, 5], usable(16), usable(16, 6)) == []
    assert padding([0, 1, 2, 3, 4, 5, 8], usable(16), usable(16, 6)) == [6, 7, 9, 10, 11]  # a hole is another pass


@pytest.mark.parametrize(
    ("slots", "count"),
    [
        ([3], 1),
        ([0, 1, 2, 3], 4),
        ([0, 1, 3], 4),
        ([0, 1, 2, 4, 5], 8),
        ([0, 1, 2, 3, 4, 20], 8 + 1 + 8),
        ([0, 12, 24], 3 + 2 * 8),
    ],
    ids=["one", "side by side", "a hole", "a hole and an end", "a pass more", "two passes more"],
)
def test_what_a_batch_costs(slots: list[int], count: int) -> None:
    assert columns(slots, 32) == count
