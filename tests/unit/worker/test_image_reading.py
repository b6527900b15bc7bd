"""Images are decoded where one that is made to do harm takes nothing with it."""

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from inferno_runtime.worker.errors import ImageRefused
from inferno_runtime.worker.images import FORMATS, MOST_PIXELS, ImageReader, Pixels

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 50_000_000


class Dying(ImageReader):
    module = "tests.unit.worker.dying_decoder"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader() -> AsyncIterator[ImageReader]:
    reader = ImageReader()
    yield reader
    await reader.stop()


def picture(width: int = 40, height: int = 30, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A gradient, from dark at the top left to light at the bottom right."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 255 // (width + height)
    image = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    target = io.BytesIO()
    image.save(target, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return target.getvalue()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG file that claims a size, whatever it holds."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def shown(pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = pixels.image
    return np.frombuffer(Path(image.path).read_bytes(), np.uint8).reshape(image.height, image.width, 3)


async def refusal(reader: ImageReader, data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(ImageRefused) as caught:
        await reader.read(data, limit)
    return str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
async def test_each_format_is_decoded(reader: ImageReader, kind: str) -> None:
    pixels = await reader.read(picture(kind=kind), LIMIT)
    want = np.asarray(Image.open(io.BytesIO(picture())).convert("RGB")).astype(int)
    assert np.abs(shown(pixels).astype(int) - want).max() < 12  # GIF has 256 colours, and JPEG guesses
    reader.release(pixels)
    assert not Path(pixels.path).exists()


async def test_the_digest_is_of_what_is_seen(reader: ImageReader) -> None:
    one, same, other, wide = [
        (await reader.read(data, LIMIT)).image.digest
        for data in (picture(), picture(kind="BMP"), picture(41), picture(30, 40))
    ]
    assert one == same
    assert len({one, other, wide}) == 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
async def test_each_kind_of_colours_is_shown(reader: ImageReader, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    if mode == "I;16":
        ramp = (np.add.outer(np.arange(30), np.arange(40)) * 65535 // 70).astype(np.uint16)
        target = io.BytesIO()
        Image.fromarray(ramp).save(target, "PNG")
        data = target.getvalue()
    else:
        data = picture(mode=mode, kind=kind)
    seen = shown(await reader.read(data, LIMIT))
    assert int(seen[0, 0].max()) < 60 < 200 < int(seen[-1, -1].min())


async def test_what_is_transparent_is_white(reader: ImageReader) -> None:
    target = io.BytesIO()
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(target, "PNG")
    assert shown(await reader.read(target.getvalue(), LIMIT)).min() == 255


async def test_a_photo_is_turned_upright(reader: ImageReader) -> None:
    target = io.BytesIO()
    image = Image.new("RGB", (60, 40), "black")
    image.paste((255, 255, 255), (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn it clockwise
    image.save(target, "JPEG", exif=exif)
    seen = shown(await reader.read(target.getvalue(), LIMIT))
    assert seen.shape == (60, 40, 3)
    assert seen[:25].min() > 200 > 50 > seen[35:].max()


async def test_a_large_image_is_scaled_down_and_a_small_one_up(reader: ImageReader) -> None:
    for width, height in ((4000, 2000), (2049, 2049)):
        image = (await reader.read(picture(width, height, "JPEG"), LIMIT)).image
        assert image.width * image.height <= MOST_PIXELS
        assert abs(image.width / image.height - width / height) < 0.01
    for width, height in ((1, 1), (1, 100), (100, 1), (27, 40)):
        image = (await reader.read(picture(width, height), LIMIT)).image
        assert min(image.width, image.height) >= 28


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x", "none of PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "none of PNG"),
        (picture()[:60], "broken"),
        (picture(kind="JPEG")[:200], "broken"),
        (b"GIF89a" + bytes(7), "broken"),
        (png(100, 100), "broken"),
        (png(100, 100, b"\xff" * 50), "broken"),
        (png(60_000, 60_000), "60000 × 60000 pixels"),
        (png(2**31 - 1, 2**31 - 1), "pixels"),
        (png(1, 40_000), "times as long as wide"),
        (png(7_000, 7_000, zlib.compress(bytes(7_000 * 7_001 * 3))[:2000]), "broken"),
    ],
    ids=[
        "text",
        "svg",
        "postscript",
        "half-png",
        "half-jpeg",
        "empty-gif",
        "no-data",
        "no-stream",
        "claims-much",
        "claims-all",
        "line",
        "cut-bomb",
    ],
)
async def test_what_is_no_image_is_refused(reader: ImageReader, data: bytes, words: str) -> None:
    assert words in await refusal(reader, data)
    reader.release(await reader.read(picture(), LIMIT))  # and the next one is not


async def test_a_file_that_unpacks_to_much_is_decoded_within_its_bounds(reader: ImageReader) -> None:
    bomb = png(7_000, 7_000, zlib.compress(bytes(7_000 * 21_001), 9))  # 147 MB in 150 kB
    image = (await reader.read(bomb, LIMIT)).image
    assert image.width * image.height <= MOST_PIXELS


@pytest.mark.parametrize(("data", "words"), [(b"spin", "seconds to decode"), (b"die", "cannot be decoded")])
async def test_one_that_harms_its_decoder_harms_nobody_else(data: bytes, words: str) -> None:
    reader = Dying()
    try:
        outcomes = await asyncio.gather(
            refusal(reader, data), reader.read(picture(), LIMIT), refusal(reader, data), return_exceptions=True
        )
        assert words in str(outcomes[0])
        assert isinstance(outcomes[1], Pixels)
        assert words in str(outcomes[2])
    finally:
        await reader.stop()
