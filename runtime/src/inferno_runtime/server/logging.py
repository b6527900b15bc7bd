"""One log line per event, as JSON or for people, with the id of the request that it belongs to.

Prompts, answers and keys are never logged.
"""

import contextvars
import logging
import sys
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from inferno_runtime.config import ServerConfig

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)


def configure(config: ServerConfig, stream: TextIO = sys.stderr) -> None:
    """Send the logs of this process to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_add_request_id)
    as_text = config.log_format == "text" or (config.log_format == "auto" and stream.isatty())
    handler.setFormatter(_TextFormatter() if as_text else _json_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.log_level.upper())
    # One line per slow callback or unclosed client is asyncio's own business.
    logging.getLogger("asyncio").setLevel(max(root.level, logging.WARNING))
    # tornado quotes the headers that it cannot read, and one may hold a key; server.transport says that it refused them.
    logging.getLogger("tornado.general").setLevel(max(root.level, logging.WARNING))


def _add_request_id(record: logging.LogRecord) -> bool:
    if not hasattr(record, "request_id"):
        record.request_id = request_id.get()
    return True


def _json_formatter() -> JsonFormatter:
    return JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
        json_ensure_ascii=False,
    )


class _TextFormatter(logging.Formatter):
    """For people: the fields that JSON has apart stand in the message already."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s%(suffix)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        identity = getattr(record, "request_id", None)
        record.suffix = f"  [{identity}]" if identity else ""
        return super().format(record)
