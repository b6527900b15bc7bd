"""`/openapi.json`."""

import logging
from functools import lru_cache

import msgspec

from inferno_runtime.config import ServerConfig
from inferno_runtime.openai.openapi import document
from inferno_runtime.server.base import BaseHandler
from inferno_runtime.server.health import VERSION


class OpenApiHandler(BaseHandler):
    """The API's description."""

    log_level = logging.DEBUG

    async def run(self) -> None:
        config = self.context.config
        await self.finish(_encoded(tuple(offer.name for offer in self.context.registry.offers()), config.server))


@lru_cache(maxsize=1)  # a process has one configuration, but for tests
def _encoded(models: tuple[str, ...], config: ServerConfig) -> bytes:
    return msgspec.json.encode(document(VERSION, models, config))
