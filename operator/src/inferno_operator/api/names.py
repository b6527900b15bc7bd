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
"""Annotation of the pod template: its own digest, without the resources that pods can take on while they run. By it a pod
is known to be of the current template."""
PROFILE: Final = f"{GROUP}/profile"
"""Annotation of the pod template: the hardware profile that it was made with, if it was with one."""

NAME: Final = "app.kubernetes.io/name"
SERVES: Final = "inferno-runtime"
"""Label of pods: whether it is one that serves, or one that only fetches."""

ROLE: Final = f"{GROUP}/role"
ROLE_ADDRESS: Final = "address"
"""Label of the Service that clients ask: of several with the same pods, one is to be scraped."""

CONTAINER: Final = "runtime"
INSPECT_CONTAINER: Final = "inspect"
"""The init container that reads the model's header."""
FETCH_CONTAINER: Final = "fetch"
"""The init container that brings the model into the cache."""
ADAPTERS_CONTAINER: Final = "fetch-adapters"
"""The init container that brings LoRA adapters into the cache."""
PORT_NAME: Final = "http"
PORT: Final = 8000
"""The TCP port of the pods and of the Service."""
CONFIG_KEY: Final = "model.yaml"
CONFIG_DIRECTORY: Final = "/etc/inferno"
KEYS_DIRECTORY: Final = "/etc/inferno-keys"
"""Where the Secret of spec.keysSecret is mounted, read-only."""
MODELS_DIRECTORY: Final = "/models"
"""Where the claim of a ``pvc://`` source, or the image of an ``oci://`` one, is mounted, read-only."""
FETCHED_MODEL: Final = f"{MODELS_DIRECTORY}/current"
"""What links to the model in the cache, where it was fetched."""
ADAPTERS_DIRECTORY: Final = "/adapters"
"""Where a volume of the pod's own has links to the adapters in the cache, NAME.gguf each."""
MOUNTED_ADAPTERS_DIRECTORY: Final = "/mnt/adapters"
"""Where claims and images with adapters are mounted, read-only, each in a folder of its own."""
CACHE_DIRECTORY: Final = "/var/cache/inferno"
"""Where the cache of fetched models is mounted."""


def selector_labels(name: str) -> dict[str, str]:
    """The labels by which a model's pods are selected. A Deployment's selector cannot change, so neither can these."""
    return {NAME: SERVES, INSTANCE: name}


def labels(name: str) -> dict[str, str]:
    """The labels of everything that belongs to a model."""
    return selector_labels(name) | {
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/part-of": "inferno",
        MANAGED_BY: FIELD_MANAGER,
    }


def label_selector(name: str) -> str:
    """`selector_labels` in the form that the API takes as a parameter."""
    return _selector(selector_labels(name))


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def configmap_name(name: str) -> str:
    """A suffix keeps clear of ConfigMaps that people name after their models."""
    return f"{name}-config"


def cache_claim_name(name: str) -> str:
    """The claim that is made for a model's own cache."""
    return f"{name}-cache"


def prefetch_name(name: str, digest: str) -> str:
    """The Job that fetches a model; its pods have its name as a label, which has 63 characters at most."""
    return f"{name[:44]}-prefetch-{digest[:8]}"


def prefetch_labels(name: str) -> dict[str, str]:
    """The labels of that Job's pods."""
    return {
        NAME: "inferno-prefetch",
        INSTANCE: name,
        "app.kubernetes.io/part-of": "inferno",
        MANAGED_BY: FIELD_MANAGER,
    }


def headless_name(name: str) -> str:
    """The name of the Service that names each pod by its own address."""
    return f"{name}-pods"


def service_url(name: str, namespace: str) -> str:
    """The base URL for an OpenAI client inside the cluster."""
    return f"http://{name}.{namespace}.svc:{PORT}/v1"
