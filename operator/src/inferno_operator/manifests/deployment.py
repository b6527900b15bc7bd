"""The Deployment: the pods that serve the model."""

from typing import Any, Final

from inferno_operator import resources
from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests import source
from inferno_operator.manifests.digest import digest
from inferno_operator.manifests.pod import scheduling, security_context, without_nothing
from inferno_operator.manifests.source import SCRATCH
from inferno_runtime.models.facts import ModelFacts

# A large model on slow storage takes long to load. A pod that cannot start says so at once and on its own; this is only
# for one that hangs.
STARTUP_SECONDS: Final = 1800
_PROBE_SECONDS: Final = 5
# What is left to the process after its drain: to say goodbye to the last client and to free the memory.
_GRACE_BEYOND_DRAIN_SECONDS: Final = 10
# A pod on its way out still gets new requests until every node has heard of it; only then may it begin to refuse them.
_PRE_STOP_SECONDS: Final = 5
_EVERY_INTERFACE: Final = "0.0.0.0"  # noqa: S104  # the pod's, and nobody else's


def render(model: Model, config: dict[str, Any], default_image: str, facts: ModelFacts | None = None) -> dict[str, Any]:
    """The Deployment of ``model``, whose pods read the ConfigMap ``config``; ``facts``: what the model was found to be."""
    identity = model.identity
    return identity.child("apps/v1", "Deployment", identity.name) | {
        "spec": {
            "replicas": model.spec.replicas,
            "selector": {"matchLabels": names.selector_labels(identity.name)},
            # A new pod serves before an old one goes, so that no request finds the model away.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": STARTUP_SECONDS + 60,
            "revisionHistoryLimit": 2,
            "template": _template(model, config, default_image, facts),
        }
    }


def _template(model: Model, config: dict[str, Any], default_image: str, facts: ModelFacts | None) -> dict[str, Any]:
    template = {
        "metadata": {
            "labels": names.labels(model.identity.name),
            "annotations": {names.CONFIG_DIGEST: digest(config["data"])},
        },
        "spec": _pod(model, config["metadata"]["name"], default_image, facts),
    }
    template["metadata"]["annotations"][names.TEMPLATE_DIGEST] = digest(template)
    return template


def _pod(model: Model, config_name: str, default_image: str, facts: ModelFacts | None) -> dict[str, Any]:
    spec = model.spec
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _PRE_STOP_SECONDS + spec.server.drain_seconds + _GRACE_BEYOND_DRAIN_SECONDS,
        "securityContext": security_context(model),
        "initContainers": source.init_containers(model, spec.image or default_image),
        "containers": [_container(model, default_image, facts)],
        "volumes": _volumes(model, config_name),
    }
    return pod | scheduling(model)


def _container(model: Model, default_image: str, facts: ModelFacts | None) -> dict[str, Any]:
    spec = model.spec
    container = {
        "name": names.CONTAINER,
        "image": spec.image or default_image,
        "args": [
            "run",
            f"{names.CONFIG_DIRECTORY}/{names.CONFIG_KEY}",
            "--host",
            _EVERY_INTERFACE,
            "--port",
            str(names.PORT),
        ],
        "ports": [{"name": names.PORT_NAME, "containerPort": names.PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/health/ready", failures=STARTUP_SECONDS // _PROBE_SECONDS),
        "readinessProbe": _probe("/health/ready", failures=2),
        # The runtime starts a dead engine again by itself; only when that does not help is the pod beyond help.
        "livenessProbe": _probe("/health/live", failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": _PRE_STOP_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The runtime leaves the one line that says why it could not start in its termination message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(model),
    }
    asked_for = {"imagePullPolicy": spec.image_pull_policy, "resources": resources.render(spec, facts)}
    return container | without_nothing(asked_for)


def _probe(path: str, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": names.PORT_NAME},
        "periodSeconds": _PROBE_SECONDS,
        "timeoutSeconds": _PROBE_SECONDS,
        "failureThreshold": failures,
    }


def _volumes(model: Model, config_name: str) -> list[dict[str, Any]]:
    return [
        {"name": "config", "configMap": {"name": config_name}},
        {"name": "tmp", "emptyDir": {}},
        *source.volumes(model),
    ]


def _mounts(model: Model) -> list[dict[str, Any]]:
    return [
        {"name": "config", "mountPath": names.CONFIG_DIRECTORY, "readOnly": True},
        {"name": "tmp", "mountPath": SCRATCH},
        *source.mounts(model),
    ]
