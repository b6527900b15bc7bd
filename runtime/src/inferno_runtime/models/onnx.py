"""What an ONNX file says of itself, read without its weights and without native code.

An ONNX file is a protobuf message. A tensor's data is passed over, so a file of gigabytes takes milliseconds; and what is
truncated, or claims what it does not hold, is found out before a library gets to see it. Field numbers are those of
onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from inferno_runtime.models.errors import ModelError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST_VARINT = 10  # bytes
_LARGEST = 1 << 31  # dimension of an input or output that anybody has
_MOST_FIELDS = 4_000_000  # a large model has some hundred thousand
_MOST_DIMENSIONS = 16
_MOST_WEIGHTS = 1 << 63
_EXTERNAL = 1  # TensorProto.DataLocation
_STRING = 8
# TensorProto.DataType: the name, and the bits of an element.
_TYPES = {
    1: ("F32", 32),
    2: ("U8", 8),
    3: ("I8", 8),
    4: ("U16", 16),
    5: ("I16", 16),
    6: ("I32", 32),
    7: ("I64", 64),
    9: ("BOOL", 8),
    10: ("F16", 16),
    11: ("F64", 64),
    12: ("U32", 32),
    13: ("U64", 64),
    16: ("BF16", 16),
    **dict.fromkeys(range(17, 21), ("F8", 8)),
    21: ("U4", 4),
    22: ("I4", 4),
    23: ("F4", 4),
}


class Shape(NamedTuple):
    """A graph's input or output: a dimension is a number, or None where it is only a name or not given at all."""

    dimensions: tuple[int | None, ...]


@dataclass(slots=True)
class Description:
    """A graph's inputs and outputs by name, and what its weights are."""

    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)  # by domain; the standard's own is ""
    parameters: int = 0
    weights: Counter[str] = field(default_factory=Counter)  # bytes by element type
    data_files: set[str] = field(default_factory=set)  # that lie beside the file

    @property
    def quantization(self) -> str:
        """The element type that most of the weights have."""
        return self.weights.most_common(1)[0][0] if self.weights else "unknown"

    @property
    def classifies(self) -> bool:
        """Whether its logits are of whole texts, and not of their tokens."""
        shape = self.outputs.get("logits")
        return shape is not None and len(shape.dimensions) == 2


class _Malformed(Exception):
    """The bytes are no such message."""


class _Part(NamedTuple):
    """A field: its number, and either its value or where its bytes are."""

    number: int
    value: int
    start: int
    end: int


