"""The log: one line for each event, as JSON for machines or as text for people, with the model that it is about."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["auto", "json", "text"]

_model: ContextVar[tuple[str, str] | None] = ContextVar("model", default=None)


@contextlib.contextmanager
def reconciled(namespace: str, name: str) -> Iterator[None]:
    """What is logged inside is about this model."""
    token = _model.set((namespace, name))
    try:
        yield
    finally:
        _model.reset(token)


def configure(form: LogFormat, verbose: bool) -> None:
    """Sends every logger of the process to standard error. ``auto`` is text on a terminal and JSON elsewhere."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_model)
    if form == "text" or (form == "auto" and sys.stderr.isatty()):
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(where)s%(message)s"))
    else:
        renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=renamed))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    # kopf tells at length of every event that it hands on.
    logging.getLogger("kopf").setLevel(logging.INFO if verbose else logging.WARNING)
    # It says each time that it takes no signals, outside of the main thread; they are not its business.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def _add_model(record: logging.LogRecord) -> bool:
    if model := _model.get():
        record.namespace, record.model = model
    return True


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        namespace, model = getattr(record, "namespace", None), getattr(record, "model", None)
        record.where = f"{namespace}/{model}: " if namespace and model else ""
        return super().format(record)
