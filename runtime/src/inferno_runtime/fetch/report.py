"""What a fetch says at its end: to people in its log, and to the operator in the container's termination message."""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any, Final, TextIO

TERMINATION_LOG: Final = Path("/dev/termination-log")  # where a kubelet looks for a container's last words
_MESSAGE_LENGTH: Final = 2048  # bytes of the 4096 that a kubelet keeps; what has to stand beside them is short


def success(result: dict[str, Any]) -> str:
    """The last words of a fetch that has reached its end."""
    return json.dumps(result, separators=(",", ":"), ensure_ascii=False)


def failure(reason: str, message: str) -> str:
    """The last words of one that has not."""
    short = message.encode()[:_MESSAGE_LENGTH].decode("utf-8", "ignore")
    return json.dumps({"reason": reason, "message": short}, separators=(",", ":"), ensure_ascii=False)


def leave(text: str, path: Path = TERMINATION_LOG) -> None:
    """Writes the last words where a kubelet finds them, if this is a container of one's."""
    try:
        if path.exists():
            path.write_text(text, encoding="utf-8")
    except OSError:
        pass  # the log has it


def configure_log(stream: TextIO | None = None) -> None:
    """One line for each event, to standard error: for people on a terminal, else as JSON."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s") if stream.isatty() else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # It tells of each retry and connection, with the URL's query.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        if (told := getattr(record, "fetch", None)) is not None:
            line["fetch"] = told
        return json.dumps(line, ensure_ascii=False)
