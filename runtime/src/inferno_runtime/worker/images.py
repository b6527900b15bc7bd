"""Images on their way to an engine: each is decoded in a process of its own, into pixels that the engine reads."""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from inferno_runtime.backends.base import Image, Layout
from inferno_runtime.worker.errors import ImageRefused, Overloaded, ServerEnding
from inferno_runtime.worker.helper import Helper, HelperClosed, HelperDied

logger = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SECONDS = 10.0  # of CPU time that an image may take
MOST_PIXELS = 2048 * 2048  # of what a model is shown; larger images are scaled down to that
_LIVE_BYTES = 512 << 20  # of pixels that requests have at a time


class Encoded(msgspec.Struct, frozen=True, array_like=True):
    """An image as it came, and where its pixels are to be written."""

    data: bytes
    path: str
    most_pixels: int  # that it may have


class Decoded(msgspec.Struct, frozen=True, array_like=True):
    """What came of it: its size and the digest of its pixels, or what is wrong with it."""

    width: int
    height: int
    digest: bytes
    error: str | None = None


from_server = msgspec.msgpack.Decoder(Encoded)
_from_decoder = msgspec.msgpack.Decoder(Decoded)
_encoder = msgspec.msgpack.Encoder()


def written(frame: Encoded | Decoded) -> bytes:
    """A frame's payload."""
    return _encoder.encode(frame)


class Pixels:
    """An image in memory that other processes of this user can open by its path, until it is closed."""

    image: Image

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("image", os.MFD_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def size(self) -> int:
        """In bytes; 0 of one that is closed."""
        return os.fstat(self._descriptor).st_size if self._descriptor >= 0 else 0

    def close(self) -> None:
        """Free it; an engine that has not read it yet will find nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """An image that a model can be shown, and what stands for it in a prompt."""

    pixels: Pixels
    layout: Layout

    @property
    def image(self) -> Image:
        """As the engine is told of it."""
        return self.pixels.image

    @property
    def cells(self) -> int:
        """How many tokens it is."""
        return sum(part if isinstance(part, int) else len(part) for part in self.layout)


class ImageReader:
    """Decodes images. Its process is started by the first one."""

    module: ClassVar[str] = "inferno_runtime.worker.image_decoder"  # what the process runs

    def __init__(self) -> None:
        self._helper = Helper(self.module)
        self._turn = asyncio.Lock()
        self._live: set[Pixels] = set()

    async def read(self, data: bytes, most_pixels: int) -> Pixels:
        """The pixels of an image, which the caller gives back by `release`; several take turns.

        most_pixels: that it may have. Raises `ImageRefused`, `Overloaded` or `ServerEnding`.
        """
        async with self._turn:
            if sum(pixels.size for pixels in self._live) > _LIVE_BYTES:
                raise Overloaded("Too many images are being looked at; try again later.")
            pixels = Pixels()
            try:
                decoded = await self._decode(Encoded(data, pixels.path, most_pixels))
            except BaseException:
                pixels.close()
                raise
            pixels.image = Image(decoded.digest, decoded.width, decoded.height, pixels.path)
            self._live.add(pixels)
            return pixels

    def release(self, pixels: Pixels) -> None:
        """Free an image."""
        self._live.discard(pixels)
        pixels.close()

    async def stop(self) -> None:
        """End the process, and take no more images."""
        await self._helper.close()

    async def _decode(self, frame: Encoded) -> Decoded:
        try:
            decoded = _from_decoder.decode(await self._helper.ask(written(frame)))
        except HelperClosed:
            raise ServerEnding from None
        except HelperDied as died:
            if died.code == -signal.SIGPROF:
                raise ImageRefused(f"it takes more than {SECONDS:g} seconds to decode") from None
            logger.warning("the process that decodes images ended (exit code %d)", died.code)
            raise ImageRefused("it cannot be decoded") from None
        if decoded.error is not None:
            raise ImageRefused(decoded.error)
        return decoded
