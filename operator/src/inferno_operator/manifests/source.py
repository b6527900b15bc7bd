"""How a model comes into its pods: the volumes, and the containers that run before the runtime."""

import copy
from typing import Any, Final

from inferno_operator import quantity
from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests import adapters
from inferno_runtime.sources import BucketSource, ClaimSource, FileSource, HubSource, ImageSource, WebSource

SCRATCH: Final = "/tmp"  # noqa: S108  # a volume of the pod's own
_REMOTE: Final = (WebSource, HubSource, BucketSource)
# Of what a pod has, what an init container needs too; devices it does not.
_SHARED_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
_MODELS: Final[dict[str, Any]] = {"name": "models", "mountPath": names.MODELS_DIRECTORY}
_CACHE: Final[dict[str, Any]] = {"name": "cache", "mountPath": names.CACHE_DIRECTORY}
# The model's endpoint, to the container that fetches adapters, of which only some may be of the model's kind.
_ENDPOINTS: Final = {HubSource: "HF_ENDPOINT", BucketSource: "AWS_ENDPOINT_URL"}
_FETCH_RESOURCES: Final[dict[str, Any]] = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "256Mi"},
}


def is_fetched(model: Model) -> bool:
    """Whether the model is brought from elsewhere, and not only mounted."""
    return isinstance(model.spec.model.parsed_source(), _REMOTE)


def uses_cache(model: Model) -> bool:
    """Whether the model, or an adapter of it, is brought from elsewhere."""
    return is_fetched(model) or bool(adapters.fetched(model))


def path_in_pod(model: Model) -> str:
    """The absolute path of the model's file, or folder, as the containers see it."""
    source = model.spec.model.parsed_source()
    if isinstance(source, FileSource):
        return source.path
    if isinstance(source, (ClaimSource, ImageSource)):
        return f"{names.MODELS_DIRECTORY}/{source.path}".rstrip("/")
    return names.FETCHED_MODEL


def cache_claim(model: Model) -> str | None:
    """The claim that holds the model's cache, if one does."""
    storage = model.spec.storage
    if storage is None or not uses_cache(model):
        return None
    return names.cache_claim_name(model.identity.name) if storage.claim else storage.claim_name


def volumes(model: Model) -> list[dict[str, Any]]:
    """The volumes that hold the model and its adapters."""
    return [*_model_volumes(model), *cache_volumes(model), *adapters.volumes(model)]


def cache_volumes(model: Model) -> list[dict[str, Any]]:
    """The volume that holds the cache, if there is one."""
    if not uses_cache(model):
        return []
    claim = cache_claim(model)
    cache = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": _empty_dir(model)}
    return [{"name": "cache"} | cache]


def _model_volumes(model: Model) -> list[dict[str, Any]]:
    source = model.spec.model.parsed_source()
    if isinstance(source, ClaimSource):
        return [{"name": "models", "persistentVolumeClaim": {"claimName": source.claim}}]
    if isinstance(source, ImageSource):
        return [{"name": "models", "image": {"reference": source.image, "pullPolicy": "IfNotPresent"}}]
    return [] if isinstance(source, FileSource) else [{"name": "models", "emptyDir": {}}]


def mounts(model: Model) -> list[dict[str, Any]]:
    """Where they are mounted, to be read only."""
    at = []
    if not isinstance(model.spec.model.parsed_source(), FileSource):
        at.append(_MODELS)
    if uses_cache(model):
        at.append(_CACHE)
    return [each | {"readOnly": True} for each in (*at, *adapters.mounts(model))]


def init_containers(model: Model, image: str) -> list[dict[str, Any]]:
    """What runs before the runtime: the header is read, which is soon done and tells what memory is needed, and then what
    is elsewhere is fetched, if it is not there.
    """
    containers = [_inspect_container(model, image)]
    if is_fetched(model):
        containers.append(fetch_container(model, image, link=True))
    if adapters.fetched(model):
        containers.append(fetch_adapters_container(model, image, link=True))
    return containers


