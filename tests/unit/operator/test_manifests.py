from collections.abc import Callable
from typing import Any

import pytest
import yaml

from inferno_operator import manifests
from inferno_operator.api import names
from inferno_operator.api.resource import parse_spec
from inferno_runtime.config import EngineConfig, ServerConfig
from tests.unit.operator.models import IMAGE, body, model

Golden = Callable[[str, list[dict[str, Any]]], None]

MINIMAL: dict[str, Any] = {}
IN_THE_IMAGE = {"model": {"source": "file:///opt/models/tiny.gguf"}, "replicas": 0}
EVERYTHING: dict[str, Any] = {
    "model": {
        "source": "pvc://models/llama/tiny.gguf",
        "sha256": "ab" * 32,
        "aliases": ["small", "gpt-4o-mini"],
        "chatTemplate": "{{ messages }}",
    },
    "engine": {"contextLength": 4096, "slots": 2, "maxQueue": 256},
    "server": {"drainSeconds": 30},
    "replicas": 3,
    "resources": {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "2Gi", "nvidia.com/gpu": 1}},
    "image": "registry.example/own:7",
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 50,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {names.INSTANCE: "tiny"}},
                    },
                }
            ]
        }
    },
    "priorityClassName": "serving",
    "runtimeClassName": "gvisor",
    "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone"}],
    "env": [
        {"name": "OMP_NUM_THREADS", "value": "2"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "hub"}}},
    ],
    "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}}],
    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
    "podTemplate": {
        "metadata": {"annotations": {"example.com/team": "ml"}, "labels": {"team": "ml"}},
        "spec": {
            "shareProcessNamespace": True,
            "containers": [
                {"name": "runtime", "resources": {"requests": {"ephemeral-storage": "1Gi"}}},
                {
                    "name": "sidecar",
                    "image": "registry.example/sidecar:1",
                    "ports": [{"containerPort": 9000, "protocol": "TCP"}],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "runAsNonRoot": True,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                },
            ],
        },
    },
}
REACHED: dict[str, Any] = {
    "replicas": 0,
    "autoscaling": {"by": "HorizontalPodAutoscaler", "minReplicas": 2, "maxReplicas": 6},
    "keysSecret": {"name": "api-keys"},
    "network": {
        "serviceType": "NodePort",
        "headless": True,
        "ingress": {
            "host": "tiny.example.com",
            "className": "nginx",
            "tlsSecretName": "tiny-tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
        },
        "policy": {
            "allow": [
                {"podSelector": {"matchLabels": {"app": "chat"}}},
                {"namespaceSelector": {"matchLabels": {"team": "ml"}}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            ]
        },
    },
}
WHERE_KNOWN: dict[str, Any] = {
    "network": {
        "httpRoute": {"gateways": [{"name": "public", "namespace": "infra"}], "hostnames": ["tiny.example.com"]}
    },
    "monitoring": {
        "serviceMonitor": True,
        "intervalSeconds": 15,
        "prometheusRule": True,
        "labels": {"release": "prometheus"},
    },
}
CASES = {"minimal": MINIMAL, "in-the-image": IN_THE_IMAGE, "everything": EVERYTHING, "reached": REACHED}


def render(spec: dict[str, Any] | None = None, image: str = IMAGE, **more: Any) -> dict[str, dict[str, Any]]:
    """The first of each kind."""
    return {manifest["kind"]: manifest for manifest in reversed(manifests.render(model(spec, **more), image))}


def template(spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = render(spec, **more)["Deployment"]["spec"]["template"]
    return found


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, check_golden: Golden) -> None:
    check_golden(f"manifests-{case}", manifests.render(model(CASES[case]), IMAGE))


def test_golden_where_the_cluster_knows_more(check_golden: Golden) -> None:
    check_golden("manifests-where-known", manifests.render(model(WHERE_KNOWN), IMAGE)[3:])


@pytest.mark.parametrize("case", CASES)
def test_pods_meet_the_restricted_standard(case: str) -> None:
    pod = template(CASES[case])["spec"]
    container = pod["containers"][0]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {kind for volume in pod["volumes"] for kind in volume} <= {
        "name",
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "secret",
    }


@pytest.mark.parametrize("case", CASES)
def test_the_runtime_understands_its_document(case: str) -> None:
    document = yaml.safe_load(render(CASES[case])["ConfigMap"]["data"][names.CONFIG_KEY])
    assert document["metadata"] == {"name": "tiny"}
    assert document["spec"]["model"]["source"].startswith("file:///")
    spec = document["spec"]
    told = EngineConfig.model_validate(spec.get("engine", {})), ServerConfig.model_validate(spec.get("server", {}))
    asked = parse_spec(body(CASES[case]))
    keys = {"keys_file": "/etc/inferno-keys/keys.yaml"} if asked.keys_secret else {}
    assert told == (asked.engine, asked.server.model_copy(update=keys))


def test_defaults_written_out_by_the_api_server_change_nothing() -> None:
    written_out = {"engine": EngineConfig().wire(), "server": ServerConfig().wire(), "replicas": 1}
    assert render(written_out) == render()


def test_a_claim_is_mounted_whole_and_read_only() -> None:
    pod = template()["spec"]
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "models"}} in pod["volumes"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_a_file_of_the_image_needs_no_volume() -> None:
    assert [volume["name"] for volume in template(IN_THE_IMAGE)["spec"]["volumes"]] == ["config", "tmp"]


@pytest.mark.parametrize(
    ("spec", "rolls"),
    [
        ({}, False),
        ({"replicas": 5}, False),
        ({"engine": {"slots": 4}}, True),
        ({"server": {"drainSeconds": 1}}, True),
        ({"server": {"requestsPerMinute": 5, "logLevel": "debug", "tokenBatchSize": 1}}, False),
        ({"model": {"source": "pvc://models/other.gguf"}}, True),
        ({"nodeSelector": {"a": "b"}}, True),
        ({"image": "other"}, True),
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, True),
        ({"profileTimeoutSeconds": 5}, False),
    ],
    ids=str,
)
def test_what_rolls_the_pods(spec: dict[str, Any], rolls: bool) -> None:
    before, after = template(), template(spec)
    assert (before != after) == rolls
    annotation = names.TEMPLATE_DIGEST
    assert (before["metadata"]["annotations"][annotation] != after["metadata"]["annotations"][annotation]) == rolls


