"""Positions of cells behind images that have fewer of them than cells."""

import pytest

from inferno_runtime.backends.llama_cpp.positions import Positions


def with_two_images() -> Positions:
    """Slot 0: 3 words, an image of 12 cells and 4 positions, 2 words, one of 6 cells and 3 positions, words."""
    positions = Positions(2)
    positions.add(0, 15, 8)
    positions.add(0, 23, 3)
    return positions


@pytest.mark.parametrize(("cell", "position"), [(0, 0), (3, 3), (15, 7), (16, 8), (17, 9), (23, 12), (30, 19)])
def test_a_cell_has_its_position(cell: int, position: int) -> None:
    positions = with_two_images()
    assert positions.of(0, cell) == position
    assert positions.of(1, cell) == cell


def test_what_is_cut_is_forgotten() -> None:
    positions = with_two_images()
    positions.cut(0, 23)
    assert positions.of(0, 23) == 12
    positions.cut(0, 22)
    assert positions.of(0, 23) == 15
    positions.cut(0, 0)
    assert positions.of(0, 23) == 23


def test_slots_are_copied_and_saved() -> None:
    positions = with_two_images()
    data = b"cells" + positions.saved(0)
    positions.copy(0, 1)
    positions.cut(0, 0)
    assert positions.of(1, 23) == 12
    positions.cut(1, 0)
    assert positions.restore(1, memoryview(data)) == len(b"cells")
    assert positions.of(1, 23) == 12
    assert positions.cells(1, 12) == 23
    assert positions.restore(0, memoryview(Positions(1).saved(0))) == 0
    assert positions.of(0, 23) == 23


def test_an_image_with_as_many_positions_as_cells_changes_nothing() -> None:
    positions = Positions(1)
    positions.add(0, 15, 0)
    assert positions.of(0, 20) == 20
