from collections.abc import Callable
from dataclasses import replace
from typing import Any

import promql_parser
import pytest
import yaml

from inferno_operator import manifests
from inferno_operator.api import names
from inferno_operator.api.resource import parse_spec
from inferno_runtime import cli
from inferno_runtime.config import EngineConfig, ServerConfig
from inferno_runtime.models.facts import ModelFacts
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
FROM_THE_HUB: dict[str, Any] = {
    "model": {
        "source": "hf://org/repo@v1/tiny-00001-of-00002.gguf",
        "sha256": "ab" * 32,
        "endpoint": "https://mirror.example",
        "credentials": {"name": "hub"},
    },
    "storage": {"claim": {"size": "20Gi", "storageClassName": "fast"}, "sizeLimit": "18Gi", "prefetch": True},
}
A_FOLDER = {
    "model": {"source": "https://models.example/minilm/", "files": ["model.onnx", "config.json"]},
    "storage": {"sizeLimit": 1_000_000_000},
}
SHARED_CACHE = {"model": {"source": "s3://models/llama/*Q8_0.gguf"}, "storage": {"claimName": "cache"}}
AN_IMAGE = {"model": {"source": "oci://registry.example:5000/models/tiny:1/gguf/tiny.gguf"}}
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
    "replicas": 0,
    "autoscaling": {
        "by": "ScaledObject",
        "minReplicas": 2,
        "maxReplicas": 6,
        "prometheus": {"address": "https://prometheus.example", "authentication": "prometheus"},
    },
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
CASES = {
    "minimal": MINIMAL,
    "in-the-image": IN_THE_IMAGE,
    "everything": EVERYTHING,
    "from-the-hub": FROM_THE_HUB,
    "a-folder": A_FOLDER,
    "shared-cache": SHARED_CACHE,
    "an-image": AN_IMAGE,
    "reached": REACHED,
}


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
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {kind for volume in pod["volumes"] for kind in volume} <= {
        "name",
        "configMap",
        "emptyDir",
        "image",
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


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    pod = template(spec)["spec"]
    return {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}


@pytest.mark.parametrize("case", CASES)
def test_the_runtime_understands_its_commands(case: str) -> None:
    """Those of the containers that run before it, too."""
    for name in containers(CASES[case]).keys() & {"inspect", "fetch", "runtime"}:
        container = containers(CASES[case])[name]
        arguments = cli.parser().parse_args(container["args"])
        assert arguments.command in ("run", "inspect", "fetch")


def test_a_model_is_inspected_and_then_fetched() -> None:
    found = containers(FROM_THE_HUB)
    assert list(found) == ["inspect", "fetch", "runtime"]
    for name in ("inspect", "fetch"):
        assert found[name]["envFrom"] == [{"secretRef": {"name": "hub"}}]
        arguments = cli.parser().parse_args(found[name]["args"])
        assert (arguments.source, arguments.endpoint) == (FROM_THE_HUB["model"]["source"], "https://mirror.example")
    assert "envFrom" not in found["runtime"], "the runtime has no credentials"
    assert (arguments.cache_limit, arguments.user) == (18 * 2**30, "demo/tiny")
    cache = {"name": "cache", "mountPath": "/var/cache/inferno"}
    assert cache in found["fetch"]["volumeMounts"]
    assert cache | {"readOnly": True} in found["runtime"]["volumeMounts"]


def test_what_is_mounted_is_only_inspected() -> None:
    assert list(containers(MINIMAL)) == ["inspect", "runtime"]
    assert containers(MINIMAL)["inspect"]["args"] == ["inspect", "file:///models/tiny.gguf"]
    assert "envFrom" not in containers({"model": MODEL_WITH_CREDENTIALS})["inspect"]


def test_adapters_are_looked_at_with_the_model() -> None:
    adapters = [{"name": name, "source": f"file:///models/{name}.gguf"} for name in ("sql", "terse")]
    for served in ({"source": "pvc://models/tiny.gguf"}, FROM_THE_HUB["model"]):
        found = containers({"model": {**served, "adapters": adapters}})
        arguments = cli.parser().parse_args(found["inspect"]["args"])
        assert arguments.adapters == ["file:///models/sql.gguf", "file:///models/terse.gguf"]
        assert "adapter" not in str(found.get("fetch"))


@pytest.mark.parametrize("projector", ["mmproj-F16.gguf", "file:///models/mmproj.gguf"])
def test_a_projector_is_looked_at_with_the_model(projector: str) -> None:
    found = containers({"model": {"source": "pvc://models/tiny.gguf", "projector": projector}})
    assert cli.parser().parse_args(found["inspect"]["args"]).projector == projector


MODEL_WITH_CREDENTIALS = {"source": "pvc://models/tiny.gguf", "credentials": {"name": "unused"}}


def test_a_claim_of_its_own_goes_with_the_model_unless_it_is_to_stay() -> None:
    claim = render(FROM_THE_HUB)["PersistentVolumeClaim"]
    assert claim["metadata"]["name"] == "tiny-cache"
    assert claim["metadata"]["ownerReferences"]
    retained = FROM_THE_HUB | {"storage": {"claim": {"size": "20Gi", "retain": True}}}
    assert "ownerReferences" not in render(retained)["PersistentVolumeClaim"]["metadata"]
    assert "PersistentVolumeClaim" not in render(SHARED_CACHE)
    assert "PersistentVolumeClaim" not in render({"storage": {"claim": {"size": "20Gi"}}}), "pvc:// needs no cache"


def test_a_model_is_fetched_before_it_is_needed() -> None:
    job = render(FROM_THE_HUB)["Job"]
    pod = job["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["containers"]] == ["fetch"]
    assert not set(names.selector_labels("tiny").items()) <= set(job["spec"]["template"]["metadata"]["labels"].items())
    assert cli.parser().parse_args(pod["containers"][0]["args"]).link is None
    fetched = manifests.render(model(FROM_THE_HUB), IMAGE, fetched=True)
    assert "Job" not in {child["kind"] for child in fetched}
    other = {**FROM_THE_HUB, "model": {**FROM_THE_HUB["model"], "source": "hf://org/repo@v2/tiny.gguf"}}
    assert render(other)["Job"]["metadata"]["name"] != job["metadata"]["name"]
    assert len(render(FROM_THE_HUB, name="m" * 63)["Job"]["metadata"]["name"]) <= 63
    assert "Job" not in render({"storage": {"claimName": "cache", "prefetch": True}}), "pvc:// needs no fetch"


def test_who_writes_a_claim_may_do_so() -> None:
    assert template(SHARED_CACHE)["spec"]["securityContext"]["fsGroup"] == 65532
    assert "fsGroup" not in template()["spec"]["securityContext"], "nobody changes who owns a claim that is only read"


# 1 GiB of weights, and 8 slots of 8192 tokens with 16 Ki numbers each.
FACTS = ModelFacts(format="gguf", size_bytes=2**30, context_length=32768, cache_values_per_token=2**14)
MEMORY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing is said": ({}, {"requests": {"memory": "3328Mi"}}),
    "only cores": (
        {"resources": {"requests": {"cpu": 2}}},
        {"requests": {"cpu": 2, "memory": "3328Mi"}},
    ),
    "a limit": ({"resources": {"limits": {"memory": "2Gi"}}}, {"limits": {"memory": "2Gi"}}),
    "a request": ({"resources": {"requests": {"memory": "9Gi"}}}, {"requests": {"memory": "9Gi"}}),
    "fewer slots": ({"engine": {"slots": 1}}, {"requests": {"memory": "1536Mi"}}),
    "a smaller cache": ({"engine": {"kvCacheType": "q8_0"}}, {"requests": {"memory": "2368Mi"}}),
}


@pytest.mark.parametrize(("spec", "expected"), MEMORY.values(), ids=MEMORY)
def test_memory_follows_from_the_model(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    deployment = {child["kind"]: child for child in manifests.render(model(spec), IMAGE, FACTS)}["Deployment"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"] == expected


def test_a_small_model_is_not_started_twice() -> None:
    """What a pod asks for before its model is known and afterwards is the same, so there is nothing to roll out."""
    small = FACTS.model_copy(update={"size_bytes": 2**22, "context_length": 1024, "cache_values_per_token": 2**10})
    unknown, known = (manifests.pod_template(model(), IMAGE, facts) for facts in (None, small))
    assert unknown == known
    assert unknown["spec"]["containers"][0]["resources"] == {"requests": {"memory": "512Mi"}}
    assert manifests.pod_template(model(), IMAGE, FACTS) != unknown


def test_what_prepares_takes_no_device() -> None:
    resources = containers(EVERYTHING)["inspect"]["resources"]
    assert resources == {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "2Gi"}}


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


def test_a_change_of_the_profile_is_one_of_the_template() -> None:
    """Also where the profiles differ in nothing but what pods can take on while they run."""
    annotations = [
        manifests.pod_template(replace(model(), profile=profile), IMAGE)["metadata"]["annotations"]
        for profile in (None, "small", "large")
    ]
    assert [each.get(names.PROFILE) for each in annotations] == [None, "small", "large"]
    assert len({each[names.TEMPLATE_DIGEST] for each in annotations}) == 3


def test_what_pods_can_take_on_while_they_run_is_no_change_of_the_template() -> None:
    def digest(**resources: Any) -> str:
        return str(template({"resources": resources})["metadata"]["annotations"][names.TEMPLATE_DIGEST])

    same = {digest(), digest(requests={"cpu": 1}), digest(limits={"memory": "1Gi", "cpu": 2})}
    other = {digest(limits={"nvidia.com/gpu": 1}), digest(requests={"ephemeral-storage": "1Gi"})}
    assert len(same) == 1
    assert len(same | other) == 3


def policy(asked: dict[str, Any], operator_namespace: str | None) -> Any:
    found = manifests.render(model({"network": {"policy": asked}}), IMAGE, operator_namespace=operator_namespace)
    return next(each for each in found if each["kind"] == "NetworkPolicy")["spec"]["ingress"]


def test_a_policy_lets_in_the_operator_from_its_own_namespace_alone() -> None:
    [[operator]] = [rule["from"] for rule in policy({}, "inferno-system")]
    assert operator["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "inferno-system"}}
    assert operator["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"


def test_a_policy_that_lets_in_nobody() -> None:
    assert policy({}, None) == []


def test_prometheus_understands_what_it_is_asked_of_a_model() -> None:
    made = render(WHERE_KNOWN)
    asked = [trigger["metadata"]["query"] for trigger in made["ScaledObject"]["spec"]["triggers"]]
    asked += [rule["expr"] for rule in made["PrometheusRule"]["spec"]["groups"][0]["rules"]]
    assert len(asked) >= 4
    for expression in asked:
        promql_parser.parse(expression)


# Whatever stands in a pod template is refused by name, or handed on to the API server, which does.
HOSTILE: dict[str, tuple[Any, str | None]] = {
    "text in place of metadata": ({"metadata": "x"}, "spec.podTemplate: Value error, podTemplate.metadata"),
    "a list in place of the spec": ({"spec": []}, "podTemplate.spec must be of the type object"),
    "labels that are none": ({"metadata": {"labels": ["x"]}}, "podTemplate.metadata.labels"),
    "a label that is a number": ({"metadata": {"labels": {"a": 1}}}, "podTemplate.metadata.labels.a"),
    "a container that is none": ({"spec": {"containers": ["runtime"]}}, r"podTemplate.spec.containers\[0\]"),
    "resources that are none": (
        {"spec": {"containers": [{"name": "runtime", "resources": {"requests": 5}}]}},
        "resources.requests must be of the type object",
    ),
    "no spec": ({"spec": None}, None),
    "no containers": ({"spec": {"containers": None}}, None),
    "a container without a name": ({"spec": {"containers": [{"image": "i"}]}}, None),
    "null resources": ({"spec": {"containers": [{"name": "runtime", "resources": None}]}}, None),
    "volumes that are none": ({"spec": {"volumes": ["x", 5]}}, None),
    "an environment that is none": ({"spec": {"containers": [{"name": "runtime", "env": "x"}]}}, None),
    "directives that are none": ({"spec": {"$retainKeys": 5, "$deleteFromPrimitiveList/finalizers": 5}}, None),
    "only a directive": ({"spec": {"$patch": "delete"}}, None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_pod_template_that_is_none(case: str) -> None:
    patch, complaint = HOSTILE[case]
    if complaint is None:
        assert template({"podTemplate": patch})["metadata"]["labels"], "by which the pods are found"
        return
    with pytest.raises(ValueError, match=complaint):
        model({"podTemplate": patch})
