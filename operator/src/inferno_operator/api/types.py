"""The InfernoModel resource. The CRD is generated from these types, and what the API server holds is read with them."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from inferno_operator.api import source as sources
from inferno_operator.api.autoscaling import Autoscaling
from inferno_operator.api.network import KeysSecret, Monitoring, Network
from inferno_operator.api.pods import OPEN, DeviceClaims, EnvVars, SpreadConstraints, VolumeMounts, Volumes
from inferno_operator.api.scheduling import ATOMIC, ATOMIC_MAP, Affinity, Resources, SecretReference, Toleration
from inferno_runtime.config import Config, EngineConfig, ModelConfig, ServerConfig

# The name of a model is the name of its Service, and a Service's name is a DNS label that begins with a letter.
NAME_RULE: dict[str, Any] = {
    "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",
    "message": "metadata.name must be at most 63 lower-case letters, digits or '-', begin with a letter and not end "
    "with '-', because the Service gets this name",
}
ALIAS_RULE: dict[str, Any] = {
    "rule": "!has(self.spec.model.aliases) || !(self.metadata.name in self.spec.model.aliases)",
    "message": "aliases must not repeat metadata.name: clients can ask for the model by that name already",
    "fieldPath": ".spec.model.aliases",
}

PROFILE_NAME_PATTERN = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
KEYS_RULE: dict[str, Any] = {
    "rule": "!has(self.spec.keysSecret) || !has(self.spec.server) || !has(self.spec.server.keysFile)",
    "message": "give either spec.keysSecret or spec.server.keysFile",
    "fieldPath": ".spec.keysSecret",
}
HEADLESS_RULE: dict[str, Any] = {
    "rule": "!has(self.spec.network) || !self.spec.network.headless || size(self.metadata.name) <= 58",
    "message": "with spec.network.headless metadata.name must be at most 58 characters, because a Service gets this name "
    "and -pods",
}
RULES = (NAME_RULE, ALIAS_RULE, KEYS_RULE, HEADLESS_RULE)

IntOrPercent = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^(100|[1-9]?[0-9])%$",
        }
    ),
]
ProfileName = Annotated[str, Field(pattern=PROFILE_NAME_PATTERN, max_length=63)]


class ModelSpec(ModelConfig):
    """``spec.model``: which model, and how it is known to clients."""

    source: str = Field(
        min_length=1,
        max_length=sources.MAX_LENGTH,
        json_schema_extra={"x-kubernetes-validations": sources.CEL_RULES},
        description="Where the model is: pvc://CLAIM/PATH names a file in a PersistentVolumeClaim of the same "
        "namespace, file:///PATH one that the runtime's image carries.",
    )
    aliases: tuple[str, ...] = Field(
        (),
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 253},
        },
        description="Other names under which clients may ask for this model.",
    )

    @field_validator("source")
    @classmethod
    def _source_names_something(cls, value: str) -> str:
        sources.parse_source(value)
        return value

    def parsed_source(self) -> sources.Source:
        """What ``source`` names."""
        return sources.parse_source(self.source)


class Placement(Config):
    """What a pod needs, and where it may go: given by a model itself, or by a hardware profile."""

    resources: Resources | None = Field(
        None, description="What each pod asks for and may use. Default: nothing is asked for and nothing limited."
    )
    resource_claims: DeviceClaims | None = Field(
        None, description="Claims of devices (dynamic resource allocation) for the runtime's container. Default: none."
    )
    image: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="The runtime's container image. Default: the one that the operator was installed with.",
    )
    env: EnvVars | None = Field(None, description="Variables of the runtime's environment. Default: none.")
    node_selector: dict[str, str] | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="Labels that a node must have. Default: none."
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="Taints that the pods tolerate. Default: none."
    )
    affinity: Affinity | None = Field(
        None, description="Which nodes the pods go to, and beside which pods. Default: any."
    )
    topology_spread_constraints: SpreadConstraints | None = Field(
        None,
        description="How evenly the pods are spread over zones, nodes or other values of a node label. Default: as the cluster does.",
    )
    priority_class_name: str | None = Field(
        None, min_length=1, max_length=253, description="The pods' PriorityClass. Default: the cluster's default."
    )
    runtime_class_name: str | None = Field(
        None, min_length=1, max_length=253, description="The pods' RuntimeClass. Default: the node's default."
    )


class InfernoModelSpec(Placement):
    """``spec``: what is served, and how."""

    model: ModelSpec = Field(description="Which model, and how it is known to clients.")
    engine: EngineConfig = Field(EngineConfig(), description="How the model is evaluated.")
    server: ServerConfig = Field(ServerConfig(), description="How requests are taken and answered.")
    replicas: int = Field(1, ge=0, le=10_000, description="Pods that serve the model; 0 stops serving it.")
    autoscaling: Autoscaling | None = Field(
        None,
        description="How many pods there are, by how much they have to do; replicas is then where it begins. Default: replicas says.",
    )
    suspend: bool = Field(
        False,
        description="Whether the pods are stopped, whatever replicas says. All else that belongs to the model stays.",
    )
    max_unavailable: IntOrPercent = Field(
        1,
        description="Pods, or a percentage of them, that may be away at once when nodes are drained, where there are several "
        "(a PodDisruptionBudget).",
    )
    profiles: tuple[ProfileName, ...] | None = Field(
        None,
        min_length=1,
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="Hardware profiles that the operator was installed with, in the order in which they are tried: the next one where no node "
        "takes a pod of the one before. What the model gives itself wins over a profile. Default: none.",
    )
    profile_timeout_seconds: int = Field(
        60,
        ge=1,
        le=86_400,
        json_schema_extra={"format": "int32"},
        description="Seconds that pods may find no node before the next of profiles is tried.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None,
        description="When a node pulls the image. Default: Always for the tag latest, else IfNotPresent.",
    )
    image_pull_secrets: tuple[SecretReference, ...] | None = Field(
        None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="Secrets of this namespace that a node pulls the image with. Default: none.",
    )
    volumes: Volumes | None = Field(None, description="More volumes of the pods, as a pod has them. Default: none.")
    volume_mounts: VolumeMounts | None = Field(
        None, description="Where the runtime's container sees them. Default: nowhere."
    )
    keys_secret: KeysSecret | None = Field(
        None,
        description="The Secret with the API keys that are let in; read again when it changes. Default: none, and everybody is let in.",
    )
    network: Network = Field(Network(), description="How the model is reached, and by whom.")
    monitoring: Monitoring = Field(
        Monitoring(), description="Objects of the Prometheus operator, where the cluster has it."
    )
    pod_template: dict[str, Any] | None = Field(
        None,
        json_schema_extra=OPEN,
        description="A pod template (metadata and spec) that is merged into the pods' own, by the rules of a strategic merge patch: the last word "
        "on everything but the labels that select the pods. Default: none.",
    )


class Condition(Config):
    """One aspect of the model's state, by the conventions of the Kubernetes API."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    type: str = Field(min_length=1, max_length=316, description="Which aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: int = Field(
        0, ge=0, json_schema_extra={"format": "int64"}, description="The metadata.generation that this is about."
    )
    last_transition_time: str = Field(
        json_schema_extra={"format": "date-time"}, description="When status last changed."
    )
    reason: str = Field(min_length=1, max_length=1024, description="Why, in one word for programs.")
    message: str = Field(max_length=32_768, description="Why, in a sentence for people.")


