"""The grammar of ``inferno fetch`` and ``inferno inspect``; apart from the commands, which take longer to import."""

import argparse
import os
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from inferno_runtime.config import AdapterConfig, ModelConfig

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
    _add_cache(fetch)
    fetch.add_argument("--link", type=Path, metavar="PATH", help="make PATH a link to the model's folder")
    adapters = commands.add_parser(
        "fetch-adapters",
        help="bring LoRA adapters into a cache",
        description="Fetch LoRA adapters into a cache, as fetch does a model, and print their paths.",
    )
    adapters.add_argument(
        "--adapter",
        action="append",
        required=True,
        type=_adapter,
        metavar="NAME=SOURCE[#DIGEST]",
        dest="adapters",
        help="the adapter's name, where it is, and its SHA-256 digest; may be repeated",
    )
    _add_cache(adapters)
    adapters.add_argument("--folder", type=Path, metavar="PATH", help="put links into it, NAME.gguf for each adapter")
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
        help="a LoRA adapter that the model is served with, wherever it is; it takes memory, too",
    )
    inspect_.add_argument(
        "--projector", metavar="PATH", help="the projector that the model is served with, as in spec.model.projector"
    )


def _add_cache(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cache", type=Path, default=DEFAULT_CACHE, help="folder to keep models in (default: %(default)s)"
    )
    command.add_argument(
        "--cache-limit",
        type=int,
        metavar="BYTES",
        help="bytes that the cache may hold; what nobody uses goes for what is fetched",
    )
    command.add_argument("--user", metavar="NAME", help="who uses it; what was used last is evicted last")


def _adapter(text: str) -> AdapterConfig:
    name, _, place = text.partition("=")
    source, _, digest = place.partition("#")
    try:
        return AdapterConfig(name=name, source=source, sha256=digest or None)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=SOURCE[#DIGEST]: {error.errors()[0]['msg']}") from error


def _add_source(command: argparse.ArgumentParser) -> None:
    fields = ModelConfig.model_fields
    command.add_argument("source", metavar="SOURCE", help="https://, hf://, s3:// or file:// as in spec.model.source")
    command.add_argument("--sha256", metavar="DIGEST", help=fields["sha256"].description)
    command.add_argument(
        "--file", action="append", default=[], metavar="NAME", dest="files", help=fields["files"].description
    )
    command.add_argument("--endpoint", metavar="URL", help=fields["endpoint"].description)
