"""The objects that an InfernoModel becomes: pure functions from a model to a manifest, one file for each object."""

from typing import Any

from inferno_operator.api.resource import Model
from inferno_operator.manifests import (
    autoscaler,
    claim,
    configmap,
    deployment,
    disruption,
    monitoring,
    network,
    prefetch,
    service,
)
from inferno_operator.manifests.digest import with_digest
from inferno_runtime.models.facts import ModelFacts

Manifest = dict[str, Any]


def pod_template(model: Model, default_image: str, facts: ModelFacts | None = None) -> Manifest:
    """The template of the model's pods."""
    return deployment.template(model, configmap.render(model), default_image, facts)


def render(
    model: Model,
    default_image: str,
    facts: ModelFacts | None = None,
    *,
    fetched: bool = False,
    operator_namespace: str | None = None,
) -> list[Manifest]:
    """Every object that ``model`` needs, in the order in which they are applied.

    ``default_image`` serves models that name no image of their own; ``facts`` are what the model was found to be, and
    ``fetched`` says that it has been fetched once, so that it need not be before a pod needs it. ``operator_namespace`` is
    where the operator runs, if that is in a cluster.
    """
    config, cache = configmap.render(model), claim.render(model)
    children = [config, service.render(model), *([cache] if cache else [])]
    if not fetched and (job := prefetch.render(model, default_image)):
        children.append(job)
    children.append(deployment.render(model, config, default_image, facts))
    children += (
        autoscaler.render(model)
        + disruption.render(model)
        + network.render(model, operator_namespace)
        + monitoring.render(model)
    )
    return [with_digest(child) for child in children]
