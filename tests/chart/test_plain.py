"""The operator without Helm: plain YAML, and a base for Kustomize."""

import json
from typing import Any

import pytest
import yaml

from scripts import plain_yaml
from tests.chart.release import MODEL
from tests.cluster import controlplane
from tests.cluster.cluster import Cluster, KubectlError
from tests.cluster.waiting import until

DEPLOY = plain_yaml.TARGET.parent


def test_it_is_what_the_chart_renders() -> None:
    assert plain_yaml.plain_yaml() == plain_yaml.TARGET.read_text(), "run `make manifests`"


def test_nothing_of_helm_is_left() -> None:
    assert "helm" not in plain_yaml.TARGET.read_text().lower()


@pytest.mark.kube
def test_a_cluster_takes_it_from_its_files_and_from_kustomize() -> None:
    with controlplane.connect() as cluster:
        crd = DEPLOY.parent / "crds" / "inferno.ai_infernomodels.yaml"
        cluster.kubectl("apply", "--server-side", f"--filename={crd}", f"--filename={plain_yaml.TARGET}")
        operator = ("deployment", "inferno", f"--namespace={plain_yaml.NAMESPACE}")
        before = cluster.get(*operator)
        cluster.kubectl("apply", "--server-side", "-k", str(DEPLOY))
        assert cluster.get(*operator)["metadata"]["generation"] == before["metadata"]["generation"], "they are the same"
        until("the kind to be served", lambda: takes_a_model(cluster))
        cluster.kubectl("delete", "-k", str(DEPLOY), "--wait=false")


def takes_a_model(cluster: Cluster) -> bool:
    model: dict[str, Any] = json.loads(json.dumps(MODEL))
    model["metadata"]["namespace"] = plain_yaml.NAMESPACE
    try:
        cluster.apply(model)
    except KubectlError:
        return False
    return True


@pytest.mark.kube
def test_a_kustomization_may_name_another_place_and_other_images() -> None:
    with controlplane.connect() as cluster:
        folder = cluster.directory / "mine"
        folder.mkdir()
        base = "../" * len(folder.resolve().parts) + str(DEPLOY.resolve()).lstrip("/")
        images = [{"name": "localhost/inferno-operator", "newName": "registry.example/inferno-operator"}]
        mine = {"namespace": "mine", "resources": [base], "images": images}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(mine))
        bodies = yaml.safe_load_all(cluster.kubectl("kustomize", str(folder)))
        built = [body for body in bodies if body["kind"] != "CustomResourceDefinition"]
    found = {(body["kind"], body["metadata"].get("namespace")) for body in built}
    assert {("Deployment", "mine"), ("ServiceAccount", "mine"), ("ClusterRole", None)} <= found
    [binding] = [body for body in built if body["kind"] == "ClusterRoleBinding"]
    assert binding["subjects"][0]["namespace"] == "mine"
    [deployment] = [body for body in built if body["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example/inferno-operator:")
    assert plain_yaml.NAMESPACE not in yaml.safe_dump_all(built), "nothing of it stays where the base had it"
