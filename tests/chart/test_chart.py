"""The Helm chart, rendered by Helm itself: against golden files, its schema, and the operator that it starts.

INFERNO_UPDATE_GOLDEN=1 writes the golden files anew.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferno_operator import cli, crd, profiles
from inferno_operator.api import names
from inferno_operator.api.types import Placement
from inferno_operator.leader import LEASE_NAME
from scripts import build_images
from tests.chart.conftest import Helm

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "inferno"
GOLDEN = ROOT / "tests" / "data" / "chart"

Object = dict[str, Any]


def render(helm: Helm, *arguments: str) -> str:
    """The chart as a release called `inferno`, in `inferno-system`."""
    done = helm("template", "inferno", str(CHART), "--namespace", "inferno-system", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(rendered: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(rendered) if each]


def one(rendered: str, kind: str, name: str = "inferno") -> Object:
    found = [each for each in objects(rendered) if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def args(rendered: str) -> list[str]:
    """The command line of the operator."""
    (container,) = one(rendered, "Deployment")["spec"]["template"]["spec"]["containers"]
    command_line: list[str] = container["args"]
    return command_line


def test_passes_helms_own_checks(helm: Helm) -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


# Each case is a file of values, NAME.values.yaml, and what they make of the chart, NAME.golden.yaml.
@pytest.mark.parametrize(
    "case", sorted(path.name.removesuffix(".values.yaml") for path in GOLDEN.glob("*.values.yaml"))
)
def test_renders(helm: Helm, case: str) -> None:
    rendered = render(helm, "--values", str(GOLDEN / f"{case}.values.yaml"))
    golden = GOLDEN / f"{case}.golden.yaml"
    if os.environ.get("INFERNO_UPDATE_GOLDEN"):
        golden.write_text(rendered)
    assert rendered == golden.read_text()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("replicas=2", "'replicas' not allowed"),
        ("image.tags=x", "'tags' not allowed"),
        ("runtime.image.pullPolicy=Always", "'pullPolicy' not allowed"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digest=abc", "digest"),
        ("replicaCount=two", "replicaCount"),
        ("replicaCount=-1", "replicaCount"),
        ("watchNamespaces={Team}", "watchNamespaces"),
        ("log.format=xml", "format"),
        ("profiles.gpu.replicas=1", "'replicas' not allowed"),
        ("resources.request.cpu=1", "'request' not allowed"),
        ("metrics.service.port=0", "port"),
    ],
)
def test_refuses_a_wrong_value(helm: Helm, setting: str, complaint: str) -> None:
    done = helm("template", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_every_value_is_in_the_schema_and_back() -> None:
    """A value without a schema could be misspelt; a schema without a value would be undocumented."""
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, section in schema["properties"].items():
        if section.get("additionalProperties") is False and values.get(name):
            assert set(section["properties"]) >= set(values[name]), name


def test_gives_the_operator_the_rights_it_says_it_needs(helm: Helm) -> None:
    wanted = yaml.safe_load((ROOT / "tests" / "data" / "operator-rbac.yaml").read_text())
    everywhere, chosen = render(helm), render(helm, "--set", "watchNamespaces={a,b}")
    assert flat(one(everywhere, "ClusterRole")["rules"]) == flat(wanted["cluster"])
    assert flat(one(everywhere, "Role", "inferno-leader-election")["rules"]) == flat(wanted["lease"])
    roles = {each["metadata"]["namespace"]: each for each in objects(chosen) if each["kind"] == "Role"}
    assert set(roles) == {"a", "b", "inferno-system"}
    assert flat(roles["a"]["rules"]) == flat(roles["b"]["rules"]) == flat(wanted["cluster"])
    assert not [each for each in objects(chosen) if each["kind"].startswith("Cluster")]


def flat(rules: list[Object]) -> set[tuple[str, str, str]]:
    """The rules one by one, (group, resource, verb), so that how they are put together does not matter."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_binds_each_role_to_the_operator(helm: Helm) -> None:
    rendered = render(helm, "--set", "watchNamespaces={a,b}", "--set", "serviceAccount.name=op")
    bindings = [each for each in objects(rendered) if each["kind"] == "RoleBinding"]
    assert len(bindings) == 3
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "op", "namespace": "inferno-system"}]
    assert one(rendered, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "op"


def test_the_operator_understands_its_command_line(helm: Helm) -> None:
    settings = ["--set", "watchNamespaces={a,b}", "--set", "log.verbose=true", "--set", "registry=example.com/ml"]
    options = cli.parser().parse_args(args(render(helm, *settings)))
    assert options.command == "run"
    assert options.namespace == ["a", "b"]
    assert options.runtime_image == f"example.com/ml/inferno-runtime:{build_images.version('runtime')}"
    assert options.lease_namespace == "inferno-system"
    assert options.verbose
    assert not options.no_leader_election


def test_the_operator_understands_the_profiles(helm: Helm) -> None:
    rendered = render(helm, "--values", str(GOLDEN / "everything.values.yaml"))
    found = profiles.parse(yaml.safe_load(one(rendered, "ConfigMap", "models-profiles")["data"]["profiles.yaml"]))
    assert set(found) == {"gpu", "cpu"}
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    offered = {field.alias for field in Placement.model_fields.values()}
    assert set(schema["$defs"]["profile"]["properties"]) == offered


def test_asks_the_operator_where_it_answers(helm: Helm) -> None:
    rendered = render(helm)
    (container,) = one(rendered, "Deployment")["spec"]["template"]["spec"]["containers"]
    port = cli.parser().parse_args(args(rendered)).health_port
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    assert one(rendered, "Service")["spec"]["ports"][0]["targetPort"] == "http"


def test_agrees_with_the_operator_on_names(helm: Helm) -> None:
    lease_rules = one(render(helm), "Role", "inferno-leader-election")["rules"]
    assert [rule["resourceNames"] for rule in lease_rules if "resourceNames" in rule] == [[LEASE_NAME]]


def test_brings_the_resource_with_each_upgrade_and_leaves_it_behind(helm: Helm) -> None:
    rendered = one(render(helm), "CustomResourceDefinition", f"{names.PLURAL}.{names.GROUP}")
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert rendered["spec"] == crd.custom_resource_definition()["spec"]
    gone = one(render(helm, "--set", "crds.keep=false"), "CustomResourceDefinition", f"{names.PLURAL}.{names.GROUP}")
    assert "annotations" not in gone["metadata"]
    assert "CustomResourceDefinition" not in render(helm, "--set", "crds.install=false")


def test_helm_test_asks_the_operator(helm: Helm) -> None:
    rendered = render(helm)
    pod, service = one(rendered, "Pod", "inferno-test"), one(rendered, "Service")
    (container,) = pod["spec"]["containers"]
    address = f"{service['metadata']['name']}.inferno-system.svc:{service['spec']['ports'][0]['port']}/readyz"
    assert address in container["args"][0]
    compile(container["args"][0], "test", "exec")
    operator = one(rendered, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == operator["image"]
    assert container["securityContext"] == operator["securityContext"]


def test_runs_as_the_restricted_profile_asks(helm: Helm) -> None:
    pod = one(render(helm), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_is_of_the_version_that_it_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == build_images.version("operator") == build_images.version("runtime")
