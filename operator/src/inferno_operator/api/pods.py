"""What else of a pod an InfernoModel takes: environment, volumes, spread, claims of devices; each goes in as it is."""

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
