"""The PersistentVolumeClaim of a model's own cache."""

from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests.source import uses_cache


def render(model: Model) -> dict[str, Any] | None:
    """The claim of ``model``, if it asks for one."""
    identity, storage = model.identity, model.spec.storage
    if storage is None or storage.claim is None or not uses_cache(model):
        return None
    claim = storage.claim
    manifest = identity.child("v1", "PersistentVolumeClaim", names.cache_claim_name(identity.name))
    if claim.retain:
        # Without an owner Kubernetes leaves it when the model goes.
        del manifest["metadata"]["ownerReferences"]
    spec: dict[str, Any] = {
        "accessModes": [claim.access_mode],
        "resources": {"requests": {"storage": claim.size}},
    }
    if claim.storage_class_name:
        spec["storageClassName"] = claim.storage_class_name
    return manifest | {"spec": spec}
