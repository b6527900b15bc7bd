"""``inferno fetch`` and ``inferno inspect``: in a pod they run before the model is served; on a laptop by hand."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from inferno_runtime.config import AdapterConfig, RuntimeConfig, ServedModel
from inferno_runtime.fetch import report
from inferno_runtime.fetch.arguments import DEFAULT_CACHE
from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.errors import BadSource, FetchError, NoModelFound, NotFound
from inferno_runtime.fetch.model import Fetcher, Wanted
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.facts import ModelFacts
from inferno_runtime.models.gguf import MAGIC
from inferno_runtime.models.inspect import inspect
from inferno_runtime.sources import FileSource, RemoteSource, is_folder, parse_source

_log = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> int:
    """Runs one of the commands; the process's exit status."""
    report.configure_log()
    try:
        result = _COMMANDS[arguments.command](arguments)
    except FetchError as error:
        print(f"inferno: {error}", file=sys.stderr)
        report.leave(report.failure(error.reason, str(error)))
        return 1
    report.leave(report.success(result))
    return 0


def localized(config: RuntimeConfig, cache: Path = DEFAULT_CACHE) -> RuntimeConfig:
    """The configuration with every remote source fetched, and named by where it is then. Raises `FetchError`."""
    models = []
    for served in config.models:
        model = served.model
        if not model.source.startswith("file:"):
            wanted = _wanted(model.source, model.files, model.sha256, model.endpoint)
            if isinstance(wanted, Wanted):
                report.configure_log()
                fetched = Fetcher().fetch(wanted, Cache(cache), user=served.name)
                model = model.model_copy(update={"source": fetched.folder.as_uri(), "files": (), "endpoint": None})
        adapters = tuple(_localized(adapter, served, cache) for adapter in model.adapters)
        models.append(served.model_copy(update={"model": model.model_copy(update={"adapters": adapters})}))
    return config.model_copy(update={"models": tuple(models)})


def _localized(adapter: AdapterConfig, served: ServedModel, cache: Path) -> AdapterConfig:
    endpoint = _endpoint_of(served.model.source, served.model.endpoint, adapter.source)
    wanted = _wanted(adapter.source, (), adapter.sha256, endpoint)
    if isinstance(wanted, Path):
        return adapter
    report.configure_log()
    path, _ = _fetch_adapter(adapter.name, wanted, Cache(cache), None, served.name)
    return adapter.model_copy(update={"source": path.as_uri()})


def _wanted(source: str, files: tuple[str, ...], sha256: str | None, endpoint: str | None) -> Wanted | Path:
    try:
        parsed = parse_source(source)
    except ValueError as error:
        raise BadSource(str(error)) from None
    if isinstance(parsed, FileSource):
        return Path(parsed.path)
    if not isinstance(parsed, RemoteSource):
        raise BadSource(f"{source} is what a cluster mounts; it cannot be fetched")
    return Wanted(parsed, files, sha256, endpoint)


def _endpoint_of(model: str, endpoint: str | None, adapter: str) -> str | None:
    """The endpoint of an adapter's source: the model's, if both are of one kind."""
    return endpoint if model.partition("://")[0] == adapter.partition("://")[0] else None


def _stated(arguments: argparse.Namespace) -> Wanted | Path:
    return _wanted(arguments.source, tuple(arguments.files), arguments.sha256, arguments.endpoint)


def _inspect(arguments: argparse.Namespace) -> dict[str, Any]:
    wanted = _stated(arguments)
    facts = Fetcher().inspect(wanted) if isinstance(wanted, Wanted) else _inspect_path(wanted)
    sizes = (
        _bytes_beside(adapter, _endpoint_of(arguments.source, arguments.endpoint, adapter))
        for adapter in arguments.adapters
    )
    facts = facts.model_copy(update={"adapter_bytes": sum(sizes)})
    if arguments.projector:
        facts = _with_projector(facts, wanted, arguments.projector)
    print(json.dumps(facts.wire(), indent=2))
    return {"model": facts.wire()}


