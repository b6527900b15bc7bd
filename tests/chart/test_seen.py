"""The dashboards and the alerts of the chart: they load, and ask for metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY

from inferno_operator import metrics
from scripts import reference
from tests.chart.conftest import Helm
from tests.chart.test_chart import CHART, one, render

FILES = CHART / "files"
DASHBOARDS = sorted((FILES / "dashboards").glob("*.json"))
_METRIC = re.compile(r"\binferno_[a-z_]+")
_SUFFIX = re.compile(r"_(bucket|count|sum)$")


def known() -> set[str]:
    """Every metric of the operator and of the runtime."""
    assert metrics
    ours = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    ours |= {family.name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect()}
    return ours | set(_METRIC.findall(reference.metrics()))


def expressions(path: Path) -> Iterator[str]:
    for panel in json.loads(path.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ASKED = {f"{path.name}: {expr}": expr for path in DASHBOARDS for expr in expressions(path)}
ASKED |= {rule["alert"]: rule["expr"] for rule in alerts()}


@pytest.mark.parametrize("case", ASKED)
def test_asks_for_metrics_that_there_are(case: str) -> None:
    asked = set(_METRIC.findall(ASKED[case]))
    assert asked
    assert {_SUFFIX.sub("", name) for name in asked} <= {_SUFFIX.sub("", name) for name in known()}


@pytest.mark.parametrize("case", ASKED)
def test_prometheus_understands_it(case: str) -> None:
    promql_parser.parse(ASKED[case])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_has_what_grafana_needs(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"]
    assert board["title"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z_]+)", json.dumps(board["panels"]))) <= variables


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "1m"))


def test_they_are_in_the_chart(helm: Helm) -> None:
    rendered = render(helm, "--set", "dashboards.enabled=true", "--set", "metrics.prometheusRule.enabled=true")
    data = one(rendered, "ConfigMap", "inferno-dashboards")["data"]
    assert {name: json.loads(text) for name, text in data.items()} == {
        f"inferno-{path.name}": json.loads(path.read_text()) for path in DASHBOARDS
    }
    assert one(rendered, "PrometheusRule")["spec"] == yaml.safe_load((FILES / "alerts.yaml").read_text())
