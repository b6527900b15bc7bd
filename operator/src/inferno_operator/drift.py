"""Where an object in the cluster differs from what was applied; what others have added to it does not count."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from inferno_operator import quantity

# Lists whose items have an identity, by the name of the field that holds the list. Others may add items to those, and
# server-side apply leaves them be; every other list is one value. The keys are those of the API's own schema.
_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("port", "containerPort", "protocol"),
    "resourceClaims": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_QUANTITIES: Final = ("limits", "requests", "divisor", "sizeLimit")


def first_difference(desired: Any, live: Any, path: str = "") -> str | None:
    """The first place where ``live`` lacks something of ``desired``, as ``path: live -> desired``; None if it lacks
    nothing.
    """
    if isinstance(desired, Mapping):
        return _in_mapping(desired, live, path)
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return _in_list(desired, live, path)
    if desired == live and isinstance(desired, bool) == isinstance(live, bool):
        return None
    if _holds_quantities(path) and quantity.same(desired, live):
        return None
    return f"{path}: {_shown(live)} -> {_shown(desired)}"


def _in_mapping(desired: Mapping[str, Any], live: Any, path: str) -> str | None:
    if not isinstance(live, Mapping):
        # An empty object may stand for its absence: the API server drops some.
        return None if live is None and not desired else f"{path}: {_shown(live)} -> {_shown(desired)}"
    for name, value in desired.items():
        if difference := first_difference(value, live.get(name), f"{path}.{name}" if path else name):
            return difference
    return None


def _in_list(desired: Sequence[Any], live: Any, path: str) -> str | None:
    if not isinstance(live, Sequence) or isinstance(live, str):
        return None if live is None and not desired else f"{path}: {_shown(live)} -> {_shown(desired)}"
    keys = _LIST_KEYS.get(path.rpartition(".")[2])
    if keys is None and len(desired) != len(live):
        return f"{path}: {_shown(live)} -> {_shown(desired)}"
    items = {_identity(item, keys): item for item in live} if keys else {}
    for index, item in enumerate(desired):
        found = items.get(_identity(item, keys)) if keys else live[index]
        if difference := first_difference(item, found, f"{path}[{index}]"):
            return difference
    return None


def _identity(item: Any, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys) if isinstance(item, Mapping) else (item,)


def _holds_quantities(path: str) -> bool:
    parent = path.split(".")
    return any(part in _QUANTITIES for part in parent)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
