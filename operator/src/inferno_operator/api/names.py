"""Names and labels that several parts of the operator, the chart and the documentation share."""

from typing import Final

GROUP: Final = "inferno.ai"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InfernoModel"
LIST_KIND: Final = "InfernoModelList"
PLURAL: Final = "infernomodels"
SINGULAR: Final = "infernomodel"
SHORT_NAMES: Final = ("im",)
CATEGORIES: Final = ("inferno",)

FIELD_MANAGER: Final = "inferno-operator"
"""Who the operator is to server-side apply, in events, and in the label managed-by."""

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
INSTANCE: Final = "app.kubernetes.io/instance"
MANAGED_SELECTOR: Final = f"{MANAGED_BY}={FIELD_MANAGER}"
"""The label selector of everything that the operator makes."""

DESIRED_DIGEST: Final = f"{GROUP}/desired-digest"
"""Annotation of each child: the digest of what was last applied, without this annotation."""
CONFIG_DIGEST: Final = f"{GROUP}/config-digest"
"""Annotation of the pod template: the digest of the configuration, so that a change of it rolls the pods, but for what they
take on without that."""
TEMPLATE_DIGEST: Final = f"{GROUP}/template-digest"
"""Annotation of the pod template: its own digest, by which a pod is known to be of the current template."""

ROLE: Final = f"{GROUP}/role"
ROLE_ADDRESS: Final = "address"
"""Label of the Service that clients ask: of several with the same pods, one is to be scraped."""

CONTAINER: Final = "runtime"
PORT_NAME: Final = "http"
PORT: Final = 8000
"""The TCP port of the pods and of the Service."""
CONFIG_KEY: Final = "model.yaml"
CONFIG_DIRECTORY: Final = "/etc/inferno"
KEYS_DIRECTORY: Final = "/etc/inferno-keys"
"""Where the Secret of spec.keysSecret is mounted, read-only."""
MODELS_DIRECTORY: Final = "/models"
"""Where the claim of a ``pvc://`` source is mounted, read-only."""


def selector_labels(name: str) -> dict[str, str]:
    """The labels by which a model's pods are selected. A Deployment's selector cannot change, so neither can these."""
    return {"app.kubernetes.io/name": "inferno-runtime", INSTANCE: name}


def labels(name: str) -> dict[str, str]:
    """The labels of everything that belongs to a model."""
    return selector_labels(name) | {
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/part-of": "inferno",
        MANAGED_BY: FIELD_MANAGER,
    }


def label_selector(name: str) -> str:
    """`selector_labels` in the form that the API takes as a parameter."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector_labels(name).items()))


def configmap_name(name: str) -> str:
    """A suffix keeps clear of ConfigMaps that people name after their models."""
    return f"{name}-config"


def headless_name(name: str) -> str:
    """The name of the Service that names each pod by its own address."""
    return f"{name}-pods"


def service_url(name: str, namespace: str) -> str:
    """The base URL for an OpenAI client inside the cluster."""
    return f"http://{name}.{namespace}.svc:{PORT}/v1"
