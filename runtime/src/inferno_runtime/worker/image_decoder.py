"""The process that decodes images before they reach an engine, so that one which is made to do harm takes nothing with it.

It reads frames from its standard input and answers each on its standard output. It ends when an image takes more CPU time
than it may, when a decoder crashes, and with its input.
"""

import hashlib
import io
import math
import signal
import sys
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from inferno_runtime.worker.helper import framed, limit_memory, limited_time, read_frame
from inferno_runtime.worker.images import FORMATS, MOST_PIXELS, SECONDS, Decoded, Encoded, from_server, written

_MEMORY = 1536 << 20  # bytes
_LONGEST = 100  # times as long as wide; longer ones are lines, and preprocessors divide by their width
_LEAST_SIDE = 28  # pixels, less than which some preprocessors make nothing of

Image.MAX_IMAGE_PIXELS = None  # each question has its own limit


class _Refused(Exception):
    """What is wrong with an image."""


def main() -> None:
    """Serve on the standard streams."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the whole process group
    Image.preinit()
    limit_memory(_MEMORY)
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer until the input ends."""
    while (payload := read_frame(source)) is not None:
        with limited_time(SECONDS):
            answer = _answer(from_server.decode(payload))
        target.write(framed(written(answer)))
        target.flush()


def _answer(frame: Encoded) -> Decoded:
    try:
        image = decode(frame.data, frame.most_pixels)
    except _Refused as refused:
        return Decoded(0, 0, b"", str(refused))
    except MemoryError:
        return Decoded(0, 0, b"", "it takes more memory to decode than it may")
    except Exception as error:
        # Decoders raise what their formats' parsers happen to.
        return Decoded(0, 0, b"", f"it is broken ({error})"[:200])
    pixels = image.tobytes()
    with open(frame.path, "wb") as file:
        file.write(pixels)
    digest = hashlib.sha256(f"{image.width} {image.height} ".encode() + pixels).digest()
    return Decoded(image.width, image.height, digest)


def decode(data: bytes, most_pixels: int) -> Image.Image:
    """An image as a model is shown it: upright, in colour, on white, and not too large."""
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _Refused(f"it is none of {', '.join(FORMATS)}, or is broken") from None
    width, height = image.size
    if width * height > most_pixels:  # by what it says of itself, before anything is decoded
        raise _Refused(f"it has {width} × {height} pixels, and may have {most_pixels:,} in all")
    if max(width, height) > _LONGEST * min(width, height):
        raise _Refused(f"it has {width} × {height} pixels, and may be {_LONGEST} times as long as wide")
    size = _shown_size(width, height)
    image.draft("RGB", size)  # JPEG can be decoded at a fraction of its size
    coloured = _coloured(image)
    shown = coloured if coloured.size == size else coloured.resize(size, Image.Resampling.LANCZOS)
    return ImageOps.exif_transpose(shown)


def _shown_size(width: int, height: int) -> tuple[int, int]:
    """The size at which an image is shown, in the proportions that it has."""
    factor = min(1.0, math.sqrt(MOST_PIXELS / (width * height)))
    factor = max(factor, _LEAST_SIDE / min(width, height))
    return max(int(width * factor), _LEAST_SIDE), max(int(height * factor), _LEAST_SIDE)


def _coloured(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which are taken for 32 otherwise
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown).convert("RGB")
    return image.convert("RGB")


if __name__ == "__main__":
    main()
