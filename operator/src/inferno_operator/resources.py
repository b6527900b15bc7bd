"""The memory that a pod is given: what the spec says, else what the model was found to need."""

from decimal import Decimal
from typing import Any, Final

from inferno_operator import quantity
from inferno_operator.api.types import InfernoModelSpec
from inferno_runtime.models.facts import ModelFacts
from inferno_runtime.models.need import MemoryNeed, memory_need
from inferno_runtime.units import MIB

# A pod whose model is not known yet asks for this. One that needs no more is never made anew only to ask for less, so a
# small model is started once.
_LEAST_REQUEST: Final = 512 * MIB


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
    if given_memory(spec) is not None:
        return given
    need = needed(spec, facts)
    request = max(need.total if need else 0, _LEAST_REQUEST)
    return given | {"requests": {**given.get("requests", {}), "memory": _quantity(request)}}


def quantity_of(need: MemoryNeed) -> str:
    """The memory as a resource gives it."""
    return _quantity(need.total)


def _quantity(size: int) -> str:
    return f"{size // MIB}Mi"
