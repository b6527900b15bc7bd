"""How a model is reached, by whom, and who watches it: ``spec.network`` and ``spec.monitoring``."""

from typing import Any, Literal

from pydantic import Field

from inferno_operator.api.scheduling import ATOMIC, ATOMIC_MAP, LabelSelector
from inferno_runtime.config import Config

_HOST = r"^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Ingress(Config):
    """``spec.network.ingress``: a way in from outside the cluster, by an Ingress."""

    host: str = Field(min_length=1, max_length=253, pattern=_HOST, description="The host name that clients ask for.")
    path: str = Field("/", min_length=1, max_length=1024, pattern="^/", description="The beginning of the paths.")
    class_name: str | None = Field(
        None, min_length=1, max_length=253, description="The IngressClass. Default: the cluster's default."
    )
    tls_secret_name: str | None = Field(
        None, min_length=1, max_length=253, description="The Secret with the host's certificate. Default: no TLS."
    )
    annotations: dict[str, str] | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="Annotations that its controller understands. Default: none."
    )


class Gateway(Config):
    """A Gateway that a route hangs on."""

    name: str = Field(min_length=1, max_length=253, description="The Gateway's name.")
    namespace: str | None = Field(
        None, min_length=1, max_length=63, description="The Gateway's namespace. Default: the model's."
    )
    section_name: str | None = Field(
        None, min_length=1, max_length=253, description="The Gateway's listener. Default: all that allow it."
    )


class HttpRoute(Config):
    """``spec.network.httpRoute``: a way in from outside the cluster, by the Gateway API."""

    gateways: tuple[Gateway, ...] = Field(
        min_length=1, max_length=8, json_schema_extra=_BY_NAME, description="The Gateways that it hangs on."
    )
    hostnames: tuple[str, ...] | None = Field(
        None,
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": _HOST},
        },
        description="The host names that clients ask for. Default: the Gateway's.",
    )


class IpBlock(Config):
    """Addresses."""

    cidr: str = Field(min_length=1, max_length=64, description="The addresses, such as 10.0.0.0/8.")
    except_: tuple[str, ...] | None = Field(
        None, alias="except", json_schema_extra=ATOMIC, description="Those of them that are left out. Default: none."
    )


class Peer(Config):
    """Somebody who may connect: pods of some namespaces, or addresses."""

    pod_selector: LabelSelector | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="Which pods, by label. Default: all of the namespaces."
    )
    namespace_selector: LabelSelector | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="Which namespaces, by label. Default: the model's own."
    )
    ip_block: IpBlock | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="Which addresses, in place of pods. Default: none."
    )


class Policy(Config):
    """``spec.network.policy``: a NetworkPolicy that lets in only whom it names, and the operator."""

    allow: tuple[Peer, ...] = Field(
        (),
        max_length=64,
        json_schema_extra=ATOMIC,
        description="Who may connect to the pods. Default: nobody but the operator.",
    )


class Network(Config):
    """``spec.network``: how the model is reached, and by whom."""

    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="The type of the model's Service."
    )
    headless: bool = Field(
        default=False,
        description="Whether there is a second Service, NAME-pods, that names each pod by its own address, for clients that choose one themselves.",
    )
    ingress: Ingress | None = Field(default=None, description="A way in from outside, by an Ingress. Default: none.")
    http_route: HttpRoute | None = Field(
        default=None,
        description="A way in from outside, by the Gateway API, which the cluster must have. Default: none.",
    )
    policy: Policy | None = Field(
        default=None,
        description="A NetworkPolicy that lets in only whom it names. Default: none, so the cluster's own rules hold.",
    )


class Monitoring(Config):
    """``spec.monitoring``: objects of the Prometheus operator, where the cluster has it."""

    service_monitor: bool = Field(default=False, description="Whether a ServiceMonitor has the pods' /metrics scraped.")
    interval_seconds: int = Field(
        default=30, ge=1, le=3600, json_schema_extra={"format": "int32"}, description="Seconds between two scrapes."
    )
    prometheus_rule: bool = Field(
        default=False,
        description="Whether a PrometheusRule alerts when the model does not answer, is overloaded or is slow.",
    )
    labels: dict[str, str] | None = Field(
        default=None,
        json_schema_extra=ATOMIC_MAP,
        description="Labels of both objects, by which a Prometheus selects them. Default: none.",
    )


class KeysSecret(Config):
    """``spec.keysSecret``: the Secret with the API keys that are let in. The pods read it; the operator never does."""

    name: str = Field(min_length=1, max_length=253, description="The Secret's name, in the model's namespace.")
    key: str = Field(
        "keys.yaml",
        min_length=1,
        max_length=253,
        pattern="^[-._a-zA-Z0-9]+$",
        description="The key in it that holds the keys as YAML.",
    )
