"""The command line: `inferno serve MODEL` and `inferno run RESOURCE.yaml…`.

The flags are made from the fields of the configuration, so that each knob is defined once.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from inferno_runtime import __version__
from inferno_runtime.config import (
    AdapterConfig,
    Config,
    EngineConfig,
    ListenConfig,
    ModelConfig,
    RuntimeConfig,
    ServedModel,
    ServerConfig,
    Task,
)
from inferno_runtime.fetch.arguments import add_commands
from inferno_runtime.resource import ResourceError, explain, load

_SERVER = 1  # the id of a container's first process
_TERMINATION_LOG = Path("/dev/termination-log")  # where a kubelet looks for a container's last words


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = argparse.ArgumentParser(prog="inferno", description="Serve language models behind the OpenAI API.")
    root.add_argument("--version", action="version", version=f"inferno {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve one model", description="Serve one GGUF or ONNX model.")
    serve.add_argument(
        "path",
        nargs="?",
        metavar="MODEL",
        help="a GGUF file, a folder with a GGUF or ONNX model, an ONNX file with its tokenizer beside it, "
        "or an https://, hf:// or s3:// source; by default the tiny model that is built in",
    )
    serve.add_argument("--name", help="name under which clients ask for the model; by default the file's")
    task = ModelConfig.model_fields["task"]
    serve.add_argument("--task", choices=typing.get_args(Task), help=task.description)
    serve.add_argument(
        "--adapter",
        action="append",
        type=_adapter,
        default=[],
        dest="adapters",
        metavar="NAME=PATH[,SCALE]",
        help="a LoRA adapter, a GGUF file, that clients ask for as MODEL:NAME; may be repeated",
    )
    projector = ModelConfig.model_fields["projector"]
    serve.add_argument("--projector", metavar="PATH", help=projector.description)
    _add_flags(serve, ListenConfig, "listening")
    _add_flags(serve, ServerConfig, "server")
    _add_flags(serve, EngineConfig, "engine")

    run = commands.add_parser(
        "run",
        help="serve InfernoModel resources",
        description="Serve the models of InfernoModel resources, as a cluster would: one server, an engine for each. "
        "Flags win over the resources' spec.server.",
    )
    run.add_argument(
        "resources", nargs="+", type=Path, metavar="RESOURCE.yaml", help="files with InfernoModel resources"
    )
    _add_flags(run, ListenConfig, "listening")
    _add_flags(run, ServerConfig, "server")
    add_commands(commands)
    leave = commands.add_parser(
        "leave",
        help="tell the server of this container that it will be ended",
        description="Tell the server, the container's first process, that it will be ended, and wait. It says that it is "
        "not ready, and goes on answering until all have heard of it. For a pod's preStop hook.",
    )
    leave.add_argument("--seconds", type=float, default=0.0, help="how long to wait")
    return root


def main(argv: list[str] | None = None) -> None:
    """Serve, and exit with the server's code; 1 and one line when the models cannot be served."""
    arguments = parser().parse_args(argv)
    if arguments.command in ("fetch", "fetch-adapters", "inspect"):
        sys.exit(_fetch_command(arguments))
    if arguments.command == "leave":
        os.kill(_SERVER, signal.SIGUSR1)
        time.sleep(arguments.seconds)
        sys.exit(0)
    try:
        stated = configuration(arguments)
        config = _fetched(stated)
    except ResourceError as error:
        fail(str(error))
    except ValidationError as error:
        fail(explain(error))
    try:
        from inferno_runtime.server.lifecycle import serve
        from inferno_runtime.server.reload import Origin
        from inferno_runtime.server.tracing import TracingError
    except ImportError as error:
        fail(f"the server's packages are not installed ({error}); install inferno-runtime[serve]")
    from inferno_runtime.backends.base import ModelError
    from inferno_runtime.server.auth import AccessError

    try:
        files = arguments.resources if arguments.command == "run" else []
        origin = Origin(files, lambda: configuration(arguments), stated.models) if files else None
        code = asyncio.run(serve(config, origin))
    except (ModelError, AccessError, TracingError, OSError) as error:
        fail(str(error))
    sys.exit(code)


def _fetch_command(arguments: argparse.Namespace) -> int:
    try:
        from inferno_runtime.fetch import command
    except ImportError as error:
        fail(f"the packages for fetching are not installed ({error}); install inferno-runtime[serve]")
    return command.main(arguments)


