"""How a model comes into its pods: the volumes, and the containers that run before the runtime."""

import copy
from typing import Any, Final

from inferno_operator import quantity
from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_runtime.sources import BucketSource, ClaimSource, FileSource, HubSource, ImageSource, WebSource

SCRATCH: Final = "/tmp"  # noqa: S108  # a volume of the pod's own
_REMOTE: Final = (WebSource, HubSource, BucketSource)
# Of what a pod has, what an init container needs too; devices it does not.
_SHARED_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
_FETCH_RESOURCES: Final[dict[str, Any]] = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "256Mi"},
}


def is_fetched(model: Model) -> bool:
    """Whether the model is brought from elsewhere, and not only mounted."""
    return isinstance(model.spec.model.parsed_source(), _REMOTE)


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
    if storage is None or not is_fetched(model):
        return None
    return names.cache_claim_name(model.identity.name) if storage.claim else storage.claim_name


def volumes(model: Model) -> list[dict[str, Any]]:
    """The volumes that hold the model."""
    source = model.spec.model.parsed_source()
    if isinstance(source, ClaimSource):
        return [{"name": "models", "persistentVolumeClaim": {"claimName": source.claim}}]
    if isinstance(source, ImageSource):
        return [{"name": "models", "image": {"reference": source.image, "pullPolicy": "IfNotPresent"}}]
    if isinstance(source, FileSource):
        return []
    claim = cache_claim(model)
    cache = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": _empty_dir(model)}
    return [{"name": "models", "emptyDir": {}}, {"name": "cache"} | cache]


def mounts(model: Model, *, to_fetch: bool = False) -> list[dict[str, Any]]:
    """Where they are mounted; only the container that fetches may write."""
    source = model.spec.model.parsed_source()
    if isinstance(source, FileSource):
        return []
    writable: dict[str, Any] = {} if to_fetch else {"readOnly": True}
    at = [{"name": "models", "mountPath": names.MODELS_DIRECTORY} | writable]
    if is_fetched(model):
        at.append({"name": "cache", "mountPath": names.CACHE_DIRECTORY} | writable)
    return at


def init_containers(model: Model, image: str) -> list[dict[str, Any]]:
    """What runs before the runtime: the header is read, which is soon done and tells what memory is needed, and then the
    model is fetched, if it is not there.
    """
    if not is_fetched(model):
        return [_inspect_container(model, image, [f"file://{path_in_pod(model)}"], mounts(model))]
    return [_inspect_container(model, image, _what(model), []), fetch_container(model, image, link=True)]


def _inspect_container(model: Model, image: str, what: list[str], mounted: list[dict[str, Any]]) -> dict[str, Any]:
    """The container that reads the header, and tells the size of what lies beside the model."""
    spec = model.spec.model
    beside = [f"--adapter={adapter.source}" for adapter in spec.adapters]
    if spec.projector is not None:
        beside.append(f"--projector={spec.projector}")
    return _container(model, image, names.INSPECT_CONTAINER, ["inspect", *what, *beside], mounted)


def fetch_container(model: Model, image: str, *, link: bool) -> dict[str, Any]:
    """The container that brings the model into the cache; ``link``: and makes it the pod's model."""
    identity, storage = model.identity, model.spec.storage
    arguments = ["fetch", *_what(model), f"--cache={names.CACHE_DIRECTORY}"]
    arguments.append(f"--user={identity.namespace}/{identity.name}")
    limit = quantity.parse(storage.size_limit) if storage and storage.size_limit is not None else None
    if limit is not None:
        arguments.append(f"--cache-limit={int(limit)}")
    if link:
        arguments.append(f"--link={names.FETCHED_MODEL}")
    mounted = mounts(model, to_fetch=True) if link else [{"name": "cache", "mountPath": names.CACHE_DIRECTORY}]
    return _container(model, image, names.FETCH_CONTAINER, arguments, mounted)


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
    if spec.model.credentials and is_fetched(model):
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
