"""Content codings (RFC 9110, 8.4 and 12.5.3): which one a client likes best, and how bodies and streams are written in it."""

import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IDENTITY = "identity"
LEAST_BODY = 1024  # bytes; a smaller body that is sent whole gains less than the header that says so costs
LARGE_BODY = 64 * 1024  # bytes, which take up to 3 ms; a larger body is compressed in a thread

# Among codings that a client names and likes alike: what makes most of its time and memory on a stream comes first, as
# measured below.
_BY_COST = ("zstd", "gzip", "br", "deflate")
# Among those that it only means by `*`: what more clients really have comes first.
_BY_REACH = ("gzip", "deflate", "br", "zstd")
_ALIASES = {"x-gzip": "gzip"}
# Of a coding, with its weight. Nothing stands around the `=` of a weight, which has three decimals at most.
_ELEMENT = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")
_MOST_ELEMENTS = 64  # that are read; no client has so many, and reading them takes time
_UNNAMED = 0.0001  # weight of an identity that is not excluded: acceptable, and below anything that can be named


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a client accepts of what there is."""

    coding: str  # what it likes best; identity also where nothing else fits, even if it refuses that
    plain: bool  # whether identity is acceptable


def negotiate(header: str | None) -> Accepted:
    """What an `Accept-Encoding` header (None for none) asks for.

    An element that is malformed is passed over, as if it were not there. Where a client refuses identity and has
    nothing that this server has, the answer is sent plain all the same: RFC 9110 lets a server disregard the header
    instead of answering 406, and a client that can read the answer is better served.
    """
    if header is None:
        # Any coding is acceptable then, but clients that say nothing mostly know nothing.
        return Accepted(IDENTITY, plain=True)
    weights = _weights(header)
    rest = weights.get("*", 0.0)
    plain = weights.get(IDENTITY, weights.get("*", _UNNAMED))
    weight, _, _, coding = max(
        (weights[coding], 1, -_BY_COST.index(coding), coding)
        if coding in weights
        else (rest, 0, -_BY_REACH.index(coding), coding)
        for coding in _BY_COST
    )
    return Accepted(coding if weight > 0 and weight >= plain else IDENTITY, plain=plain > 0)


def body_coding(header: str | None, size: int) -> str:
    """The coding of a body of `size` bytes that is sent whole."""
    accepted = negotiate(header)
    return IDENTITY if size == 0 or (size < LEAST_BODY and accepted.plain) else accepted.coding


def _weights(header: str) -> dict[str, float]:
    """The weight of each coding that is named, in lower case; the least one where it is named several times."""
    weights: dict[str, float] = {}
    for element in header.split(",", _MOST_ELEMENTS)[:_MOST_ELEMENTS]:
        match = _ELEMENT.fullmatch(element.strip(" \t"))
        if match is not None:
            name = match[1].lower()
            name = _ALIASES.get(name, name)
            weights[name] = min(float(match[2] or 1), weights.get(name, 1.0))
    return weights


# Whole bodies: JSON of some kilobytes, or of a megabyte where it holds vectors. On 400 KB of vectors these levels took 1, 7
# and 20 ms; the next ones take two to five times as long for 2 % less.


def compress(body: bytes, coding: str) -> bytes:
    """A whole body in `coding`, which is any but identity. Gives the interpreter's lock up while it works."""
    if coding == "zstd":
        return zstd.compress(body, 1)
    if coding == "br":
        compressed: bytes = brotli.compress(body, mode=brotli.MODE_TEXT, quality=3, lgwin=18)
        return compressed
    return zlib.compress(body, 4, wbits=_ZLIB_FORMAT[coding] + 15)


# Streams: events of some 220 bytes, each flushed, that differ from the one before in a few words. What they share lies a few
# hundred bytes back, so a window of 16 KiB finds nearly all that there is to find; one of 128 KiB finds 2 to 5 % more and
# holds up to twice the memory, of which there are as many as slots and places in the queue. Measured over 300 events:
# zstd 1.6 µs an event, to 23 bytes, with 97 KiB a stream; gzip and deflate 2.2 µs, 20 bytes, 94 KiB; brotli 3.3 µs, 23 bytes,
# 313 KiB. That is little beside what an event takes to make and send, so no stream is left plain that need not be. (Brotli's
# levels 0 and 1 forget everything at a flush, and from level 5 on a stream holds twice as much.)

_WINDOW = 14  # log2 of bytes
# What stands beside the window in zlib's wbits; deflate is with zlib's own header (RFC 9110, 8.4.1.2).
_ZLIB_FORMAT = {"gzip": 16, "deflate": 0}
_ZSTD_STREAM: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.window_log: _WINDOW,
    zstd.CompressionParameter.hash_log: 13,
    zstd.CompressionParameter.chain_log: 13,
}


class Encoder(Protocol):
    """Writes one stream in a coding."""

    def encode(self, events: bytes) -> bytes:
        """More of the stream, flushed: the client can decode everything up to here."""

    def end(self) -> bytes:
        """The stream's last bytes."""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._compressor = zlib.compressobj(4, zlib.DEFLATED, wbits, 6)

    def encode(self, events: bytes) -> bytes:
        return self._compressor.compress(events) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()


class _Brotli:
    def __init__(self) -> None:
        self._compressor = brotli.Compressor(mode=brotli.MODE_TEXT, quality=3, lgwin=_WINDOW)

    def encode(self, events: bytes) -> bytes:
        flushed: bytes = self._compressor.process(events) + self._compressor.flush()
        return flushed

    def end(self) -> bytes:
        rest: bytes = self._compressor.finish()
        return rest


class _Zstd:
    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(options=_ZSTD_STREAM)

    def encode(self, events: bytes) -> bytes:
        return self._compressor.compress(events, zstd.ZstdCompressor.FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME)


_ENCODERS: dict[str, Callable[[], Encoder]] = {
    "zstd": _Zstd,
    "br": _Brotli,
    "gzip": lambda: _Zlib(_ZLIB_FORMAT["gzip"] + _WINDOW),
    "deflate": lambda: _Zlib(_ZLIB_FORMAT["deflate"] + _WINDOW),
}


def encoder(coding: str) -> Encoder | None:
    """An encoder for a stream in `coding`; None for identity."""
    make = _ENCODERS.get(coding)
    return make() if make is not None else None
