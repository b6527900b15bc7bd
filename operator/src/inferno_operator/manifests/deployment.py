"""The Deployment: the pods that serve the model."""

from typing import Any, Final

from inferno_operator import resources
from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests import configmap, source
from inferno_operator.manifests.digest import digest
from inferno_operator.manifests.merge import strategic_merge
from inferno_operator.manifests.pod import scheduling, security_context, wire, without_nothing
from inferno_operator.manifests.source import SCRATCH
from inferno_runtime.models.facts import ModelFacts

RESIZABLE: Final = ("cpu", "memory")
"""Resources of the runtime's container that can change while it runs."""
# A large model on slow storage takes long to load. A pod that cannot start says so at once and on its own; this is only
# for one that hangs.
STARTUP_SECONDS: Final = 1800
_PROBE_SECONDS: Final = 5
_UNREADY_PROBES: Final = 2
# How long a model that has loaded may wait for its first request.
_STARTUP_PROBE_SECONDS: Final = 1
# What is left to the process after its drain: to say goodbye to the last client and to free the memory.
_GRACE_BEYOND_DRAIN_SECONDS: Final = 10
# A pod on its way out still gets new requests until every node has heard of it; only then may it begin to refuse them.
# They hear of it at once; a pod that its node evicts is deleted for that (see evictions.py).
_PRE_STOP_SECONDS: Final = 5
_EVERY_INTERFACE: Final = "0.0.0.0"  # noqa: S104  # the pod's, and nobody else's


def render(model: Model, config: dict[str, Any], default_image: str, facts: ModelFacts | None = None) -> dict[str, Any]:
    """The Deployment of ``model``, whose pods read the ConfigMap ``config``; ``facts``: what the model was found to be."""
    identity = model.identity
    return identity.child("apps/v1", "Deployment", identity.name) | {
        "spec": {
            "replicas": model.wanted,
            "selector": {"matchLabels": names.selector_labels(identity.name)},
            # A new pod serves before an old one goes, so that no request finds the model away.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": STARTUP_SECONDS + 60,
            "revisionHistoryLimit": 2,
            "template": template(model, config, default_image, facts),
        }
    }


def template(model: Model, config: dict[str, Any], default_image: str, facts: ModelFacts | None) -> dict[str, Any]:
    """The template of the pods."""
    labels = names.labels(model.identity.name)
    profile = {names.PROFILE: model.profile} if model.profile else {}
    own = {
        "metadata": {
            "labels": labels,
            "annotations": {names.CONFIG_DIGEST: digest(configmap.lasting(model)), **profile},
        },
        "spec": _pod(model, config["metadata"]["name"], default_image, facts),
    }
    merged = strategic_merge(own, model.spec.pod_template or {})
    # By these the pods are found, whatever else was merged in.
    metadata = merged.get("metadata", {})
    metadata = metadata | {"labels": metadata.get("labels", {}) | labels}
    own_digest = {names.TEMPLATE_DIGEST: digest(_lasting(merged | {"metadata": metadata}))}
    return merged | {"metadata": metadata | {"annotations": metadata.get("annotations", {}) | own_digest}}


def _lasting(template: dict[str, Any]) -> dict[str, Any]:
    """The template without what its pods can take on while they run, nor what those have that run before: they have run."""
    pod = template.get("spec", {})
    before = [
        {name: value for name, value in each.items() if name != "resources"} for each in pod.get("initContainers", ())
    ]
    return template | {
        "spec": pod | {"initContainers": before, "containers": [*map(_unsized, pod.get("containers", ()))]}
    }


def _unsized(container: dict[str, Any]) -> dict[str, Any]:
    if container.get("name") != names.CONTAINER:
        return container
    left: dict[str, Any] = {}
    for kind, amounts in (container.get("resources") or {}).items():
        lasting = amounts
        if kind in ("requests", "limits"):
            lasting = {name: amount for name, amount in amounts.items() if name not in RESIZABLE}
        left |= {kind: lasting} if lasting else {}
    bare = {name: value for name, value in container.items() if name != "resources"}
    return bare | ({"resources": left} if left else {})


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
        "startupProbe": _probe("/health/ready", STARTUP_SECONDS // _STARTUP_PROBE_SECONDS, _STARTUP_PROBE_SECONDS),
        "readinessProbe": _probe("/health/ready", failures=_UNREADY_PROBES),
        # The runtime starts a dead engine again by itself; only when that does not help is the pod beyond help.
        "livenessProbe": _probe("/health/live", failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["inferno", "leave", f"--seconds={_PRE_STOP_SECONDS}"]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The runtime leaves the one line that says why it could not start in its termination message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(model),
    }
    asked_for = {
        "imagePullPolicy": spec.image_pull_policy,
        "resources": _resources(model, facts),
        "env": wire(spec.env),
    }
    return container | without_nothing(asked_for)


def _resources(model: Model, facts: ModelFacts | None) -> dict[str, Any]:
    given = resources.render(model.spec, facts)
    if claims := model.spec.resource_claims:
        given["claims"] = [{"name": claim.name} for claim in claims]
    return given


def _probe(path: str, failures: int, period: int = _PROBE_SECONDS) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": names.PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": _PROBE_SECONDS,
        "failureThreshold": failures,
    }


def _volumes(model: Model, config_name: str) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": config_name}},
        {"name": "tmp", "emptyDir": {}},
        *source.volumes(model),
    ]
    if keys := model.spec.keys_secret:
        volumes.append({"name": "keys", "secret": {"secretName": keys.name}})
    return volumes + (wire(model.spec.volumes) or [])


def _mounts(model: Model) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": names.CONFIG_DIRECTORY, "readOnly": True},
        {"name": "tmp", "mountPath": SCRATCH},
        *source.mounts(model),
    ]
    if model.spec.keys_secret:
        # The whole Secret: a single key of it would stay as it was when the Secret changes.
        mounts.append({"name": "keys", "mountPath": names.KEYS_DIRECTORY, "readOnly": True})
    return mounts + (wire(model.spec.volume_mounts) or [])
