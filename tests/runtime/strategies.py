"""Requests as hypothesis makes them: from the wire types, and wrong in every way that a client can get them wrong."""

import json
from typing import Any
from urllib.parse import quote_from_bytes

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from tests.runtime.raw import BINARY, CLOSE, PING, PONG, TEXT, frame

Json = st.SearchStrategy[Any]

_FAR = 2**70  # beyond what any number may be
# Any value that JSON has, and some that it has not: the encoder writes NaN and lone surrogates as they are.
ANYTHING: Json = st.recursive(
    st.none() | st.booleans() | st.integers(-_FAR, _FAR) | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def like(kind: inspect.Type) -> Json:
    """Values of a type, in its range and around its ends."""
    match kind:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=ge, le=le):
            return _around(ge, le) | st.integers(-_FAR, _FAR)
        case inspect.FloatType(ge=ge, le=le):
            return _around(ge, le) | st.floats()
        case inspect.StrType():
            return st.sampled_from(("", "user", "text", "low", "a\0b", "<|im_end|>")) | st.text(max_size=20)
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.EnumType(cls=cls):
            return st.sampled_from([member.value for member in cls])
        case inspect.ListType(item_type=item):
            return st.lists(like(item), max_size=3)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(like(key), like(value), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of([like(each) for each in types])
        case inspect.StructType(cls=cls):
            return struct(cls)
        case _:
            return ANYTHING


def _around(least: float | None, most: float | None) -> Json:
    low, high = least or 0, 100 if most is None else most
    return st.sampled_from((low - 1, low - 0.5, low, low + 0.5, low + 1, high - 1, high, high + 0.5, high + 1))


def struct(kind: type[msgspec.Struct]) -> Json:
    """Objects with some of a type's fields, each of its own type or of any."""
    fields = {field.encode_name: like(field.type) | ANYTHING for field in inspect.multi_type_info([kind])[0].fields}  # type: ignore[attr-defined]
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def bodies(draw: st.DrawFn, kind: type[msgspec.Struct], base: dict[str, Any]) -> bytes:
    """A request that would be right, but for some of its fields, and perhaps some of its bytes."""
    fields = draw(struct(kind))
    kept = draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)) if fields else []
    body = base | {name: fields[name] for name in kept}
    data = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return draw(damaged(data)) if draw(st.integers(0, 3)) == 0 else data


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The same bytes, but for one place."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 8)))
    return data[:start] + draw(st.binary(max_size=4)) + data[end:]


@st.composite
def queries(draw: st.DrawFn, names: list[str]) -> str:
    """A query of some parameters, several of which may have one name."""
    parts = []
    for name in draw(st.lists(st.sampled_from(names) | st.text(max_size=3), max_size=4)):
        given = draw(ANYTHING.map(json.dumps) | st.text(st.characters(), max_size=8))
        value = draw(st.binary(max_size=8) | st.just(given.encode("utf-8", "surrogatepass")))
        parts.append(f"{quote_from_bytes(name.encode())}={quote_from_bytes(value)}")
    return "&".join(parts)


_HEADERS = (
    "Accept-Encoding",
    "Authorization",
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Expect",
    "Last-Event-ID",
    "Origin",
    "Sec-Fetch-Site",
    "Transfer-Encoding",
    "X-API-Key",
    "X-Inferno-Priority",
    "X-Request-Id",
    "traceparent",
)
_WORDS = (
    "gzip",
    "identity;q=0",
    "*;q=1.5",
    "chunked",
    "close",
    "100-continue",
    "0",
    "2",
    "application/json",
    "vip",
    "Bearer",
)
_BYTES = st.text(st.characters(max_codepoint=255), max_size=20)  # each character is a byte
_PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
_HEADER = st.tuples(st.sampled_from(_HEADERS), st.sampled_from(_WORDS) | _PRINTABLE).map(": ".join)
HEADERS = st.lists(_HEADER, max_size=4) | st.lists(_HEADER | _BYTES, max_size=4)

_OPCODES = st.sampled_from((TEXT, BINARY, CLOSE, PING, PONG, 0)) | st.integers(0, 15)
_PAYLOADS = st.sampled_from((b"", b'{"type":"ping"}', b"\x03\xe8", b"\x03\xed", bytes(126))) | st.binary(max_size=20)
FRAMES = st.lists(
    st.builds(
        frame,
        _OPCODES,
        _PAYLOADS,
        fin=st.sampled_from((True, True, False)),
        reserved=st.sampled_from((0, 0, 0, 0, 1, 2, 4)),
        masked=st.sampled_from((True, True, True, True, False)),
    ),
    max_size=6,
)
