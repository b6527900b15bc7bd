"""Settings that change while the server serves: its files are read again when they change."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from inferno_runtime.config import LIVE, RuntimeConfig, ServedModel, ServerConfig
from inferno_runtime.resource import ResourceError
from inferno_runtime.server.context import Context
from inferno_runtime.server.logging import configure

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0  # between two looks at the files


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the configuration came from: files, how to read them again, and the models that they named at first, which
    may have been fetched since.
    """

    files: Sequence[Path]
    read: Callable[[], RuntimeConfig]
    models: tuple[ServedModel, ...]


class Reloader:
    """Applies what changes in the files as far as that goes without a restart."""

    def __init__(self, origin: Origin, context: Context) -> None:
        self._origin = origin
        self._context = context
        self._seen = self._signature()

    async def watch(self) -> None:
        """Look after the files, for ever; in a thread, since their file system may be slow."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            signature = await asyncio.to_thread(self._signature)
            if signature != self._seen:
                self._seen = signature
                self.refresh()

    def refresh(self) -> None:
        """Read the files again. What cannot be read or applied changes nothing, and is logged."""
        try:
            read = self._origin.read()
        except (ResourceError, ValidationError) as error:
            _log.error("the settings stay as they were: %s", error)
            return
        config = self._context.config
        changed = _differences(config.server, read.server)
        if lasting := sorted(changed - LIVE):
            _log.warning("these settings need a restart: %s", ", ".join(lasting))
        if read.models != self._origin.models:
            _log.warning("what has changed of the models needs a restart")
        if live := sorted(changed & LIVE):
            self._apply(config, config.server.model_copy(update={name: getattr(read.server, name) for name in live}))
            _log.info("changed without a restart: %s", ", ".join(live))

    def _apply(self, config: RuntimeConfig, server: ServerConfig) -> None:
        self._context.config = config.model_copy(update={"server": server})
        self._context.access.limit(server)
        if server.log_level != config.server.log_level:
            configure(server)

    def _signature(self) -> tuple[object, ...]:
        """Changes with each of the files; a mounted ConfigMap's become other files altogether."""
        found: list[object] = []
        for path in self._origin.files:
            try:
                status = os.stat(path)
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append(None)
        return tuple(found)


def _differences(one: ServerConfig, other: ServerConfig) -> set[str]:
    return {name for name in ServerConfig.model_fields if getattr(one, name) != getattr(other, name)}
