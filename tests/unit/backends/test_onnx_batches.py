import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.backends.onnx.encoder import Padding, batches


@given(
    lengths=st.lists(st.integers(1, 600), max_size=60),
    most=st.integers(16, 1024),
    padding=st.sampled_from(Padding),
)
def test_batches_hold_every_text_once_and_little_padding(lengths: list[int], most: int, padding: Padding) -> None:
    made = list(batches(lengths, most, padding))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[index] for index in batch]
        assert len(batch) == 1 or sum(sizes) <= most
        unused = len(batch) * max(sizes) - sum(sizes)
        assert not unused or unused * padding.value <= 16


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        pytest.param(Padding.ATTENTION, [[1, 3, 0, 2]], id="what only attention sees is little"),
        pytest.param(Padding.ALL, [[1, 3], [0, 2]], id="what costs as much as tokens is more than another pass"),
        pytest.param(Padding.NOTHING, [[1], [3], [0], [2]], id="what changes vectors is none"),
    ],
)
def test_texts_of_different_lengths(padding: Padding, expected: list[list[int]]) -> None:
    assert list(batches([60, 40, 64, 41], 512, padding)) == expected
