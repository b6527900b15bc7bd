"""The grammar of ``inferno fetch`` and ``inferno inspect``; apart from the commands, which take longer to import."""

import argparse
import os
from pathlib import Path
from typing import Any, Final

from inferno_runtime.config import ModelConfig

# Not by Path.home(), which fails where the user has none, as in a container.
DEFAULT_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "inferno", "models")


def add_commands(commands: Any) -> None:
    """Adds both commands to the command line's grammar."""
    fetch = commands.add_parser(
        "fetch",
        help="bring a model into a cache",
        description="Fetch a model into a cache, resumed and verified, and print its folder. HF_TOKEN, AWS_* and HTTP_BEARER_TOKEN, or HTTP_USERNAME "
        "and HTTP_PASSWORD, are the credentials; HF_ENDPOINT and AWS_ENDPOINT_URL name other servers.",
    )
    _add_source(fetch)
    fetch.add_argument(
        "--cache", type=Path, default=DEFAULT_CACHE, help="folder to keep models in (default: %(default)s)"
    )
    fetch.add_argument(
        "--cache-limit",
        type=int,
        metavar="BYTES",
        help="bytes that the cache may hold; what nobody uses goes for what is fetched",
    )
    fetch.add_argument("--link", type=Path, metavar="PATH", help="make PATH a link to the model's folder")
    fetch.add_argument("--user", metavar="NAME", help="who uses the model; what was used last is evicted last")
    inspect_ = commands.add_parser(
        "inspect",
        help="say what a model is, from its header",
        description="Read the beginning of a model's files, wherever they are, and print what it is as JSON.",
    )
    _add_source(inspect_)
    inspect_.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="SOURCE",
        dest="adapters",
        help="file:///PATH of a LoRA adapter that the model is served with; it takes memory, too",
    )
    inspect_.add_argument(
        "--projector", metavar="PATH", help="the projector that the model is served with, as in spec.model.projector"
    )


def _add_source(command: argparse.ArgumentParser) -> None:
    fields = ModelConfig.model_fields
    command.add_argument("source", metavar="SOURCE", help="https://, hf://, s3:// or file:// as in spec.model.source")
    command.add_argument("--sha256", metavar="DIGEST", help=fields["sha256"].description)
    command.add_argument(
        "--file", action="append", default=[], metavar="NAME", dest="files", help=fields["files"].description
    )
    command.add_argument("--endpoint", metavar="URL", help=fields["endpoint"].description)
