"""How a model is reached beside its Service: Ingress, HTTPRoute, a headless Service; and who is let in."""

from typing import Any

from inferno_operator.api import names
from inferno_operator.api.network import HttpRoute, Ingress, Policy
from inferno_operator.api.resource import Model

Manifest = dict[str, Any]
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
_OPERATOR = {"app.kubernetes.io/component": "operator", "app.kubernetes.io/part-of": "inferno"}


def render(model: Model, operator_namespace: str | None) -> list[Manifest]:
    """What ``spec.network`` of ``model`` asks for. ``operator_namespace``: where the operator runs, if in a cluster."""
    asked = model.spec.network
    made = []
    if asked.headless:
        made.append(_headless(model))
    if asked.ingress is not None:
        made.append(_ingress(model, asked.ingress))
    if asked.http_route is not None:
        made.append(_http_route(model, asked.http_route))
    if asked.policy is not None:
        made.append(_policy(model, asked.policy, operator_namespace))
    return made


def _headless(model: Model) -> Manifest:
    identity = model.identity
    port = {"name": names.PORT_NAME, "port": names.PORT, "targetPort": names.PORT_NAME, "protocol": "TCP"}
    spec = {"clusterIP": "None", "selector": names.selector_labels(identity.name), "ports": [port]}
    return identity.child("v1", "Service", names.headless_name(identity.name)) | {"spec": spec}


def _ingress(model: Model, asked: Ingress) -> Manifest:
    identity = model.identity
    backend = {"service": {"name": identity.name, "port": {"name": names.PORT_NAME}}}
    path = {"path": asked.path, "pathType": "Prefix", "backend": backend}
    spec: dict[str, Any] = {"rules": [{"host": asked.host, "http": {"paths": [path]}}]}
    if asked.class_name:
        spec["ingressClassName"] = asked.class_name
    if asked.tls_secret_name:
        spec["tls"] = [{"hosts": [asked.host], "secretName": asked.tls_secret_name}]
    made = identity.child("networking.k8s.io/v1", "Ingress", identity.name)
    if asked.annotations:
        made["metadata"]["annotations"] = dict(asked.annotations)
    return made | {"spec": spec}


def _http_route(model: Model, asked: HttpRoute) -> Manifest:
    identity = model.identity
    gateways = [gateway.wire() for gateway in asked.gateways]
    backend = {"name": identity.name, "port": names.PORT}
    spec: dict[str, Any] = {"parentRefs": gateways, "rules": [{"backendRefs": [backend]}]}
    if asked.hostnames:
        spec["hostnames"] = list(asked.hostnames)
    return identity.child("gateway.networking.k8s.io/v1", "HTTPRoute", identity.name) | {"spec": spec}


def _policy(model: Model, asked: Policy, operator_namespace: str | None) -> Manifest:
    """Who is let in to the pods' port. The operator is, since it reads their metrics; and nobody who only calls a pod so in
    a namespace of their own.
    """
    identity = model.identity
    peers = [peer.wire() for peer in asked.allow]
    if operator_namespace is not None:
        namespace = {"matchLabels": {_NAMESPACE_NAME: operator_namespace}}
        peers.insert(0, {"namespaceSelector": namespace, "podSelector": {"matchLabels": _OPERATOR}})
    ports = [{"protocol": "TCP", "port": names.PORT}]
    spec = {
        "podSelector": {"matchLabels": names.selector_labels(identity.name)},
        "policyTypes": ["Ingress"],
        # Without anybody in it, from would be everybody.
        "ingress": [{"from": peers, "ports": ports}] if peers else [],
    }
    return identity.child("networking.k8s.io/v1", "NetworkPolicy", identity.name) | {"spec": spec}
