"""The command line: ``inferno-operator run`` and ``inferno-operator version``."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from inferno_operator import __version__, logs

if TYPE_CHECKING:
    from inferno_operator.profiles import Profiles

_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_IMAGE_VARIABLE: Final = "INFERNO_RUNTIME_IMAGE"


def parser() -> argparse.ArgumentParser:
    """The flags, each with its default."""
    top = argparse.ArgumentParser(prog="inferno-operator", description="Serves language models on Kubernetes.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("version", help="print the version")
    run = commands.add_parser("run", help="run the operator", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    run.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="look after the models of this namespace; may be repeated; left out, or 'all', after every namespace's",
    )
    run.add_argument(
        "--runtime-image",
        default=os.environ.get(_IMAGE_VARIABLE) or f"inferno-runtime:{__version__}",
        help=f"container image for models that name none; also ${_IMAGE_VARIABLE}",
    )
    run.add_argument(
        "--lease-namespace",
        default=_own_namespace() or "default",
        help="namespace of the Lease that says which replica acts; also $POD_NAMESPACE",
    )
    run.add_argument("--no-leader-election", action="store_true", help="act at once; only where no other replica runs")
    run.add_argument(
        "--health-port", type=_port, default=8080, help="TCP port of /healthz, /readyz and /metrics; 0 takes a free one"
    )
    run.add_argument(
        "--resync-seconds",
        type=_positive,
        default=600,
        metavar="SECONDS",
        help="seconds between two lists of everything, which are held against what the watches have reported",
    )
    run.add_argument(
        "--autoscale-seconds",
        type=_positive,
        default=10,
        metavar="SECONDS",
        help="seconds between two looks at what the pods of models with spec.autoscaling have to do",
    )
    run.add_argument(
        "--profiles",
        type=_profiles,
        metavar="FILE",
        help="YAML file of hardware profiles, by name, that models may ask for in spec.profiles",
    )
    run.add_argument(
        "--log-format",
        choices=("auto", "json", "text"),
        default="auto",
        help="auto is text on a terminal, JSON elsewhere",
    )
    run.add_argument(
        "--verbose", action="store_true", help="log what is only of interest to those who search for an error"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of ``inferno-operator``."""
    options = parser().parse_args(arguments)
    if options.command == "version":
        print(__version__)
        return
    logs.configure(options.log_format, options.verbose)
    sys.exit(_run(options))


def _run(options: argparse.Namespace) -> int:
    from inferno_operator.app import Operator, Options  # it takes a second, which ``version`` and ``--help`` need not

    settings = Options(
        runtime_image=options.runtime_image,
        namespaces=() if "all" in options.namespace else tuple(dict.fromkeys(options.namespace)),
        own_namespace=_own_namespace(),
        lease_namespace=None if options.no_leader_election else options.lease_namespace,
        health_port=options.health_port,
        resync_seconds=options.resync_seconds,
        autoscale_seconds=options.autoscale_seconds,
        profiles=options.profiles or {},
    )

    async def run() -> int:
        return await Operator(settings).run()

    return asyncio.run(run())


def _own_namespace() -> str | None:
    """Where this runs; None outside of a cluster."""
    if given := os.environ.get("POD_NAMESPACE"):
        return given
    try:
        return _ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _profiles(path: str) -> "Profiles":
    from inferno_operator.profiles import parse

    try:
        return parse(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise argparse.ArgumentTypeError(f"{path} has no hardware profiles: {' '.join(str(error).split())}") from error


def _positive(text: str) -> int:
    seconds = int(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return seconds


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port
