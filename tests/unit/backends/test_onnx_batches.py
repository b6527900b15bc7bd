from hypothesis import given
from hypothesis import strategies as st

from inferno_runtime.backends.onnx.encoder import batches


@given(lengths=st.lists(st.integers(1, 600), max_size=60), most=st.integers(16, 1024))
def test_batches_hold_every_text_once_and_little_padding(lengths: list[int], most: int) -> None:
    made = list(batches(lengths, most))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[index] for index in batch]
        padded = len(batch) * max(sizes)
        assert len(batch) == 1 or padded <= most
        assert padded - sum(sizes) <= max(256, 0.125 * padded)
