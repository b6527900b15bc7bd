"""What the API server itself says about an InfernoModel: there is no webhook."""

import json
from pathlib import Path
from typing import Any

import pytest

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
    "a scheme that is not there yet": (
        {"model": {"source": "hf://org/repo/file.gguf"}},
        'spec.model.source: Invalid value: "hf://org/repo/file.gguf": source must be pvc://CLAIM/PATH or file:///PATH',
    ),
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
    "an adapter from elsewhere": (
        {"model": GOOD["model"] | {"adapters": [ADAPTER | {"source": "hf://org/repo/file.gguf"}]}},
        "spec.model.adapters[0].source: Invalid value",
    ),
    "too few replicas": (GOOD | {"replicas": -1}, "spec.replicas: Invalid value: -1"),
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
    "an affinity that is none": (GOOD | {"affinity": {"nodeAffinity": {"wish": 1}}}, "unknown field"),
}
NAMES = ["1tiny", "tiny.large", "m" * 64]


def dry_run(cluster: Cluster, spec: dict[str, Any], name: str = "tiny") -> dict[str, Any]:
    """The InfernoModel as it would be stored."""
    body = {"apiVersion": "inferno.ai/v1alpha1", "kind": "InfernoModel", "metadata": {"name": name}, "spec": spec}
    command = ("create", "--dry-run=server", "--validate=strict", "--output=json", "--filename=-")
    stored: dict[str, Any] = json.loads(cluster.kubectl(*command, input=json.dumps(body)))
    return stored


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


def test_the_longest_name_is_taken(cluster: Cluster) -> None:
    assert dry_run(cluster, GOOD, "m" * 63)


@pytest.mark.parametrize("source", UNDERSTOOD)
def test_sources_that_the_operator_understands_are_taken(cluster: Cluster, source: str) -> None:
    assert dry_run(cluster, {"model": {"source": source}})


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
