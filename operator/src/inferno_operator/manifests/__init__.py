"""The objects that an InfernoModel becomes: pure functions from a model to a manifest, one file for each object."""

from typing import Any

from inferno_operator.api.resource import Model
from inferno_operator.manifests import autoscaler, configmap, deployment, disruption, monitoring, network, service
from inferno_operator.manifests.digest import with_digest

Manifest = dict[str, Any]


def pod_template(model: Model, default_image: str) -> Manifest:
    """The template of the model's pods."""
    return deployment.template(model, configmap.render(model), default_image)


def render(model: Model, default_image: str) -> list[Manifest]:
    """Every object that ``model`` needs, in the order in which they are applied.

    ``default_image`` serves models that name no image of their own.
    """
    config = configmap.render(model)
    children = [config, service.render(model), deployment.render(model, config, default_image)]
    children += autoscaler.render(model) + disruption.render(model) + network.render(model) + monitoring.render(model)
    return [with_digest(child) for child in children]