def test_what_a_pod_template_merges_in_does_not_lose_the_pods() -> None:
    theirs = {"metadata": {"labels": {"$patch": "replace", names.INSTANCE: "theirs", "team": "ml"}}}
    labels = template({"podTemplate": theirs})["metadata"]["labels"]
    assert labels[names.INSTANCE] == "tiny"
    assert labels["team"] == "ml"


def test_a_spread_counts_the_models_pods_unless_it_says_otherwise() -> None:
    constraints = [{"topologyKey": "a"}, {"topologyKey": "b", "labelSelector": {"matchLabels": {"c": "d"}}}]
    found = template({"topologySpreadConstraints": constraints})["spec"]["topologySpreadConstraints"]
    assert [each["labelSelector"]["matchLabels"] for each in found] == [names.selector_labels("tiny"), {"c": "d"}]


def test_the_drain_has_its_time() -> None:
    assert template({"server": {"drainSeconds": 45}})["spec"]["terminationGracePeriodSeconds"] > 45


@pytest.mark.parametrize(
    ("spec", "unavailable"),
    [({}, None), ({"replicas": 2}, 1), ({"replicas": 4, "maxUnavailable": "50%"}, "50%")],
    ids=str,
)
def test_a_budget_protects_several_pods(spec: dict[str, Any], unavailable: object) -> None:
    budget = render(spec).get("PodDisruptionBudget")
    assert (budget and budget["spec"]["maxUnavailable"]) == unavailable


def test_a_suspended_model_has_no_pods_and_keeps_the_rest() -> None:
    suspended, serving = render({"suspend": True, "replicas": 3}), render({"replicas": 3})
    assert suspended["Deployment"]["spec"]["replicas"] == 0
    assert suspended["Deployment"]["spec"]["template"] == serving["Deployment"]["spec"]["template"]
    assert set(suspended) == set(serving)


def test_the_keys_are_mounted_and_the_pod_is_told_where() -> None:
    rendered = render({"keysSecret": {"name": "api-keys", "key": "team.yaml"}})
    pod = rendered["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "keys", "secret": {"secretName": "api-keys"}} in pod["volumes"]
    mount = next(each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "keys")
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "it would not follow the Secret"
    document = yaml.safe_load(rendered["ConfigMap"]["data"][names.CONFIG_KEY])
    assert document["spec"]["server"]["keysFile"] == f"{mount['mountPath']}/team.yaml"


def test_of_two_services_one_is_scraped() -> None:
    made = manifests.render(model({"network": {"headless": True}, "monitoring": {"serviceMonitor": True}}), IMAGE)
    selected = next(each for each in made if each["kind"] == "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    services = [each for each in made if each["kind"] == "Service"]
    scraped = [each for each in services if selected.items() <= each["metadata"]["labels"].items()]
    assert len(services) == 2
    assert [each["metadata"]["name"] for each in scraped] == ["tiny"]


def test_children_are_owned_and_labelled() -> None:
    for manifest in render().values():
        [owner] = manifest["metadata"]["ownerReferences"]
        assert owner["controller"] is True
        assert owner["name"] == "tiny"
        assert manifest["metadata"]["labels"][names.MANAGED_BY] == names.FIELD_MANAGER


def test_the_longest_name_fits() -> None:
    longest = "m" * 63
    rendered = render(name=longest)
    assert rendered["Service"]["metadata"]["name"] == longest
    assert all(len(value) <= 63 for child in rendered.values() for value in child["metadata"]["labels"].values())
