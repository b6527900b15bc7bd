"""What else of a pod an InfernoModel takes: environment, volumes, spread, claims of devices; each goes in as it is."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from inferno_operator.api.scheduling import ATOMIC, ATOMIC_MAP, LabelSelector, Quantity
from inferno_runtime.config import Config

OPEN: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
RESERVED_VOLUMES = ("cache", "config", "keys", "models", "tmp")
OWN_VOLUMES_PREFIX = "inferno-"
_BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class OpenConfig(Config):
    """An object of the Kubernetes API of which only some fields are named here; the API server judges the others."""

    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, validate_by_name=True, json_schema_extra=OPEN
    )


def _patch(description: str, properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The schema of an object of a patch, in which null takes something away."""
    fields = OPEN | {"properties": properties} if properties else {}
    return {"type": "object", "nullable": True, "description": description} | fields | more


def _containers(which: str) -> dict[str, Any]:
    amounts = {
        kind: _patch(f"As in spec.resources.{kind}. Default: what the container has.", additionalProperties=_AMOUNT)
        for kind in ("requests", "limits")
    }
    resources = _patch("What the container asks for and may use.", amounts)
    return {
        "type": "array",
        "nullable": True,
        "items": _patch("A container, by its name.", {"resources": resources}),
        "x-kubernetes-list-type": "atomic",
        "description": f"{which} Default: none.",
    }


_AMOUNT: dict[str, Any] = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "nullable": True,
    "description": "A Kubernetes quantity.",
}
_TEXTS = {"type": "string", "nullable": True, "description": "A value."}
_METADATA = {
    kind: _patch(f"More {kind} of the pods. Default: none.", additionalProperties=_TEXTS)
    for kind in ("labels", "annotations")
}
_SPEC = {
    "containers": _containers("Changes of the pods' containers, or more of them."),
    "initContainers": _containers("Changes of what runs before, or more of that."),
}
POD_TEMPLATE: dict[str, Any] = _patch(
    "A pod template (metadata and spec) that is merged into the pods' own, by the rules of a strategic merge patch: the last word "
    "on everything but the labels that select the pods. Default: none.",
    {"metadata": _patch("The pods' metadata.", _METADATA), "spec": _patch("The pods' spec.", _SPEC)},
)
"""The shape of a pod template as far as the operator reads one; the API server judges it where it is used."""


def check_shape(value: Any, schema: Mapping[str, Any] = POD_TEMPLATE, path: str = "podTemplate") -> None:
    """Raises ValueError where ``value`` does not have the shape of ``schema``."""
    if value is None and schema.get("nullable"):
        return
    kinds = _SHAPES[schema.get("type", "int-or-string")]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{path} must be of the type {schema.get('type', 'string or integer')}")  # noqa: TRY004  # the one that pydantic tells of
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_shape(item, schema["items"], f"{path}[{index}]")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if below is not None and not name.startswith("$"):
                check_shape(item, below, f"{path}.{name}")


_SHAPES: Mapping[str, tuple[type, ...]] = {
    "object": (Mapping,),
    "array": (list, tuple),
    "string": (str,),
    "int-or-string": (int, str),
}


class KeySelector(Config):
    """A key of a Secret or a ConfigMap of the model's namespace."""

    name: str = Field(min_length=1, max_length=253, description="The object's name.")
    key: str = Field(min_length=1, max_length=253, description="The key in it.")
    optional: bool | None = Field(None, description="Whether the pods start without it. Default: false.")


class FieldSelector(Config):
    """A field of the pod itself."""

    field_path: str = Field(min_length=1, description="The field's path, such as status.podIP.")
    api_version: str | None = Field(None, description="The version of the path. Default: v1.")


class ResourceFieldSelector(Config):
    """What the container may use of a resource."""

    resource: str = Field(min_length=1, description="The resource, such as limits.memory.")
    container_name: str | None = Field(None, description="Whose. Default: the runtime's.")
    divisor: Quantity | None = Field(None, description="The unit, as a Kubernetes quantity. Default: 1.")


