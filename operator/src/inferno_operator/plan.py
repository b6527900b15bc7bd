"""What has to be done so that the cluster holds what a model needs, and why."""

from collections.abc import Iterable, Mapping, Sequence
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
class Wait:
    """Do nothing yet: an object of this name is still being deleted, and its end will be reported."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing can be done: the object belongs to somebody else."""

    manifest: Manifest
    detail: str


Action = Apply | Wait | Conflict


def plan(owner: Identity, children: Iterable[tuple[Manifest, Manifest | None]]) -> list[Action]:
    """The actions for ``children``, pairs of what is desired and what there is; in the same order, none for what is
    right.
    """
    actions = (_action(owner, desired, observed) for desired, observed in children)
    return [action for action in actions if action is not None]


def conflicts(actions: Sequence[Action]) -> list[Conflict]:
    """Those of ``actions`` that cannot be carried out."""
    return [action for action in actions if isinstance(action, Conflict)]


def _action(owner: Identity, desired: Manifest, observed: Manifest | None) -> Action | None:
    if observed is None:
        return Apply(desired, Cause.MISSING, "there is none")
    if foreign := _foreign(owner, observed):
        return Conflict(desired, foreign)
    if observed["metadata"].get("deletionTimestamp"):
        return Wait(desired)
    applied = observed["metadata"].get("annotations", {}).get(names.DESIRED_DIGEST)
    if applied != desired["metadata"]["annotations"][names.DESIRED_DIGEST]:
        # A field that is no longer wanted shows only here: the object still has it, and applying without it takes it
        # away.
        difference = first_difference(desired, observed)
        return Apply(desired, Cause.CHANGED, difference or "something is no longer wanted")
    if difference := first_difference(desired, observed):
        return Apply(desired, Cause.DRIFTED, difference)
    return None


def _foreign(owner: Identity, observed: Manifest) -> str | None:
    """Whose ``observed`` is, if it is not the model's.

    Ours is what the model controls, and also what this operator made and nobody controls: somebody took the owner
    reference away, or deleted the model and told Kubernetes to keep its children.
    """
    metadata = observed["metadata"]
    what = f"{observed.get('kind', 'object')} {metadata['name']}"
    controller = next((ref for ref in metadata.get("ownerReferences", ()) if ref.get("controller")), None)
    if controller is not None:
        if controller["uid"] == owner.uid:
            return None
        return f"{what} exists already and belongs to {controller['kind']} {controller['name']}"
    if any(entry.get("manager") == names.FIELD_MANAGER for entry in metadata.get("managedFields", ())):
        return None
    return f"{what} exists already and was not made by this operator; delete it or choose another name for the model"
