"""The header of a GGUF file, read from its beginning alone: metadata, and the names, shapes and types of its tensors.

The file may come from anywhere, so nothing that it says is believed before it is compared with a limit: neither memory
nor time follow from a number in it. The format is specified in ggml's docs/gguf.md.
"""

import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import BinaryIO, Final

MAGIC: Final = b"GGUF"
HEADER_LIMIT: Final = 64 * 1024 * 1024
"""Bytes after which a header is taken for hostile; the largest vocabularies need 20 MB."""

_VERSIONS: Final = (2, 3)
_TEXT_LIMIT: Final = 1024 * 1024  # bytes of a text that is kept
_LIST_LIMIT: Final = 4096  # numbers of a list that is kept: there is one for each layer, at most
_KEYS_LIMIT: Final = 16_384
_TENSORS_LIMIT: Final = 262_144
_DIMENSIONS_LIMIT: Final = 8
_BUFFER: Final = 1024 * 1024

_STRING, _ARRAY = 8, 9
_NUMBERS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_COUNT: Final = _NUMBERS[10]
_TOKENS: Final = "tokenizer.ggml.tokens"
# Tensor types by number, as ggml.h has them.
_TENSOR_TYPES: Final = dict(
    zip(
        (0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30),
        [
            "F32",
            "F16",
            "Q4_0",
            "Q4_1",
            "Q5_0",
            "Q5_1",
            "Q8_0",
            "Q8_1",
            "Q2_K",
            "Q3_K",
            "Q4_K",
            "Q5_K",
            "Q6_K",
            "Q8_K",
            "IQ2_XXS",
            "IQ2_XS",
            "IQ3_XXS",
            "IQ1_S",
            "IQ4_NL",
            "IQ3_S",
            "IQ2_S",
            "IQ4_XS",
            "I8",
            "I16",
            "I32",
            "I64",
            "F64",
            "IQ1_M",
            "BF16",
        ],
        strict=True,
    )
) | {34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"}

Value = str | int | float | bool | list[int | float | bool]


class BadGguf(ValueError):
    """The bytes are no header of a GGUF file that could be served; the message says why."""


@dataclass(slots=True)
class Header:
    """What a GGUF file says of itself."""

    metadata: dict[str, Value] = field(default_factory=dict)
    """Numbers, texts and short lists of numbers by key; what is longer or of another kind is left out."""
    vocabulary: int = 0
    """Tokens."""
    control_spellings: frozenset[bytes] = frozenset()
    """Those of the spellings that were asked for that are tokens."""
    parameters: int = 0
    """Elements of all tensors of this file."""
    tensor_types: Counter[str] = field(default_factory=Counter)
    """Elements by the tensors' type."""

    def text(self, key: str) -> str | None:
        """A text of the metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """A whole number of the metadata that is not negative."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def numbers(self, key: str, length: int) -> list[int] | None:
        """A whole number for each layer: one for all of them, or a list."""
        value = self.metadata.get(key)
        if isinstance(value, list):
            whole = [each for each in value if isinstance(each, int) and each >= 0]
            return whole if len(whole) == length else None
        single = self.number(key)
        return None if single is None else [single] * length


def read_header(stream: BinaryIO, spellings: frozenset[bytes] = frozenset()) -> Header:
    """The header at the stream's position; the stream need not be able to seek.

    ``spellings`` are those to look for among the tokens. Raises `BadGguf`, and what the stream raises.
    """
    reader = _Reader(stream)
    magic = reader.take(len(MAGIC), "not a GGUF file") if reader.more() else b""
    if magic != MAGIC:
        raise BadGguf("not a GGUF file" + ("" if magic else " (it is empty)"))
    version = reader.number(_NUMBERS[4])
    if version not in _VERSIONS:
        swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
        raise BadGguf(
            "a GGUF file for big-endian machines" if swapped in _VERSIONS else f"GGUF version {version} is not known"
        )
    tensors, keys = reader.count("tensors", _TENSORS_LIMIT), reader.count("keys", _KEYS_LIMIT)
    header = Header()
    for _ in range(keys):
        _read_key(reader, header, spellings)
    for _ in range(tensors):
        _read_tensor(reader, header)
    return header


def tensor_type(header: Header) -> str | None:
    """The type of most of the file's numbers."""
    return header.tensor_types.most_common(1)[0][0] if header.tensor_types else None


def _read_key(reader: "_Reader", header: Header, spellings: frozenset[bytes]) -> None:
    key = reader.text()
    kind = reader.number(_NUMBERS[4])
    if kind == _STRING:
        value = reader.bytes_or_skip(_TEXT_LIMIT)
        if value is not None:
            header.metadata[key] = value.decode("utf-8", "replace")
    elif kind == _ARRAY:
        _read_array(reader, header, key, spellings)
    elif kind in _NUMBERS:
        header.metadata[key] = reader.number(_NUMBERS[int(kind)])
    else:
        raise BadGguf(f"{key[:80]!r} is of type {kind}, which GGUF does not know")


def _read_array(reader: "_Reader", header: Header, key: str, spellings: frozenset[bytes]) -> None:
    kind, length = reader.number(_NUMBERS[4]), reader.count(f"items of {key[:80]!r}", HEADER_LIMIT)
    if kind == _STRING:
        wanted = spellings if key == _TOKENS else frozenset()
        if key == _TOKENS:
            header.vocabulary = length
        longest = max(map(len, wanted), default=0)
        found = set()
        for _ in range(length):
            item = reader.bytes_or_skip(longest)
            if item in wanted:
                found.add(item)
        header.control_spellings |= {item for item in found if item is not None}
        return
    if kind not in _NUMBERS:
        raise BadGguf(f"{key[:80]!r} is a list of type {kind}, which GGUF does not know")
    number = _NUMBERS[int(kind)]
    if length > _LIST_LIMIT:
        reader.skip(length * number.size)
        return
    data = reader.take(length * number.size)
    header.metadata[key] = [item for (item,) in number.iter_unpack(data)]


def _read_tensor(reader: "_Reader", header: Header) -> None:
    reader.skip(reader.count("bytes of a tensor's name", HEADER_LIMIT))
    dimensions = reader.number(_NUMBERS[4])
    if not 0 <= dimensions <= _DIMENSIONS_LIMIT:
        raise BadGguf(f"a tensor has {dimensions} dimensions")
    elements = math.prod(int(reader.number(_COUNT)) for _ in range(int(dimensions)))
    kind = int(reader.number(_NUMBERS[4]))
    reader.skip(8)  # where its data is
    if elements >= 2**63:
        raise BadGguf("a tensor is larger than any memory")
    header.parameters += elements
    header.tensor_types[_TENSOR_TYPES.get(kind, f"type {kind}")] += elements


class _Reader:
    """Reads a stream from front to back through a buffer, and no further than `HEADER_LIMIT`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._position = 0  # in the buffer
        self._left = HEADER_LIMIT

    def more(self) -> bool:
        """Whether there is anything at all."""
        return self._position < len(self._buffer) or self._fill(1)

    def take(self, size: int, cut_short: str = "the file ends within its header") -> bytes:
        """The next ``size`` bytes."""
        end = self._position + size
        if end > len(self._buffer):
            if not self._fill(size):
                raise BadGguf(cut_short)
            end = size
        data = self._buffer[self._position : end]
        self._position = end
        return data

    def skip(self, size: int) -> None:
        """Passes over ``size`` bytes."""
        while size > 0:
            step = min(size, _BUFFER)
            self.take(step)
            size -= step

    def number(self, form: struct.Struct) -> int | float | bool:
        """The next number."""
        value: int | float | bool = form.unpack(self.take(form.size))[0]
        return value

    def count(self, what: str, most: int) -> int:
        """The next length of something, if it is one that may be."""
        value = int(self.number(_COUNT))
        if value > most:
            raise BadGguf(f"it claims to have {value} {what}")
        return value

    def text(self) -> str:
        """The next text, which is short."""
        data = self.bytes_or_skip(_TEXT_LIMIT)
        if data is None:
            raise BadGguf("a key is longer than any key is")
        return data.decode("utf-8", "replace")

    def bytes_or_skip(self, most: int) -> bytes | None:
        """The next text's bytes; None, and past it, if it is longer than ``most``."""
        size = self.count("bytes of text in one piece", HEADER_LIMIT)
        if size <= most:
            return self.take(size)
        self.skip(size)
        return None

    def _fill(self, size: int) -> bool:
        """Brings at least ``size`` bytes into the buffer; whether there were so many."""
        rest = self._buffer[self._position :]
        wanted = max(size - len(rest), _BUFFER)
        parts, missing = [rest], size - len(rest)
        while missing > 0:
            if self._left <= 0:
                raise BadGguf(f"its header is longer than {HEADER_LIMIT >> 20} MiB")
            part = self._stream.read(min(wanted, self._left))
            if not part:
                return False
            self._left -= len(part)
            missing -= len(part)
            parts.append(part)
        self._buffer, self._position = b"".join(parts), 0
        return True
