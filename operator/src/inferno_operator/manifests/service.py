"""The Service: the model's one address in the cluster."""

from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Model


def render(model: Model) -> dict[str, Any]:
    """The Service of ``model``."""
    identity = model.identity
    port = {
        "name": names.PORT_NAME,
        "port": names.PORT,
        "targetPort": names.PORT_NAME,
        "protocol": "TCP",
        "appProtocol": "http",
    }
    return identity.child("v1", "Service", identity.name) | {
        "spec": {"type": "ClusterIP", "selector": names.selector_labels(identity.name), "ports": [port]}
    }
