import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.models.onnx import BadOnnx, Weights, weights


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def tensor(kind: int, *dims: int, packed: bool = False) -> bytes:
    shape = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, dim) for dim in dims)
    return field(5, shape + field(2, kind) + field(8, b"name") + field(9, b"raw data"))


def model(*tensors: bytes) -> bytes:
    graph = field(1, b"a node") + b"".join(tensors) + field(2, b"graph")
    return field(1, 8) + field(2, b"producer") + field(7, graph) + field(8, b"opset")


def test_counts_what_is_there() -> None:
    found = weights(io.BytesIO(model(tensor(10, 300, 200), tensor(1, 5, 5, packed=True), tensor(7))))
    assert found == Weights(60_000 + 25 + 1, "F16")


BAD = {
    "empty": (b"", "it is empty"),
    "no graph": (field(1, 8), "no graph"),
    "a page": (b"<html>please log in</html>", "not an ONNX model"),
    "cut off": (model(tensor(10, 300, 200))[:-20], "ends too early"),
    "a length beyond the end": (varint(7 << 3 | 2) + varint(2**40), "ends too early"),
    "a number without end": (b"\xff" * 20, "not an ONNX model"),
    "many dimensions": (model(tensor(1, *range(1, 30))), "more than 16 dimensions"),
    "larger than memory": (model(tensor(1, 2**40, 2**40)), "larger than any memory"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_bad(data: bytes, message: str) -> None:
    with pytest.raises(BadOnnx, match=message):
        weights(io.BytesIO(data))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_noise_is_told_or_does_no_harm(noise: bytes, start: int) -> None:
    good = model(tensor(10, 300, 200), tensor(1, 5))
    with contextlib.suppress(BadOnnx):
        weights(io.BytesIO(good[:start] + noise + good[start:]))