def _fetched(config: RuntimeConfig) -> RuntimeConfig:
    """The configuration with every model and adapter on this machine; those that are elsewhere are fetched."""
    models = [served.model for served in config.models]
    sources = [model.source for model in models]
    sources += [adapter.source for model in models for adapter in model.adapters]
    if all(source.startswith("file:") for source in sources):
        return config
    from inferno_runtime.fetch import command
    from inferno_runtime.fetch.errors import FetchError

    try:
        return command.localized(config)
    except FetchError as error:
        fail(str(error))


def configuration(arguments: argparse.Namespace) -> RuntimeConfig:
    """What the command line asks for. Raises `ResourceError` or pydantic's `ValidationError`."""
    listen = ListenConfig(**_given(arguments, ListenConfig))
    if arguments.command == "run":
        config = load(arguments.resources)
        server = ServerConfig(**{**config.server.model_dump(), **_given(arguments, ServerConfig)})
        return config.model_copy(update={"listen": listen, "server": server})
    from inferno_runtime.models.source import DEFAULT_MODEL

    remote = "://" in (arguments.path or "")
    path = Path(arguments.path if remote else Path(arguments.path).absolute()) if arguments.path else DEFAULT_MODEL
    if arguments.draft and "://" not in arguments.draft:
        arguments.draft = Path(arguments.draft).absolute().as_uri()
    name = arguments.name or (_name_of(path) if arguments.path else "inferno-tiny")
    served = ServedModel(
        name=name,
        model=ModelConfig(
            source=arguments.path if remote else path.as_uri(),
            task=arguments.task,
            adapters=tuple(arguments.adapters),
            projector=_projector(arguments.projector),
        ),
        engine=EngineConfig(**_given(arguments, EngineConfig)),
    )
    return RuntimeConfig(models=(served,), server=ServerConfig(**_given(arguments, ServerConfig)), listen=listen)


def _adapter(text: str) -> AdapterConfig:
    """The adapter that NAME=PATH[,SCALE] describes; what follows the last comma is part of the path if it is no number."""
    name, equals, place = text.partition("=")
    if not (name and equals and place):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=PATH[,SCALE]")
    path, _, last = place.rpartition(",")
    try:
        given = {"scale": float(last)} if path else {}
    except ValueError:
        given = {}
    source = Path(path if given else place).absolute().as_uri()
    try:
        return AdapterConfig.model_validate({"name": name, "source": source, **given})
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"'{text}': {explain(error)}") from error


def _projector(given: str | None) -> str | None:
    """A file that is there by its path, and any other by its name, since it may come with the model."""
    return Path(given).absolute().as_uri() if given and Path(given).is_file() else given


def _name_of(path: Path) -> str:
    """What a model is called that nobody named: by its file, or its folder, in which files are all called alike."""
    if path.is_dir():
        return path.name
    beside = path.parent.parent if path.parent.name == "onnx" else path.parent
    return beside.name if path.suffix == ".onnx" and path.stem == "model" and beside.name else path.stem


def fail(message: str) -> typing.NoReturn:
    """End with one line, which a kubelet also finds."""
    print(f"inferno: {message}", file=sys.stderr)
    try:
        if _TERMINATION_LOG.exists():
            _TERMINATION_LOG.write_text(message[:4096])
    except OSError:
        pass  # standard error has it
    sys.exit(1)


def _add_flags(command: argparse.ArgumentParser, section: type[Config], title: str) -> None:
    group = command.add_argument_group(title)
    for name, field in section.model_fields.items():
        kind, choices = _flag_type(field)
        default = "" if field.default in (None, ()) else f" (default: {field.default})"
        several: dict[str, Any] = {"action": "append"} if typing.get_origin(field.annotation) is tuple else {}
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=kind,
            choices=choices,
            metavar=None if choices else kind.__name__.upper(),
            default=None,
            **several,
            help=((field.description or "") + default).replace("%", "%%"),
        )


def _flag_type(field: FieldInfo) -> tuple[type[int] | type[str], list[str] | None]:
    annotation: Any = field.annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):  # the latter where one of them is a Literal
        annotation = next(part for part in annotation.__args__ if part is not type(None))
    if typing.get_origin(annotation) is Literal:
        return str, list(annotation.__args__)
    return (int if annotation is int else str), None


def _given(arguments: argparse.Namespace, section: type[Config]) -> dict[str, Any]:
    return {name: value for name in section.model_fields if (value := getattr(arguments, name, None)) is not None}