def _inspect_path(path: Path) -> ModelFacts:
    try:
        return inspect(path)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from None
    except ModelError as error:
        raise NoModelFound(f"{path}: {error}") from None


def _with_projector(facts: ModelFacts, wanted: Wanted | Path, projector: str) -> ModelFacts:
    """The facts of a model that is served with this projector; one by its name is a file of a folder that is the source."""
    size = 0
    if projector.startswith("file:"):
        size = _bytes_beside(projector)
    elif isinstance(wanted, Path) and not wanted.is_dir():
        size = _bytes_beside((wanted.parent / projector).as_uri())
    seeing = (*(name for name in facts.capabilities or () if name != "vision"), "vision")
    return facts.model_copy(update={"projector_bytes": size, "capabilities": seeing})


def _bytes_beside(source: str, endpoint: str | None = None) -> int:
    """0 of one that cannot be seen from here: in a pod it may lie in a volume that only the server has."""
    wanted = _wanted(source, (), None, endpoint)
    if isinstance(wanted, Wanted):
        return Fetcher().size(wanted)
    try:
        return wanted.stat().st_size
    except OSError as error:
        _log.warning("%s: %s; it is not counted", source, error.strerror)
        return 0


def _fetch(arguments: argparse.Namespace) -> dict[str, Any]:
    wanted = _stated(arguments)
    if isinstance(wanted, Path):
        raise BadSource(f"{wanted} is here already; there is nothing to fetch")
    cache = Cache(arguments.cache)
    fetched = Fetcher().fetch(wanted, cache, limit=arguments.cache_limit, user=arguments.user)
    if arguments.link is not None:
        _link(arguments.link, fetched.folder)
    _log.info(
        "%s: %d of %d bytes were fetched, digest %s", fetched.folder, fetched.fetched, fetched.size, fetched.sha256
    )
    print(fetched.folder)
    return fetched.wire()


def _fetch_adapters(arguments: argparse.Namespace) -> dict[str, Any]:
    cache, fetched = Cache(arguments.cache), 0
    for adapter in arguments.adapters:
        wanted = _wanted(adapter.source, (), adapter.sha256, None)
        if isinstance(wanted, Path):
            raise BadSource(f"{wanted} is here already; there is nothing to fetch")
        path, size = _fetch_adapter(adapter.name, wanted, cache, arguments.cache_limit, arguments.user)
        fetched += size
        if arguments.folder is not None:
            _link(arguments.folder / f"{adapter.name}.gguf", path)
        print(path)
    return {"adapters": len(arguments.adapters), "fetchedBytes": fetched}


def _fetch_adapter(name: str, wanted: Wanted, cache: Cache, limit: int | None, user: str | None) -> tuple[Path, int]:
    """The adapter's file in the cache, and how many bytes came over the network for it."""
    if is_folder(wanted.source) or "*" in wanted.source.path:
        raise BadSource(f"{name}: an adapter is one file, so its source must name one")
    found = Fetcher().fetch_files(wanted, cache, limit=limit, user=f"{user}:{name}" if user else None)
    if len(found.files) != 1:
        raise BadSource(f"{name}: an adapter is one file, and its source means {len(found.files)}")
    path = found.folder / found.files[0]
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise NoModelFound(f"{name}: not a GGUF file; convert_lora_to_gguf.py makes one of PEFT's")
    _log.info("%s: %d of %d bytes were fetched, digest %s", path, found.fetched, found.size, found.sha256)
    return path, found.fetched


def _link(path: Path, target: Path) -> None:
    """Makes ``path`` a symbolic link to ``target``, in place of one that may be there."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.rename(path)


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]]] = {
    "fetch": _fetch,
    "fetch-adapters": _fetch_adapters,
    "inspect": _inspect,
}
