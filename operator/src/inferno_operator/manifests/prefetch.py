"""The Job that brings a model into its claim before any pod needs it."""

from typing import Any, Final

from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests import adapters
from inferno_operator.manifests.digest import digest
from inferno_operator.manifests.pod import scheduling, security_context
from inferno_operator.manifests.source import (
    cache_claim,
    cache_volumes,
    fetch_adapters_container,
    fetch_container,
    is_fetched,
)

_ATTEMPTS: Final = 8
_KEPT_SECONDS: Final = 86_400


def render(model: Model, default_image: str) -> dict[str, Any] | None:
    """The Job of ``model``, if it asks for one.

    A Job's pods cannot change, so a change of what is fetched makes another Job, with another name.
    """
    identity, spec = model.identity, model.spec
    if not (spec.storage and spec.storage.prefetch and is_fetched(model) and cache_claim(model)):
        return None
    image = spec.image or default_image
    # The adapters first: when the model is there all is there.
    first = [fetch_adapters_container(model, image, link=False)] if adapters.fetched(model) else []
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "OnFailure",
        "securityContext": security_context(model),
        **({"initContainers": first} if first else {}),
        "containers": [fetch_container(model, image, link=False)],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *cache_volumes(model)],
    } | scheduling(model)
    template_digest = digest(pod)
    # Labels of its own: the Service must not take the Job's pods for ones that serve.
    labels = names.prefetch_labels(identity.name)
    annotations = {names.TEMPLATE_DIGEST: template_digest}
    return identity.child("batch/v1", "Job", names.prefetch_name(identity.name, template_digest)) | {
        "spec": {
            "backoffLimit": _ATTEMPTS,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        }
    }
