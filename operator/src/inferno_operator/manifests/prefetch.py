"""The Job that brings a model into its claim before any pod needs it."""

from typing import Any, Final

from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests.digest import digest
from inferno_operator.manifests.pod import scheduling, security_context
from inferno_operator.manifests.source import cache_claim, fetch_container, volumes

_ATTEMPTS: Final = 8
_KEPT_SECONDS: Final = 86_400


def render(model: Model, default_image: str) -> dict[str, Any] | None:
    """The Job of ``model``, if it asks for one.

    A Job's pods cannot change, so a change of what is fetched makes another Job, with another name.
    """
    identity, spec = model.identity, model.spec
    if not (spec.storage and spec.storage.prefetch and cache_claim(model)):
        return None
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "OnFailure",
        "securityContext": security_context(model),
        "containers": [fetch_container(model, spec.image or default_image, link=False)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *(volume for volume in volumes(model) if volume["name"] == "cache"),
        ],
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
