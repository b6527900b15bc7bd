"""An InfernoModel as the API server holds it, read once and then passed around."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from inferno_operator.api import names
from inferno_operator.api.types import InfernoModelSpec


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names an object among those of its kind."""

    namespace: str
    name: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Key":
        """The key of an object of the API."""
        return cls(body["metadata"]["namespace"], body["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Identity:
    """Which InfernoModel it is; enough to own children and to be reported about."""

    namespace: str
    name: str
    uid: str
    generation: int

    @property
    def key(self) -> Key:
        """Its name among InfernoModels."""
        return Key(self.namespace, self.name)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Identity":
        """The identity of an object of the API."""
        metadata = body["metadata"]
        return cls(metadata["namespace"], metadata["name"], metadata["uid"], metadata.get("generation", 0))

    def owner_reference(self) -> dict[str, Any]:
        """What makes an object a child of this one: it is deleted when this one is."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def child(self, api_version: str, kind: str, name: str) -> dict[str, Any]:
        """The head of a child's manifest."""
        return {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": names.labels(self.name),
                "ownerReferences": [self.owner_reference()],
            },
        }


@dataclass(frozen=True, slots=True)
class Model:
    """An InfernoModel whose spec has been understood; ``profile`` is the hardware profile that is a part of it now."""

    identity: Identity
    spec: InfernoModelSpec
    profile: str | None = None

    @property
    def wanted(self) -> int:
        """How many pods are to serve it now."""
        return 0 if self.spec.suspend else self.spec.replicas


def parse_spec(body: Mapping[str, Any]) -> InfernoModelSpec:
    """The spec of an object of the API. Raises ValueError with one line for each thing that is wrong."""
    try:
        return InfernoModelSpec.model_validate(body.get("spec", {}))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, ('spec', *problem['loc'])))}: {problem['msg']}" for problem in error.errors()]
        raise ValueError("; ".join(problems)) from error


def owners(metadata: Mapping[str, Any]) -> list[str]:
    """The names of the InfernoModels that an object with this metadata belongs to.

    Somebody may have taken the owner reference away; then the label tells.
    """
    named = [owner["name"] for owner in metadata.get("ownerReferences", ()) if owner["kind"] == names.KIND]
    label = metadata.get("labels", {}).get(names.INSTANCE)
    return named or ([label] if label else [])
