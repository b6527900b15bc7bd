"""How LoRA adapters come into the pods: those that are fetched through the cache, like the model, all others by a volume."""

from typing import Any, Final

from inferno_operator.api import names
from inferno_operator.api.pods import OWN_VOLUMES_PREFIX
from inferno_operator.api.resource import Model
from inferno_operator.api.types import AdapterSpec
from inferno_runtime.sources import ClaimSource, FileSource, ImageSource, RemoteSource

_LINKS: Final = f"{OWN_VOLUMES_PREFIX}adapters"
LINKS_MOUNT: Final[dict[str, Any]] = {"name": _LINKS, "mountPath": names.ADAPTERS_DIRECTORY}
"""Where the links to what was fetched are."""


def fetched(model: Model) -> tuple[AdapterSpec, ...]:
    """The adapters that are brought from elsewhere."""
    return tuple(each for each in model.spec.model.adapters if isinstance(each.parsed_source(), RemoteSource))


def path_in_pod(model: Model, adapter: AdapterSpec) -> str:
    """The absolute path of an adapter's file, as the containers see it."""
    source = adapter.parsed_source()
    if isinstance(source, FileSource):
        return source.path
    if isinstance(source, RemoteSource):
        return f"{names.ADAPTERS_DIRECTORY}/{adapter.name}.gguf"
    return f"{_place(model, source)}/{source.path}"


def volumes(model: Model) -> list[dict[str, Any]]:
    """The volumes that hold adapters and nothing else."""
    made: list[dict[str, Any]] = [{"name": _LINKS, "emptyDir": {}}] if fetched(model) else []
    for number, source in enumerate(_mounted(model)):
        name = f"{_LINKS}-{number}"
        if isinstance(source, ClaimSource):
            made.append({"name": name, "persistentVolumeClaim": {"claimName": source.claim}})
        else:
            made.append({"name": name, "image": {"reference": source.image, "pullPolicy": "IfNotPresent"}})
    return made


def mounts(model: Model) -> list[dict[str, Any]]:
    """Where they are mounted."""
    mounted = [
        {"name": f"{_LINKS}-{number}", "mountPath": _place(model, source)}
        for number, source in enumerate(_mounted(model))
    ]
    return [LINKS_MOUNT, *mounted] if fetched(model) else mounted


def arguments(model: Model) -> list[str]:
    """What the container that fetches adapters is told of them."""
    given = []
    for adapter in fetched(model):
        digest = f"#{adapter.sha256}" if adapter.sha256 else ""
        given.append(f"--adapter={adapter.name}={adapter.source}{digest}")
    return given


def _mounted(model: Model) -> list[ClaimSource | ImageSource]:
    """The claims and images that hold adapters, each once, but for the one that holds the model."""
    found: dict[str, ClaimSource | ImageSource] = {}
    for adapter in model.spec.model.adapters:
        source = adapter.parsed_source()
        if isinstance(source, (ClaimSource, ImageSource)) and _holder(source) != _holder(
            model.spec.model.parsed_source()
        ):
            found.setdefault(_holder(source), source)
    return list(found.values())


def _holder(source: object) -> str:
    """Names the claim or the image."""
    if isinstance(source, ClaimSource):
        return f"pvc://{source.claim}"
    return f"oci://{source.image}" if isinstance(source, ImageSource) else ""


def _place(model: Model, source: ClaimSource | ImageSource) -> str:
    """Where the claim or the image is mounted."""
    if _holder(source) == _holder(model.spec.model.parsed_source()):
        return names.MODELS_DIRECTORY
    number = [_holder(each) for each in _mounted(model)].index(_holder(source))
    return f"{names.MOUNTED_ADAPTERS_DIRECTORY}/{number}"
