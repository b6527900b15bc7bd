"""The memory that a pod is given: what the spec says, else what the model was found to need."""

from decimal import Decimal
from typing import Any

from inferno_operator import quantity
from inferno_operator.api.types import InfernoModelSpec
from inferno_runtime.models.facts import ModelFacts
from inferno_runtime.models.need import MemoryNeed, memory_need
from inferno_runtime.units import MIB


def needed(spec: InfernoModelSpec, facts: ModelFacts | None) -> MemoryNeed | None:
    """The memory that a pod needs, if the model has been inspected."""
    return memory_need(facts, spec.engine, spec.model.task) if facts else None


def given_memory(spec: InfernoModelSpec) -> Decimal | None:
    """Bytes that ``spec.resources`` gives a pod: the limit, else the request; None if it says nothing of memory."""
    resources = spec.resources
    for amounts in (resources.limits, resources.requests) if resources else ():
        if amounts and "memory" in amounts:
            return quantity.parse(amounts["memory"])
    return None


def render(spec: InfernoModelSpec, facts: ModelFacts | None) -> dict[str, Any]:
    """The runtime container's resources.

    Only a request follows from the model, and no limit: an estimate is good enough to choose a node by, and not to kill
    a pod for.
    """
    given = spec.resources.wire() if spec.resources else {}
    need = needed(spec, facts)
    if need is None or given_memory(spec) is not None:
        return given
    return given | {"requests": {**given.get("requests", {}), "memory": quantity_of(need)}}


def quantity_of(need: MemoryNeed) -> str:
    """The memory as a resource gives it."""
    return f"{need.total // MIB}Mi"
