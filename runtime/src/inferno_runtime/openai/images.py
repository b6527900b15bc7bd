"""Images in the contents of messages: where they come from, and where they stand."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from inferno_runtime.openai import errors
from inferno_runtime.openai.requests import ChatRequest, Message

_DETAILS = (None, "auto", "low", "high", "original")  # all of which are taken, and mean the same


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image of a request, which its URL holds (`data:`) or names. where: the part of the request that it is."""

    url: str
    where: str


@dataclass(frozen=True, slots=True)
class Content:
    """The text of a message, and the images in it, each with the character that it stands before."""

    text: str
    images: tuple[tuple[ImageSource, int], ...] = ()


def content_of(given: str | list[dict[str, Any]], where: str) -> Content:
    """A message's content. Raises `ApiError`.

    Texts are joined by line ends, and images stand between them without any.
    """
    if isinstance(given, str):
        return Content(given)
    text = ""
    images: list[tuple[ImageSource, int]] = []
    behind_text = False
    for number, part in enumerate(given):
        at = f"{where}[{number}]"
        kind = part.get("type")
        if kind == "image_url":
            images.append((_source(part, at), len(text)))
            behind_text = False
            continue
        if kind not in ("text", "refusal"):
            raise errors.unsupported("messages", f"{at}: parts are of the type 'text' or 'image_url' here.")
        words = part.get(kind)
        if not isinstance(words, str):
            raise errors.bad_request(f"{at}.{kind} must be a string.", "messages")
        text += f"\n{words}" if behind_text else words
        behind_text = True
    return Content(text, tuple(images))


def sources_of(request: ChatRequest) -> list[ImageSource]:
    """The images of a request, in order. Raises `ApiError` where a content is wrong."""
    return [source for source, _ in _images(request.messages)]


def _images(messages: Sequence[Message]) -> Iterator[tuple[ImageSource, int]]:
    for number, message in enumerate(messages):
        if isinstance(message.content, list):
            yield from content_of(message.content, f"messages[{number}].content").images


def bytes_of(source: ImageSource, most: int) -> bytes:
    """What the URL of an image holds that is a `data:` URL. Raises `ApiError`."""
    head, comma, data = source.url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise refused(source, "its data: URL is not data:image/TYPE;base64,DATA")
    if len(data) * 3 // 4 > most + 2:
        raise too_large(source, most)
    try:
        read = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise refused(source, "its data is not Base64") from None
    if not read:
        raise refused(source, "it is empty")
    if len(read) > most:
        raise too_large(source, most)
    return read


def unseen(source: ImageSource) -> errors.ApiError:
    """An image for a model that reads text only."""
    return errors.unsupported(
        "messages", f"{source.where}: this model reads text only: it has no projector for images."
    )


def refused(source: ImageSource, reason: str) -> errors.ApiError:
    """An image that cannot be shown to a model; the reason goes on from "The image is refused: "."""
    return errors.bad_request(f"{source.where}: the image is refused: {reason}.", "messages", "invalid_image")


def too_large(source: ImageSource, most: int) -> errors.ApiError:
    """An image of too many bytes."""
    return refused(source, f"it has more than {most:,} bytes")


def _source(part: dict[str, Any], at: str) -> ImageSource:
    given = part.get("image_url")
    url, detail = (given.get("url"), given.get("detail")) if isinstance(given, dict) else (given, part.get("detail"))
    if not isinstance(url, str):
        raise errors.bad_request(f"{at}.image_url.url must be a string.", "messages")
    if detail not in _DETAILS:
        raise errors.bad_request(f"{at}.image_url.detail must be 'auto', 'low' or 'high'.", "messages")
    return ImageSource(url, at)
