"""What has to be done so that the cluster holds what a model needs, and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Identity
from inferno_operator.drift import first_difference

Manifest = Mapping[str, Any]


class Cause(StrEnum):
    """Why an object is applied."""

    MISSING = "missing"
    CHANGED = "changed"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply ``manifest``; ``detail`` is for people."""

    manifest: Manifest
    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object that the model no longer asks for."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing yet: an object of this name is about to go, and its end will be reported."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing can be done: the object belongs to somebody else."""

    manifest: Manifest
    detail: str


Action = Apply | Delete | Wait | Conflict


def plan(owner: Identity, children: Iterable[tuple[Manifest, Manifest | None]]) -> list[Action]:
    """The actions for ``children``, pairs of what is desired and what there is; in the same order, none for what is
    right.
    """
    actions = (_action(owner, desired, observed) for desired, observed in children)
    return [action for action in actions if action is not None]


def prune(owner: Identity, desired: Iterable[Manifest], there: Iterable[Manifest]) -> list[Delete]:
    """What of ``there`` the model made and does not ask for any more, but for what holds data: that goes with the model."""
    wanted = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in desired}
    return [
        Delete(found)
        for found in there
        if (found["kind"], found["metadata"]["name"]) not in wanted
        and found["kind"] != "PersistentVolumeClaim"
        and not found["metadata"].get("deletionTimestamp")
        and (_controller(found) or {}).get("uid") == owner.uid
    ]


def _action(owner: Identity, desired: Manifest, observed: Manifest | None) -> Action | None:
    if observed is None:
        return Apply(desired, Cause.MISSING, "there is none")
    if observed["metadata"].get("deletionTimestamp") or _of_a_predecessor(owner, observed):
        return Wait(desired)
    if foreign := _foreign(owner, observed):
        return Conflict(desired, foreign)
    if _digest(observed) != _digest(desired):
        # A field that is no longer wanted shows only here: the object still has it, and applying without it takes it
        # away.
        difference = first_difference(_undigested(desired), observed)
        return Apply(desired, Cause.CHANGED, difference or "something is no longer wanted")
    if difference := first_difference(desired, observed):
        return Apply(desired, Cause.DRIFTED, difference)
    return None


def _digest(manifest: Manifest) -> str | None:
    annotations: Mapping[str, str] = manifest["metadata"].get("annotations", {})
    return annotations.get(names.DESIRED_DIGEST)


def _undigested(desired: Manifest) -> dict[str, Any]:
    annotations = {
        key: value for key, value in desired["metadata"]["annotations"].items() if key != names.DESIRED_DIGEST
    }
    return {**desired, "metadata": {**desired["metadata"], "annotations": annotations}}


def _of_a_predecessor(owner: Identity, observed: Manifest) -> bool:
    """Whether ``observed`` belongs to a deleted model of the same name; Kubernetes deletes it in a moment."""
    controller = _controller(observed)
    return (
        controller is not None
        and (controller["kind"], controller["name"]) == (names.KIND, owner.name)
        and (controller["uid"] != owner.uid)
    )


def _controller(observed: Manifest) -> Mapping[str, Any] | None:
    return next((each for each in observed["metadata"].get("ownerReferences", ()) if each.get("controller")), None)


def _foreign(owner: Identity, observed: Manifest) -> str | None:
    """Whose ``observed`` is, if it is not the model's.

    Ours is what the model controls, and also what this operator made and nobody controls: somebody took the owner
    reference away, or deleted the model and told Kubernetes to keep its children.
    """
    metadata = observed["metadata"]
    what = f"{observed.get('kind', 'object')} {metadata['name']}"
    controller = _controller(observed)
    if controller is not None:
        if controller["uid"] == owner.uid:
            return None
        return f"{what} exists already and belongs to {controller['kind']} {controller['name']}"
    if any(entry.get("manager") == names.FIELD_MANAGER for entry in metadata.get("managedFields", ())):
        return None
    return f"{what} exists already and was not made by this operator; delete it or choose another name for the model"