def describe(path: Path) -> Description:
    """Read a file's description. Raises `ModelError` for one that is no ONNX file, is truncated, or contradicts itself."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).read()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except ValueError:  # what mmap says of a file without a byte
        raise ModelError(f"{path}: not an ONNX file (it is empty)") from None


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._found = Description()
        self._fields = 0

    def read(self) -> Description:
        try:
            graphs = [part for part in self._parts(0, len(self._data)) if self._top_level(part)]
        except _Malformed as error:
            raise ModelError(f"{self._path}: not an ONNX file, or truncated: {error}") from None
        if len(graphs) != 1:
            raise ModelError(f"{self._path}: not an ONNX file (it has no graph)")
        try:
            self._read_graph(graphs[0])
        except _Malformed as error:
            raise ModelError(f"{self._path}: a damaged ONNX file: {error}") from None
        return self._found

    def _top_level(self, part: _Part) -> bool:
        """Read a field of the ModelProto; True for the graph, which comes later."""
        if part.number == 8:
            opset = {item.number: item for item in self._parts(part.start, part.end)}
            domain = self._text(opset[1]) if 1 in opset else ""
            self._found.opsets[domain] = opset[2].value if 2 in opset else 0
        return part.number == 7

    def _read_graph(self, graph: _Part) -> None:
        weights: set[str] = set()
        for part in self._parts(graph.start, graph.end):
            if part.number == 5:
                weights.add(self._read_tensor(part))
            elif part.number in (11, 12):
                values = self._found.inputs if part.number == 11 else self._found.outputs
                name, shape = self._value(part)
                values[name] = shape
        for name in weights & set(self._found.inputs):  # old files list their weights among the inputs
            del self._found.inputs[name]

    def _value(self, part: _Part) -> tuple[str, Shape]:
        name, dimensions = "", list[int | None]()
        for item in self._parts(part.start, part.end):
            if item.number == 1:
                name = self._text(item)
            elif item.number == 2:
                for dimension in self._nested(item, 1, 2, 1):  # type, tensor_type, shape, dim
                    given = [one.value for one in self._parts(dimension.start, dimension.end) if one.number == 1]
                    dimensions.append(given[0] if given else None)
        if any(dimension is not None and not 0 <= dimension < _LARGEST for dimension in dimensions):
            raise _Malformed(f"'{name}' claims the shape {dimensions}")
        return name, Shape(tuple(dimensions))

    def _nested(self, part: _Part, *numbers: int) -> Iterator[_Part]:
        """The fields at the end of a path of numbers."""
        for item in self._parts(part.start, part.end):
            if item.number == numbers[0]:
                if len(numbers) == 1:
                    yield item
                else:
                    yield from self._nested(item, *numbers[1:])

    def _read_tensor(self, tensor: _Part) -> str:
        """Take account of a weight, whose data must be as long as its shape says. Returns its name."""
        name, kind, dimensions, payload, raw, location = "", 0, list[int](), 0, -1, 0
        external: dict[str, str] = {}
        for part in self._parts(tensor.start, tensor.end):
            if part.number == 1:
                dimensions += [part.value] if part.start == part.end else self._packed(part)
                if len(dimensions) > _MOST_DIMENSIONS:
                    raise _Malformed(f"a weight has more than {_MOST_DIMENSIONS} dimensions")
            elif part.number == 2:
                kind = part.value
            elif part.number == 8:
                name = self._text(part)
            elif part.number == 9:
                raw = part.end - part.start
            elif part.number == 13:
                entry = {item.number: self._text(item) for item in self._parts(part.start, part.end)}
                external[entry.get(1, "")] = entry.get(2, "")
            elif part.number == 14:
                location = part.value
            elif part.number in (4, 5, 6, 7, 10, 11):
                payload += max(part.end - part.start, 1)
        count = math.prod(dimensions)
        type_name, bits = _TYPES.get(kind, ("unknown", 0))
        size = -(-count * bits // 8)
        claim = f"weight '{name}' claims the shape {dimensions}"
        if any(dimension < 0 for dimension in dimensions):
            raise _Malformed(claim)
        if location == _EXTERNAL:
            self._check_external(claim, size, external)
        elif raw >= 0 and bits and raw != size:
            raise _Malformed(f"{claim}, which is {size} bytes, and holds {raw}")
        elif raw < 0 and count > payload:  # an element takes a byte at the least
            raise _Malformed(f"{claim}, and holds {payload} bytes")
        if kind != _STRING:
            self._found.parameters += count
            if self._found.parameters >= _MOST_WEIGHTS:
                raise _Malformed(f"{claim}, which is more than any memory")
            self._found.weights[type_name] += size
        return name

    def _check_external(self, claim: str, size: int, entries: dict[str, str]) -> None:
        location, offset = entries.get("location", ""), entries.get("offset", "0")
        length = entries.get("length", str(size))
        if not (location and offset.isdecimal() and length.isdecimal()) or Path(location).is_absolute():
            raise _Malformed(f"{claim} in no file that could be read: {entries}")
        file = self._path.parent / location
        if not file.resolve().is_relative_to(self._path.parent.resolve()) and not file.is_symlink():
            raise _Malformed(f"{claim} in {location}, which is outside the model's folder")
        try:
            held = file.stat().st_size
        except OSError:
            raise ModelError(f"{self._path}: its weights are in {location}, and there is no such file") from None
        if size > int(length) or int(offset) + int(length) > held:
            raise ModelError(f"{file}: truncated: {claim} up to byte {int(offset) + max(size, int(length))} of {held}")
        self._found.data_files.add(location)

    def _text(self, part: _Part) -> str:
        return self._data[part.start : part.end].decode("utf-8", "replace")

    def _packed(self, part: _Part) -> list[int]:
        numbers, at = list[int](), part.start
        while at < part.end and len(numbers) <= _MOST_DIMENSIONS:
            number, at = self._varint(at, part.end)
            numbers.append(_signed(number))
        return numbers

    def _parts(self, start: int, end: int) -> Iterator[_Part]:
        at = start
        while at < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise _Malformed(f"it has more than {_MOST_FIELDS} fields")
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, at = self._varint(at, end)
                yield _Part(number, _signed(value), at, at)
                continue
            if wire == _BYTES:
                length, at = self._varint(at, end)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise _Malformed(f"an unknown kind of field at byte {at}")
            if length > end - at:
                raise _Malformed(f"a field of {length} bytes begins at byte {at}, and {end - at} are left")
            yield _Part(number, 0, at, at + length)
            at += length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(_LONGEST_VARINT):
            if at + index >= end:
                raise _Malformed(f"it ends within a number at byte {at}")
            byte = self._data[at + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                return value, at + index + 1
        raise _Malformed(f"a number that does not end at byte {at}")


def _signed(number: int) -> int:
    """A 64-bit number as protobuf's int64 has it."""
    return number - (1 << 64) if number >= 1 << 63 else number
