"""What the Prometheus operator is told of a model: a ServiceMonitor, and the alerts of a PrometheusRule."""

from typing import Any

from inferno_operator.api import names
from inferno_operator.api.resource import Identity, Model

_API = "monitoring.coreos.com/v1"


def render(model: Model) -> list[dict[str, Any]]:
    """What ``spec.monitoring`` of ``model`` asks for."""
    asked, made = model.spec.monitoring, []
    if asked.service_monitor:
        made.append(_child(model, "ServiceMonitor") | {"spec": _scraped(model)})
    if asked.prometheus_rule:
        made.append(_child(model, "PrometheusRule") | {"spec": {"groups": [_alerts(model.identity)]}})
    return made


def _child(model: Model, kind: str) -> dict[str, Any]:
    made = model.identity.child(_API, kind, model.identity.name)
    made["metadata"]["labels"] = (model.spec.monitoring.labels or {}) | made["metadata"]["labels"]
    return made


def _scraped(model: Model) -> dict[str, Any]:
    endpoint = {"port": names.PORT_NAME, "path": "/metrics", "interval": f"{model.spec.monitoring.interval_seconds}s"}
    # The headless Service has the same pods: of the two only one has the address that clients ask.
    selected = {"matchLabels": names.selector_labels(model.identity.name) | {names.ROLE: names.ROLE_ADDRESS}}
    return {"selector": selected, "endpoints": [endpoint]}


def _alerts(identity: Identity) -> dict[str, Any]:
    of = f'namespace="{identity.namespace}",service="{identity.name}"'
    # name: an expression, for how long it must hold, and what it says to people
    alerts = {
        "InfernoModelDown": (
            f"absent(up{{{of}}} == 1)",
            "5m",
            f"no pod of {identity.namespace}/{identity.name} answers",
        ),
        "InfernoModelQueueing": (
            f"sum(inferno_num_requests_waiting{{{of}}}) > sum(inferno_num_requests_running{{{of}}})",
            "10m",
            f"more requests of {identity.namespace}/{identity.name} wait than run",
        ),
        "InfernoModelSlowFirstToken": (
            f"histogram_quantile(0.95, sum by (le) (rate(inferno_time_to_first_token_seconds_bucket{{{of}}}[5m]))) > 10",
            "10m",
            f"the first token of {identity.namespace}/{identity.name} takes more than 10 seconds",
        ),
    }
    rules = [
        {
            "alert": name,
            "expr": expression,
            "for": holds,
            "labels": {"severity": "warning"},
            "annotations": {"summary": summary},
        }
        for name, (expression, holds, summary) in alerts.items()
    ]
    return {"name": f"{identity.namespace}-{identity.name}", "rules": rules}
