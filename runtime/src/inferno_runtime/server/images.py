"""The images of one request: brought here, decoded, and given back when it has ended."""

from collections.abc import Iterable

from inferno_runtime.backends.base import Image, Layout
from inferno_runtime.config import ServerConfig
from inferno_runtime.openai import errors
from inferno_runtime.openai.images import ImageSource, bytes_of, refused, unseen
from inferno_runtime.server.registry import Engine
from inferno_runtime.server.remote import RemoteImages, Unfetched
from inferno_runtime.server.work import aside
from inferno_runtime.worker.errors import ImageRefused
from inferno_runtime.worker.images import Shown


class Album:
    """The images of a request. What occurs twice is read once."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._shown: dict[str, Shown] = {}
        self._engine: Engine | None = None

    async def look(self, sources: list[ImageSource], engine: Engine) -> list[tuple[Image, Layout]]:
        """What a model is shown of these images, in order. Raises `ApiError`, and what `Engine.look` does."""
        if not sources:
            return []
        if not engine.info.vision:
            raise unseen(sources[0])
        if len(sources) > self._config.max_images:
            raise errors.bad_request(
                f"A request may have at most {self._config.max_images} images, and this one has {len(sources)}.",
                "messages",
            )
        self._engine = engine
        for source in sources:
            if source.url not in self._shown:
                self._shown[source.url] = await self._one(source, engine)
        found = (self._shown[source.url] for source in sources)
        return [(shown.image, shown.layout) for shown in found]

    def close(self) -> None:
        """Give the images back."""
        for shown in self._given_back():
            assert self._engine is not None
            self._engine.overlook(shown)

    def _given_back(self) -> Iterable[Shown]:
        shown = list(self._shown.values())
        self._shown.clear()
        return shown

    async def _one(self, source: ImageSource, engine: Engine) -> Shown:
        data = await self._bytes(source)
        try:
            return await engine.look(data, self._config.max_image_pixels)
        except ImageRefused as error:
            raise refused(source, str(error)) from error

    async def _bytes(self, source: ImageSource) -> bytes:
        scheme = source.url[:5].lower()
        if scheme == "data:":
            return await aside(lambda: bytes_of(source, self._config.max_image_bytes), len(source.url))
        try:
            return await RemoteImages(self._config).fetch(source.url)
        except Unfetched as error:
            raise refused(source, str(error)) from error
