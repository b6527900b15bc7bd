"""How many weights an ONNX model has, and of which type, without loading it.

Of the protobuf message only the path to the initializers is followed (``ModelProto.graph.initializer``); what they hold
is passed over by its length. The fields' numbers are those of onnx.proto.
"""

import math
import os
from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO, Final

_GRAPH: Final = 7  # in ModelProto
_INITIALIZER: Final = 5  # in GraphProto
_DIMS, _DATA_TYPE = 1, 2  # in TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TYPES: Final = {
    1: "F32",
    2: "U8",
    3: "I8",
    5: "I16",
    6: "I32",
    7: "I64",
    9: "BOOL",
    10: "F16",
    11: "F64",
    16: "BF16",
    17: "F8E4M3",
    19: "F8E5M2",
    21: "U4",
    22: "I4",
}
_FIELDS_LIMIT: Final = 4_000_000  # a large model has some hundred thousand
_DIMENSIONS_LIMIT: Final = 16


class BadOnnx(ValueError):
    """The bytes are no ONNX model; the message says why."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How many numbers there are, and the type of most of them."""

    parameters: int
    kind: str | None


def weights(file: BinaryIO) -> Weights:
    """The weights of the ONNX model in a file that can seek. Raises `BadOnnx`."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    if end == 0:
        raise BadOnnx("not an ONNX model (it is empty)")
    elements: Counter[str] = Counter()
    walker = _Walker(file)
    found = False
    for number, graph_end in walker.messages(end):
        if number != _GRAPH:
            continue
        found = True
        for inner, tensor_end in walker.messages(graph_end):
            if inner == _INITIALIZER:
                kind, count = walker.tensor(tensor_end)
                elements[_TYPES.get(kind, f"type {kind}")] += count
    if not found:
        raise BadOnnx("not an ONNX model: it has no graph")
    return Weights(elements.total(), elements.most_common(1)[0][0] if elements else None)


class _Walker:
    """Goes through protobuf messages by their fields."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._fields = 0

    def messages(self, end: int) -> "_Messages":
        """The fields up to ``end`` that have a length, by number, each with its own end; it may be gone into."""
        return _Messages(self, end)

    def tensor(self, end: int) -> tuple[int, int]:
        """The type and the number of elements of a TensorProto."""
        kind, dims = 0, []
        while self._file.tell() < end:
            number, wire = self.key()
            if wire == _VARINT:
                value = self.varint()
                if number == _DATA_TYPE:
                    kind = value
                elif number == _DIMS:
                    dims.append(value)
            elif number == _DIMS and wire == _BYTES:
                packed = self.length(end)
                while self._file.tell() < packed:
                    dims.append(self.varint())
            else:
                self.skip(wire, end)
            if len(dims) > _DIMENSIONS_LIMIT:
                raise BadOnnx(f"a tensor has more than {_DIMENSIONS_LIMIT} dimensions")
        elements = math.prod(dims)
        if elements >= 2**63:
            raise BadOnnx("a tensor is larger than any memory")
        return kind, elements

    def key(self) -> tuple[int, int]:
        self._fields += 1
        if self._fields > _FIELDS_LIMIT:
            raise BadOnnx(f"it has more than {_FIELDS_LIMIT} fields")
        value = self.varint()
        return value >> 3, value & 7

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte:
                raise BadOnnx("it ends too early")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise BadOnnx("not an ONNX model")

    def length(self, end: int) -> int:
        """Where the field ends that begins with its length here."""
        size = self.varint()
        if self._file.tell() + size > end:
            raise BadOnnx("it ends too early, or is not an ONNX model")
        return self._file.tell() + size

    def skip(self, wire: int, end: int) -> None:
        if wire == _VARINT:
            self.varint()
        elif wire == _BYTES:
            self._file.seek(self.length(end))
        elif wire in (_FIXED32, _FIXED64):
            self._file.seek(4 if wire == _FIXED32 else 8, os.SEEK_CUR)
        else:
            raise BadOnnx("not an ONNX model")

    def seek(self, position: int) -> None:
        self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


class _Messages:
    """An iterator over the fields of a message; whatever its user reads of a field, it goes on behind it."""

    def __init__(self, walker: _Walker, end: int) -> None:
        self._walker = walker
        self._end = end
        self._next = walker.tell()

    def __iter__(self) -> "_Messages":
        return self

    def __next__(self) -> tuple[int, int]:
        self._walker.seek(self._next)
        while self._walker.tell() < self._end:
            number, wire = self._walker.key()
            if wire == _BYTES:
                self._next = self._walker.length(self._end)
                return number, self._next
            self._walker.skip(wire, self._end)
        raise StopIteration
