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
    made = identity.child("v1", "Service", identity.name)
    made["metadata"]["labels"][names.ROLE] = names.ROLE_ADDRESS
    return made | {
        "spec": {
            "type": model.spec.network.service_type,
            "selector": names.selector_labels(identity.name),
            "ports": [port],
        }
    }