def _inspect_container(model: Model, image: str) -> dict[str, Any]:
    """The container that reads the header, and tells the size of what lies beside the model."""
    what = _what(model) if is_fetched(model) else [f"file://{path_in_pod(model)}"]
    mounted = [] if is_fetched(model) else [each for each in mounts(model) if each["name"] == "models"]
    for adapter in model.spec.model.adapters:
        remote = isinstance(adapter.parsed_source(), _REMOTE)
        source = adapter.source if remote else f"file://{adapters.path_in_pod(model, adapter)}"
        what.append(f"--adapter={source}")
        mounted += [] if remote else _holding(model, adapters.path_in_pod(model, adapter))
    if (projector := model.spec.model.projector) is not None:
        what.append(f"--projector={projector}")
        mounted += _holding(model, projector.removeprefix("file://")) if projector.startswith("file://") else []
    unique = {each["mountPath"]: each for each in mounted}
    return _container(model, image, names.INSPECT_CONTAINER, ["inspect", *what], list(unique.values()))


def _holding(model: Model, path: str) -> list[dict[str, Any]]:
    """The mount that an adapter's file lies in, to be read only: one of ours, or one that the resource asks for."""
    asked = [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in model.spec.volume_mounts or ()]
    places = [each for each in (*mounts(model), *asked) if path.startswith(each["mountPath"].rstrip("/") + "/")]
    deepest = max(places, key=lambda each: len(each["mountPath"]), default=None)
    return [deepest | {"readOnly": True}] if deepest else []


def fetch_adapters_container(model: Model, image: str, *, link: bool) -> dict[str, Any]:
    """The container that brings adapters into the cache; ``link``: and makes them the pod's adapters."""
    arguments = ["fetch-adapters", *adapters.arguments(model), *_into_cache(model)]
    mounted = [_CACHE]
    if link:
        arguments.append(f"--folder={names.ADAPTERS_DIRECTORY}")
        mounted.append(adapters.LINKS_MOUNT)
    container = _container(model, image, names.ADAPTERS_CONTAINER, arguments, mounted)
    variable = _ENDPOINTS.get(type(model.spec.model.parsed_source()))
    if variable and model.spec.model.endpoint:
        container["env"] = [{"name": variable, "value": model.spec.model.endpoint}]
    return container


def fetch_container(model: Model, image: str, *, link: bool) -> dict[str, Any]:
    """The container that brings the model into the cache; ``link``: and makes it the pod's model."""
    arguments = ["fetch", *_what(model), *_into_cache(model)]
    mounted = [_CACHE]
    if link:
        arguments.append(f"--link={names.FETCHED_MODEL}")
        mounted = [_MODELS, _CACHE]
    return _container(model, image, names.FETCH_CONTAINER, arguments, mounted)


def _into_cache(model: Model) -> list[str]:
    identity, storage = model.identity, model.spec.storage
    arguments = [f"--cache={names.CACHE_DIRECTORY}", f"--user={identity.namespace}/{identity.name}"]
    limit = quantity.parse(storage.size_limit) if storage and storage.size_limit is not None else None
    return arguments if limit is None else [*arguments, f"--cache-limit={int(limit)}"]


def _what(model: Model) -> list[str]:
    spec = model.spec.model
    arguments = [spec.source, *(f"--file={name}" for name in spec.files)]
    if spec.sha256:
        arguments.append(f"--sha256={spec.sha256}")
    if spec.endpoint:
        arguments.append(f"--endpoint={spec.endpoint}")
    return arguments


def _container(
    model: Model, image: str, name: str, arguments: list[str], mounted: list[dict[str, Any]]
) -> dict[str, Any]:
    spec = model.spec
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "args": arguments,
        "resources": _resources(model),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # It leaves there what it found, or why it could not.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": SCRATCH}, *mounted],
    }
    if spec.image_pull_policy:
        container["imagePullPolicy"] = spec.image_pull_policy
    if spec.model.credentials and uses_cache(model):
        container["envFrom"] = [{"secretRef": {"name": spec.model.credentials.name}}]
    return container


def _resources(model: Model) -> dict[str, Any]:
    """What the runtime is given, where that is stated: a pod needs the larger of both, so it costs nothing."""
    given = model.spec.resources
    if given is None or not (given.requests or given.limits):
        return copy.deepcopy(_FETCH_RESOURCES)
    kinds = {"requests": given.requests, "limits": given.limits}
    return {
        kind: {name: amount for name, amount in amounts.items() if name in _SHARED_RESOURCES}
        for kind, amounts in kinds.items()
        if amounts
    }


def _empty_dir(model: Model) -> dict[str, Any]:
    storage = model.spec.storage
    return {"sizeLimit": storage.size_limit} if storage and storage.size_limit is not None else {}
