"""A decoder that takes some images ill: `spin` takes for ever, and `die` kills it as a fault in native code would."""

import os
import signal
from unittest.mock import patch

from PIL import Image

from inferno_runtime.worker import image_decoder

_decode = image_decoder.decode


def decode(data: bytes, most_pixels: int) -> Image.Image:
    while data == b"spin":
        pass
    if data == b"die":
        os.kill(os.getpid(), signal.SIGSEGV)
    return _decode(data, most_pixels)


with patch.multiple(image_decoder, decode=decode, SECONDS=0.3):
    image_decoder.main()
