"""What the API server itself says about an InfernoModel: there is no webhook."""

import json
from pathlib import Path
from typing import Any

import pytest

from inferno_operator.api import source as rules
from tests.cluster.cluster import Cluster, KubectlError
from tests.operator.namespace import Namespace
from tests.unit.operator.test_examples import EXAMPLES
from tests.unit.operator.test_source import REFUSED, UNDERSTOOD

GOOD = {"model": {"source": "pvc://models/tiny.gguf"}}
ADAPTER = {"name": "sql", "source": "file:///models/sql.gguf"}
# name: a spec, and what the answer says
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({}, "spec.model: Required value"),
    "no source": ({"model": {}}, "spec.model.source: Required value"),
    "a scheme that there is not": (
        {"model": {"source": "ftp://example.com/tiny.gguf"}},
        'spec.model.source: Invalid value: "ftp://example.com/tiny.gguf": source must begin with pvc://',
    ),
    "files of a file": (
        {"model": {"source": "hf://org/repo/file.gguf", "files": ["file.gguf"]}},
        f"spec.model.files: Invalid value: {rules.FILES_MESSAGE}",
    ),
    "a web folder without files": (
        {"model": {"source": "https://example.com/minilm/"}},
        f"spec.model.source: Invalid value: {rules.WEB_FOLDER_MESSAGE}",
    ),
    "a way out by a file": (
        {"model": {"source": "hf://org/repo/", "files": ["/etc/passwd"]}},
        "spec.model.files[0]: Invalid value",
    ),
    "two claims": (
        GOOD | {"storage": {"claimName": "models", "claim": {"size": "1Gi"}}},
        "claim and claimName exclude each other",
    ),
    "a prefetch into nothing": (GOOD | {"storage": {"prefetch": True}}, "prefetch needs a claim to fetch into"),
    "a claim without a size": (GOOD | {"storage": {"claim": {}}}, "spec.storage.claim.size: Required value"),
    "a way out": (
        {"model": {"source": "pvc://models/../etc"}},
        'spec.model.source: Invalid value: "pvc://models/../etc": the path in source must not have . or .. as a component',
    ),
    "a digest that is none": ({"model": GOOD["model"] | {"sha256": "abc"}}, "spec.model.sha256: Invalid value"),
    "an alias twice": (
        {"model": GOOD["model"] | {"aliases": ["a", "a"]}},
        'spec.model.aliases[1]: Duplicate value: "a"',
    ),
    "an alias that says nothing new": (
        {"model": GOOD["model"] | {"aliases": ["tiny"]}},
        "spec.model.aliases: Invalid value: aliases must not repeat metadata.name",
    ),
    "an empty alias": ({"model": GOOD["model"] | {"aliases": [""]}}, "spec.model.aliases[0]: Invalid value"),
    "an adapter twice": (
        {"model": GOOD["model"] | {"adapters": [ADAPTER, ADAPTER]}},
        'spec.model.adapters[1]: Duplicate value: {"name":"sql"}',
    ),
    "an adapter's name with a colon": (
        {"model": GOOD["model"] | {"adapters": [ADAPTER | {"name": "a:b"}]}},
        "spec.model.adapters[0].name: Invalid value",
    ),
    "an adapter from nowhere": (
        {"model": GOOD["model"] | {"adapters": [ADAPTER | {"source": "ftp://example.com/sql.gguf"}]}},
        "source must begin with pvc://",
    ),
    "an adapter that is a folder": (
        {"model": GOOD["model"] | {"adapters": [ADAPTER | {"source": "hf://org/repo/"}]}},
        rules.ADAPTER_MESSAGE,
    ),
    "a pod template without its shape": (
        GOOD | {"podTemplate": {"spec": {"containers": [{"name": "runtime", "resources": {"requests": 5}}]}}},
        "spec.podTemplate.spec.containers[0].resources.requests: Invalid value",
    ),
    "a volume of the operator's own": (
        GOOD | {"volumes": [{"name": "inferno-adapters", "emptyDir": {}}]},
        "are the operator's own volumes",
    ),
    "too few replicas": (GOOD | {"replicas": -1}, "spec.replicas: Invalid value: -1"),
    "a percentage that is none": (GOOD | {"maxUnavailable": "all"}, "spec.maxUnavailable"),
    "keys of two kinds": (
        GOOD | {"keysSecret": {"name": "keys"}, "server": {"keysFile": "/keys"}},
        "give either spec.keysSecret or spec.server.keysFile",
    ),
    "a host that is none": (GOOD | {"network": {"ingress": {"host": "no host"}}}, "spec.network.ingress.host"),
    "a route on no gateway": (GOOD | {"network": {"httpRoute": {"gateways": []}}}, "spec.network.httpRoute.gateways"),
    "KEDA with nobody to ask": (
        GOOD | {"autoscaling": {"maxReplicas": 2, "by": "ScaledObject"}},
        "give prometheus, which KEDA asks",
    ),
    "no pods at all": (GOOD | {"autoscaling": {"minReplicas": 0, "maxReplicas": 1}}, "spec.autoscaling.minReplicas"),
    "fewer than the least": (
        GOOD | {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}},
        "minReplicas must not be more than maxReplicas",
    ),
    "too few slots": (GOOD | {"engine": {"slots": 0}}, "spec.engine.slots: Invalid value: 0"),
    "an unknown cache type": (
        GOOD | {"engine": {"kvCacheType": "q1"}},
        'spec.engine.kvCacheType: Unsupported value: "q1"',
    ),
    "text for a number": (GOOD | {"engine": {"slots": "many"}}, "spec.engine.slots: Invalid value"),
    "a misspelt field": (GOOD | {"engine": {"slot": 4}}, 'unknown field "spec.engine.slot"'),
    "a quantity that is none": (GOOD | {"resources": {"limits": {"cpu": "much"}}}, "spec.resources.limits.cpu"),
    "no such pull policy": (
        GOOD | {"imagePullPolicy": "Sometimes"},
        'spec.imagePullPolicy: Unsupported value: "Sometimes"',
    ),
    "a toleration that is none": (
        GOOD | {"tolerations": [{"effect": "Never"}]},
        "spec.tolerations[0].effect: Unsupported",
    ),
    "a variable with two values": (
        GOOD | {"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
        "give either value or valueFrom",
    ),
    "a volume of the operator's": (GOOD | {"volumes": [{"name": "tmp", "emptyDir": {}}]}, "operator's own volumes"),
    "a claim of nothing": (GOOD | {"resourceClaims": [{"name": "gpu"}]}, "give either resourceClaimName"),
    "no profile in a list of them": (GOOD | {"profiles": []}, "spec.profiles: Invalid value"),
    "an affinity that is none": (GOOD | {"affinity": {"nodeAffinity": {"wish": 1}}}, "unknown field"),
}
NAMES = ["1tiny", "tiny.large", "m" * 64]


