"""Kubernetes' strategic merge, as ``kubectl patch`` has it, for a pod template.

Objects are merged field by field, and null takes a field away. Lists of things that have a name are merged by it; any
other list replaces the one that was there. ``$patch: delete`` takes an item or an object away, ``$patch: replace`` puts
it in the place of what was there, and ``$retainKeys`` names the only fields that stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

# The patchMergeKey of the lists in a PodTemplateSpec, by the name of the field.
_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_FROM: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"  # what comes first matters to nobody here
_PRIMITIVES: Final = frozenset({"finalizers"})

Object = dict[str, Any]


def strategic_merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Object:
    """``base`` as ``patch`` changes it. Neither is changed itself."""
    match patch.get(_PATCH, "merge"):
        case "replace":
            return _clean(patch)
        case "delete":
            return {}
    retained = patch[_RETAIN] if isinstance(patch.get(_RETAIN), list) else None
    merged = {name: value for name, value in base.items() if retained is None or name in retained}
    for name, value in patch.items():
        if name.startswith(_DELETE_FROM):
            field = name.removeprefix(_DELETE_FROM)
            merged[field] = [item for item in _list(merged.get(field)) if item not in _list(value)]
        elif name in (_PATCH, _RETAIN) or name.startswith(_ORDER):
            continue
        elif value is None:
            merged.pop(name, None)
        else:
            merged[name] = _field(name, merged.get(name), value)
    return merged


def _field(name: str, base: Any, patch: Any) -> Any:
    if isinstance(patch, Mapping):
        return strategic_merge(base if isinstance(base, Mapping) else {}, patch)
    if not isinstance(patch, list):
        return patch
    old = _list(base)
    if name in _PRIMITIVES:
        return old + [item for item in patch if item not in old]
    key = _KEYS.get(name)
    if key is None or not all(isinstance(item, Mapping) for item in (*old, *patch)):
        return patch  # if it is no list of such things, the API server will say so
    return _by_key(key, old, patch)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _by_key(key: str, base: Sequence[Object], patch: Sequence[Object]) -> list[Object]:
    """Items of the patch in the place of those with the same key; new ones come last."""
    if any(item.get(_PATCH) == "replace" and key not in item for item in patch):
        return [_clean(item) for item in patch if _PATCH not in item]
    changes = {item.get(key): item for item in patch}
    merged = []
    for item in base:
        change = changes.pop(item.get(key), None)
        if change is None:
            merged.append(item)
        elif change.get(_PATCH) != "delete":
            merged.append(strategic_merge(item, change))
    added = (change for change in changes.values() if change.get(_PATCH) != "delete")
    return merged + [strategic_merge({}, change) for change in added]


def _clean(patch: Mapping[str, Any]) -> Object:
    """What a patch puts where there is nothing: without directives."""
    return strategic_merge({}, {name: value for name, value in patch.items() if name != _PATCH})
