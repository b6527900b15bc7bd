"""LoRA adapters in a resource."""

from typing import Any

import pytest
from pydantic import ValidationError

from inferno_operator import manifests
from inferno_operator.manifests import configmap, prefetch
from inferno_runtime import cli
from inferno_runtime.config import AdapterConfig
from tests.unit.operator.models import IMAGE, model

SQL = {"name": "sql", "source": "file:///models/sql.gguf"}


def test_the_pods_are_told_of_adapters_and_not_of_what_is_as_by_default() -> None:
    adapters = [SQL, {"name": "terse", "source": "file:///models/terse.gguf", "scale": 0.5, "aliases": ["short"]}]
    resource = model({"model": {"source": "pvc://models/llama.gguf", "adapters": adapters}})
    assert configmap.document(resource)["spec"]["model"]["adapters"] == adapters


# name: the model's source, the adapter's, and where the pods find it
PLACES: dict[str, tuple[str, str, str]] = {
    "in the model's claim": ("pvc://models/llama.gguf", "pvc://models/loras/sql.gguf", "/models/loras/sql.gguf"),
    "in another claim": ("pvc://models/llama.gguf", "pvc://loras/sql.gguf", "/mnt/adapters/0/sql.gguf"),
    "in the model's image": ("oci://r.example/llama:1/m.gguf", "oci://r.example/llama:1/sql.gguf", "/models/sql.gguf"),
    "in another image": (
        "oci://r.example/llama:1/m.gguf",
        "oci://r.example/loras:1/sql.gguf",
        "/mnt/adapters/0/sql.gguf",
    ),
    "from the hub": ("hf://org/llama/m.gguf", "hf://org/loras@v1/sql.gguf", "/adapters/sql.gguf"),
    "from the web, beside a claim": ("pvc://models/m.gguf", "https://a.example/b?c=d", "/adapters/sql.gguf"),
    "in the runtime's image": ("hf://org/llama/m.gguf", "file:///opt/sql.gguf", "/opt/sql.gguf"),
}


@pytest.mark.parametrize("case", PLACES)
def test_the_pods_find_an_adapter_wherever_it_comes_from(case: str) -> None:
    source, adapter, path = PLACES[case]
    resource = model({"model": {"source": source, "adapters": [SQL | {"source": adapter}]}})
    [told] = configmap.document(resource)["spec"]["model"]["adapters"]
    assert told == SQL | {"source": f"file://{path}"}
    pod = manifests.pod_template(resource, IMAGE)["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        mounts = container["volumeMounts"]
        assert {mount["name"] for mount in mounts} <= volumes
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
    runtime = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert path.startswith(("/opt/", *(f"{place}/" for place in runtime)))


def test_each_claim_and_each_image_is_mounted_once() -> None:
    sources = ("pvc://loras/a.gguf", "pvc://loras/b.gguf", "pvc://models/c.gguf", "oci://r.example/loras:1/d.gguf")
    adapters = [{"name": source[-6], "source": source} for source in sources]
    pod = manifests.pod_template(model({"model": {"source": "pvc://models/m.gguf", "adapters": adapters}}), IMAGE)[
        "spec"
    ]
    named = {volume["name"]: volume for volume in pod["volumes"] if volume["name"].startswith("inferno-")}
    assert set(named) == {"inferno-adapters-0", "inferno-adapters-1"}
    assert named["inferno-adapters-0"]["persistentVolumeClaim"] == {"claimName": "loras"}
    assert named["inferno-adapters-1"]["image"]["reference"] == "r.example/loras:1"


def test_what_is_fetched_goes_through_the_models_cache() -> None:
    digest = "ab" * 32
    adapters = [
        SQL | {"source": "hf://org/loras/sql.gguf", "sha256": digest},
        {"name": "b", "source": "s3://abc/b.gguf"},
    ]
    given = {"source": "hf://org/llama/m.gguf", "adapters": adapters, "endpoint": "https://mirror.example"}
    spec = {"model": given | {"credentials": {"name": "hub"}}, "storage": {"claim": {"size": "5Gi"}, "prefetch": True}}
    resource = model(spec)
    pod = manifests.pod_template(resource, IMAGE)["spec"]
    inspect, _, fetch = pod["initContainers"]
    assert [each["name"] for each in pod["initContainers"]] == ["inspect", "fetch", "fetch-adapters"]
    assert inspect["args"][-2:] == ["--adapter=hf://org/loras/sql.gguf", "--adapter=s3://abc/b.gguf"]
    assert fetch["args"] == [
        "fetch-adapters",
        f"--adapter=sql=hf://org/loras/sql.gguf#{digest}",
        "--adapter=b=s3://abc/b.gguf",
        "--cache=/var/cache/inferno",
        "--user=demo/tiny",
        "--folder=/adapters",
    ]
    assert fetch["env"] == [{"name": "HF_ENDPOINT", "value": "https://mirror.example"}]
    assert fetch["envFrom"] == [{"secretRef": {"name": "hub"}}]
    arguments = cli.parser().parse_args(fetch["args"])
    assert [(each.name, each.sha256) for each in arguments.adapters] == [("sql", digest), ("b", None)]
    job = prefetch.render(resource, IMAGE)
    assert job is not None
    first = job["spec"]["template"]["spec"]["initContainers"]
    assert [each["args"] for each in first] == [[word for word in fetch["args"] if word != "--folder=/adapters"]]


def test_an_adapter_that_is_fetched_brings_a_cache_of_its_own() -> None:
    adapters = [SQL | {"source": "https://a.example/sql.gguf"}]
    resource = model(
        {"model": {"source": "pvc://models/m.gguf", "adapters": adapters}, "storage": {"claimName": "cache"}}
    )
    pod = manifests.pod_template(resource, IMAGE)["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["inspect", "fetch-adapters"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}} in pod["volumes"]
    assert pod["securityContext"]["fsGroup"] == 65532


def test_an_adapter_in_a_volume_of_the_users_is_counted() -> None:
    volumes = [{"name": "loras", "persistentVolumeClaim": {"claimName": "loras"}}, {"name": "other", "emptyDir": {}}]
    mounts = [{"name": "loras", "mountPath": "/loras", "subPath": "team"}, {"name": "other", "mountPath": "/lor"}]
    adapters = [SQL | {"source": "file:///loras/sql.gguf"}]
    spec = {"model": {"source": "hf://org/m/m.gguf", "adapters": adapters}, "volumes": volumes, "volumeMounts": mounts}
    inspect = manifests.pod_template(model(spec), IMAGE)["spec"]["initContainers"][0]
    assert inspect["args"][-1] == "--adapter=file:///loras/sql.gguf"
    assert inspect["volumeMounts"][1:] == [mounts[0] | {"readOnly": True}]


@pytest.mark.parametrize(
    "source", ["hf://org/loras/", "hf://org/loras/*.gguf", "ftp://a/b.gguf", "file://b", "/b.gguf"]
)
def test_a_source_that_names_no_file(source: str) -> None:
    with pytest.raises(ValueError, match="source"):
        model({"model": {"source": "pvc://models/m.gguf", "adapters": [SQL | {"source": source}]}})


@pytest.mark.parametrize(
    "change",
    [{"name": "a:b"}, {"name": ""}, {"name": "-a"}, {"source": ""}, {"scale": 1000}, {"rank": 8}],
)
def test_an_adapter_that_cannot_be_meant(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AdapterConfig.model_validate(SQL | change)