def dry_run(cluster: Cluster, spec: dict[str, Any], name: str = "tiny") -> dict[str, Any]:
    """The InfernoModel as it would be stored."""
    body = {"apiVersion": "inferno.ai/v1alpha1", "kind": "InfernoModel", "metadata": {"name": name}, "spec": spec}
    command = ("create", "--dry-run=server", "--validate=strict", "--output=json", "--filename=-")
    stored: dict[str, Any] = json.loads(cluster.kubectl(*command, input=json.dumps(body)))
    return stored


def test_kubectl_explains_every_field(cluster: Cluster) -> None:
    told = " ".join(cluster.kubectl("explain", "im.spec.autoscaling").split())
    for text in ("Who decides:", "Default: Operator.", "Most pods.", "-required-"):
        assert text in told
    assert "<no description>" not in cluster.kubectl("explain", "im.spec")


@pytest.mark.parametrize("case", WRONG)
def test_refused(cluster: Cluster, case: str) -> None:
    spec, said = WRONG[case]
    with pytest.raises(KubectlError) as refusal:
        dry_run(cluster, spec)
    assert said in refusal.value.stderr


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_service_can_have(cluster: Cluster, name: str) -> None:
    with pytest.raises(KubectlError, match=r"metadata\.name must be at most 63 lower-case letters"):
        dry_run(cluster, GOOD, name)


def test_a_name_that_is_too_long_for_a_headless_service(cluster: Cluster) -> None:
    headless = GOOD | {"network": {"headless": True}}
    assert dry_run(cluster, headless, "m" * 58)
    with pytest.raises(KubectlError, match="at most 58 characters"):
        dry_run(cluster, headless, "m" * 59)


def test_the_longest_name_is_taken(cluster: Cluster) -> None:
    assert dry_run(cluster, GOOD, "m" * 63)


@pytest.mark.parametrize("source", UNDERSTOOD)
def test_sources_that_the_operator_understands_are_taken(cluster: Cluster, source: str) -> None:
    files = {"files": ["model.onnx"]} if source.startswith("https://") and source.endswith("/") else {}
    assert dry_run(cluster, {"model": {"source": source} | files})


@pytest.mark.parametrize("source", REFUSED, ids=repr)
def test_sources_that_it_does_not_understand_are_not(cluster: Cluster, source: str) -> None:
    with pytest.raises(KubectlError) as refusal:
        dry_run(cluster, {"model": {"source": source}})
    assert REFUSED[source] in refusal.value.stderr


def test_defaults_are_written_out(cluster: Cluster) -> None:
    spec = dry_run(cluster, GOOD)["spec"]
    assert spec["replicas"] == 1
    assert spec["engine"]["slots"] == 8
    assert spec["server"]["drainSeconds"] == 300
    assert "image" not in spec


def test_explain_describes_every_level(cluster: Cluster) -> None:
    explained = cluster.kubectl("explain", "infernomodel.spec.model.source")
    assert "pvc://CLAIM/PATH" in explained
    assert "Default: 8." in cluster.kubectl("explain", "im.spec.engine")
    assert "Default: 1." in cluster.kubectl("explain", "im.spec")


def test_get_shows_what_a_person_wants(namespace: Namespace) -> None:
    namespace.model()
    header = namespace.kubectl("get", "im").splitlines()[0].split()
    assert header == ["NAME", "READY", "REASON", "REPLICAS", "AVAILABLE", "URL", "AGE"]
    assert "tiny" in namespace.kubectl("get", "inferno"), "the category"


def test_scale_is_a_subresource(namespace: Namespace) -> None:
    namespace.model()
    namespace.kubectl("scale", "infernomodel/tiny", "--replicas=4")
    assert namespace.get("im", "tiny")["spec"]["replicas"] == 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_taken(namespace: Namespace, path: Path) -> None:
    namespace.kubectl("apply", "--dry-run=server", "--validate=strict", f"--filename={path}")
