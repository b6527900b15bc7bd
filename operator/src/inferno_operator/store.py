"""What is known of the cluster without asking: the latest version of each watched object, packed small.

It is fed by the watches and by the answers to our own writes, whichever is newer, so that a pass right after a write
sees what it wrote, and the watch's echo of it is no news.
"""

import json
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from inferno_operator.api import names
from inferno_operator.api.kinds import POD
from inferno_operator.api.resource import Key, owners

Object = dict[str, Any]

# Ends of objects that are remembered, so that an older answer that arrives late does not bring one back.
_GRAVES: Final = 10_000
_FAST: Final = 1
# The parts of a pod that tell how it is and where.
_POD_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "deletionTimestamp",
)
_POD_STATUS: Final = (
    "phase",
    "reason",
    "message",
    "podIP",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
)


@dataclass(frozen=True, slots=True)
class Packed:
    """A version of an object, as it is kept: a tenth of what it takes as Python's objects."""

    key: Key
    version: int
    owner: Key
    """The model that it concerns."""
    data: bytes

    @classmethod
    def of(cls, kind: str, body: Mapping[str, Any]) -> "Packed":
        """Packs an object of the API."""
        data = json.dumps(_essence(kind, body), separators=(",", ":")).encode()
        return cls(Key.of(body), version_of(body), owner_of(kind, body), zlib.compress(data, _FAST))

    def unpack(self) -> Object:
        """The object, without what nobody asks for; a new one each time."""
        body: Object = json.loads(zlib.decompress(self.data))
        return body


class Store:
    """Objects by kind, namespace and name. For one event loop."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[Key, Packed]] = defaultdict(dict)
        self._owned: dict[Key, set[tuple[str, Key]]] = defaultdict(set)
        self._graves: OrderedDict[tuple[str, Key], int] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def put(self, kind: str, fresh: Packed) -> Key | None:
        """Takes an object in; returns the model that it concerns if that is news, None if as much was known."""
        key = fresh.key
        held = self._entries[kind].get(key)
        if fresh.version <= (held.version if held else self._graves.get((kind, key), -1)):
            return None
        if held and held.owner != fresh.owner:
            self._disown(kind, key, held.owner)
        self._entries[kind][key] = fresh
        self._owned[fresh.owner].add((kind, key))
        return fresh.owner

    def remove(self, kind: str, last: Packed) -> Key | None:
        """Takes an object out that has ended; returns the model that it concerned if that is news."""
        key = last.key
        held = self._entries[kind].get(key)
        if held and held.version > last.version:
            return None  # a namesake has been made since
        self._graves[kind, key] = last.version
        self._graves.move_to_end((kind, key))
        if len(self._graves) > _GRAVES:
            self._graves.popitem(last=False)
        self.forget(kind, key)
        return held.owner if held else last.owner

    def forget(self, kind: str, key: Key) -> Key | None:
        """Knows no longer about an object, which may still be there; returns the model that it concerned."""
        held = self._entries[kind].pop(key, None)
        if held is None:
            return None
        self._disown(kind, key, held.owner)
        return held.owner

    def get(self, kind: str, key: Key) -> Object | None:
        """The object as it was last known; a copy. None: it may not be there."""
        held = self._entries[kind].get(key)
        return held.unpack() if held else None

    def owned(self, owner: Key, kind: str) -> list[Object]:
        """A model's objects of a kind, by name."""
        keys = sorted(key for of, key in self._owned.get(owner, ()) if of == kind)
        return [self._entries[kind][key].unpack() for key in keys]

    def behind(self, kind: str, listed: Mapping[Key, int]) -> dict[Key, int]:
        """Those of ``listed``, versions by name, that are newer than what is known."""
        entries, graves = self._entries[kind], self._graves
        return {
            key: version
            for key, version in listed.items()
            if version > (entries[key].version if key in entries else graves.get((kind, key), -1))
        }

    def ghosts(self, kind: str, listed: Mapping[Key, int], at: int, namespaces: Iterable[str | None]) -> list[Key]:
        """What is known and was not there when the list was taken, at version ``at``, in these namespaces (None is all):
        no watch that begins anew tells of what has ended meanwhile.
        """
        within = set(namespaces)
        return [
            key
            for key, entry in self._entries[kind].items()
            if key not in listed and entry.version <= at and (None in within or key.namespace in within)
        ]

    def _disown(self, kind: str, key: Key, owner: Key) -> None:
        owned = self._owned[owner]
        owned.discard((kind, key))
        if not owned:
            del self._owned[owner]


def version_of(body: Mapping[str, Any]) -> int:
    """The object's resourceVersion, which Kubernetes lets its clients compare."""
    return int(body["metadata"].get("resourceVersion") or 0)


def owner_of(kind: str, body: Mapping[str, Any]) -> Key:
    """The model that an object concerns: itself, or its owner."""
    key = Key.of(body)
    if kind == names.KIND:
        return key
    return Key(key.namespace, next(iter(owners(body["metadata"])), key.name))


def _essence(kind: str, body: Mapping[str, Any]) -> Object:
    """The object without what nobody asks for: who owns which field is most of it."""
    metadata = dict(body["metadata"])
    managers = [
        {"manager": name} for name in dict.fromkeys(each.get("manager") for each in metadata.get("managedFields", ()))
    ]
    if kind == POD.name:
        status = body.get("status", {})
        sizes = [
            {"name": each["name"], "resources": each["resources"]}
            for each in body.get("spec", {}).get("containers", ())
            if each.get("resources")
        ]
        return {
            "metadata": {name: metadata[name] for name in _POD_METADATA if name in metadata}
            | {"managedFields": managers},
            "spec": {"containers": sizes},
            "status": {name: status[name] for name in _POD_STATUS if name in status},
        }
    return {**body, "metadata": metadata | {"managedFields": managers}}