class EnvSource(Config):
    """Where a variable's value comes from; exactly one."""

    secret_key_ref: KeySelector | None = Field(None, json_schema_extra=ATOMIC_MAP, description="A key of a Secret.")
    config_map_key_ref: KeySelector | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="A key of a ConfigMap."
    )
    field_ref: FieldSelector | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="A field of the pod itself."
    )
    resource_field_ref: ResourceFieldSelector | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="What the container may use of a resource."
    )


def _rule(rule: str, message: str, **more: Any) -> ConfigDict:
    """The configuration of a type that the API server holds to a rule."""
    return ConfigDict(json_schema_extra=more | {"x-kubernetes-validations": [{"rule": rule, "message": message}]})


class EnvVar(Config):
    """A variable of the runtime's environment."""

    model_config = _rule("!(has(self.value) && has(self.valueFrom))", "give either value or valueFrom")

    name: str = Field(min_length=1, max_length=253, description="The variable's name.")
    value: str | None = Field(None, description="Its value. Default: empty.")
    value_from: EnvSource | None = Field(None, description="Where its value comes from, in place of value.")


class Volume(OpenConfig):
    """A volume of the pods: a name, and one source of those that Kubernetes knows."""

    model_config = _rule(
        f"!(self.name in {list(RESERVED_VOLUMES)}) && !self.name.startsWith('{OWN_VOLUMES_PREFIX}')",
        f"{', '.join(RESERVED_VOLUMES)} and what begins with {OWN_VOLUMES_PREFIX} are the operator's own volumes",
        **OPEN,
    )

    name: str = Field(min_length=1, max_length=63, description="The volume's name.")


class VolumeMount(OpenConfig):
    """Where the runtime's container sees a volume."""

    name: str = Field(min_length=1, max_length=63, description="The volume's name.")
    mount_path: str = Field(min_length=1, max_length=1024, description="The path in the container.")
    sub_path: str | None = Field(None, description="The path in the volume. Default: its root.")
    read_only: bool | None = Field(None, description="Whether it can be read only. Default: false.")


class SpreadConstraint(Config):
    """How evenly the pods are spread over the values of a node label."""

    topology_key: str = Field(min_length=1, description="The node label, such as topology.kubernetes.io/zone.")
    max_skew: int = Field(
        1, ge=1, json_schema_extra={"format": "int32"}, description="By how many pods two values may differ."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        "ScheduleAnyway", description="What becomes of a pod that cannot be placed so: DoNotSchedule lets it wait."
    )
    label_selector: LabelSelector | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="Which pods count. Default: the model's."
    )
    min_domains: int | None = Field(
        None,
        ge=1,
        json_schema_extra={"format": "int32"},
        description="The least number of values, with DoNotSchedule. Default: 1.",
    )


class DeviceClaim(Config):
    """Devices by dynamic resource allocation, where the cluster has it; one of the two names is given."""

    model_config = _rule(
        "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
        "give either resourceClaimName or resourceClaimTemplateName",
    )

    name: str = Field(min_length=1, max_length=63, description="The claim's name in the pod.")
    resource_claim_name: str | None = Field(
        None, min_length=1, max_length=253, description="A ResourceClaim that all pods share. Default: none."
    )
    resource_claim_template_name: str | None = Field(
        None, min_length=1, max_length=253, description="A ResourceClaimTemplate, a claim for each pod. Default: none."
    )


EnvVars = Annotated[tuple[EnvVar, ...], Field(max_length=128, json_schema_extra=_BY_NAME)]
Volumes = Annotated[tuple[Volume, ...], Field(max_length=64, json_schema_extra=_BY_NAME)]
VolumeMounts = Annotated[
    tuple[VolumeMount, ...],
    Field(
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["mountPath"]},
    ),
]
SpreadConstraints = Annotated[tuple[SpreadConstraint, ...], Field(max_length=16, json_schema_extra=ATOMIC)]
DeviceClaims = Annotated[tuple[DeviceClaim, ...], Field(max_length=16, json_schema_extra=_BY_NAME)]