class ObservedModel(Config):
    """``status.model``: which model the pods were told to serve."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    source: str | None = Field(None, description="The spec.model.source of the observed generation.")


class ObservedProfile(Config):
    """``status.profile``: the hardware profile in use."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    name: str = Field(description="The profile's name.")
    candidates: tuple[str, ...] = Field(
        json_schema_extra=ATOMIC, description="The spec.profiles that it was chosen of."
    )


class ObservedAutoscaling(Config):
    """``status.autoscaling``: what the operator has decided."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    replicas: int = Field(description="Pods that there are to be.")


class InfernoModelStatus(Config):
    """``status``: what has come of it."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    observed_generation: int | None = Field(
        None, json_schema_extra={"format": "int64"}, description="The metadata.generation that this status is about."
    )
    conditions: tuple[Condition, ...] | None = Field(
        None,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="SourceResolved, ModelVerified, Available, Progressing, Degraded and Ready.",
    )
    replicas: int | None = Field(None, description="Pods that there are, of this generation and of older ones.")
    ready_replicas: int | None = Field(None, description="Pods that are ready.")
    updated_replicas: int | None = Field(None, description="Pods of this generation.")
    available_replicas: int | None = Field(None, description="Pods that serve requests.")
    selector: str | None = Field(None, description="The label selector of the pods, for the scale subresource.")
    url: str | None = Field(None, description="The base URL for OpenAI clients inside the cluster.")
    autoscaling: ObservedAutoscaling | None = Field(
        None, description="What the operator has decided, where spec.autoscaling lets it decide."
    )
    profile: ObservedProfile | None = Field(
        None, description="The hardware profile in use, where spec.profiles names some."
    )
    model: ObservedModel | None = Field(None, description="Which model the pods were told to serve.")
