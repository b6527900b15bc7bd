"""The ConfigMap: the InfernoModel as the runtime in the pod is to read it."""

from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from inferno_operator.api import names
from inferno_operator.api.resource import Model
from inferno_operator.manifests import adapters
from inferno_operator.manifests.source import path_in_pod
from inferno_runtime.config import LIVE

_OF_THE_FETCH = ("files", "endpoint", "credentials")  # which is over when the runtime begins


def render(model: Model) -> dict[str, Any]:
    """The ConfigMap of ``model``."""
    identity = model.identity
    manifest = identity.child("v1", "ConfigMap", names.configmap_name(identity.name))
    return manifest | {"data": {names.CONFIG_KEY: yaml.safe_dump(document(model), sort_keys=False, width=120)}}


def document(model: Model) -> dict[str, Any]:
    """The InfernoModel that the pod's runtime is started with: its source is a file of the pod's own.

    What is as it is by default stays out. So a pod of an older image can be told nothing that it does not know, and an
    operator that learns a new setting does not restart every pod.
    """
    spec = model.spec
    server = spec.server
    if spec.keys_secret:
        server = server.model_copy(update={"keys_file": f"{names.KEYS_DIRECTORY}/{spec.keys_secret.key}"})
    served = spec.model.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, exclude=set(_OF_THE_FETCH)
    )
    if spec.model.adapters:
        paths = (adapters.path_in_pod(model, each) for each in spec.model.adapters)
        there = [each | {"source": f"file://{path}"} for each, path in zip(served["adapters"], paths, strict=True)]
        served = served | {"adapters": there}
    sections = {
        "model": served | {"source": f"file://{path_in_pod(model)}"},
        "engine": spec.engine.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
        "server": server.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": model.identity.name},
        "spec": {name: section for name, section in sections.items() if section},
    }


def lasting(model: Model) -> dict[str, Any]:
    """`document` without what a server takes on while it serves: only what is left is worth new pods."""
    live = {to_camel(name) for name in LIVE}
    told = document(model)
    spec = {
        section: {name: value for name, value in fields.items() if section != "server" or name not in live}
        for section, fields in told["spec"].items()
    }
    return told | {"spec": {section: fields for section, fields in spec.items() if fields}}
