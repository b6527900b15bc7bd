"""The InfernoModel resource. The CRD is generated from these types, and what the API server holds is read with them."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from inferno_operator.api import source as rules
from inferno_operator.api.autoscaling import Autoscaling
from inferno_operator.api.network import KeysSecret, Monitoring, Network
from inferno_operator.api.pods import (
    POD_TEMPLATE,
    DeviceClaims,
    EnvVars,
    SpreadConstraints,
    VolumeMounts,
    Volumes,
    check_shape,
)
from inferno_operator.api.scheduling import ATOMIC, ATOMIC_MAP, Affinity, Resources, SecretReference, Toleration
from inferno_operator.api.storage import Storage
from inferno_runtime import sources
from inferno_runtime.config import AdapterConfig, Config, EngineConfig, ModelConfig, ServerConfig
from inferno_runtime.models.facts import ModelFacts

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


class AdapterSpec(AdapterConfig):
    """One of ``spec.model.adapters``: a LoRA adapter, and how it is known to clients."""

    source: str = Field(
        min_length=1,
        max_length=sources.MAX_LENGTH,
        json_schema_extra={"x-kubernetes-validations": rules.ADAPTER_RULES},
        description="Where the adapter is, a GGUF file, as convert_lora_to_gguf.py of llama.cpp makes it, in the forms of the model's own source; "
        "what is fetched is fetched with the model's credentials, and from its endpoint where both are of one kind. "
        "file:///PATH is a path in the pods: file:///models/PATH lies in the claim of a pvc:// model.",
    )

    @field_validator("source")
    @classmethod
    def _source_names_a_file(cls, value: str) -> str:
        rules.check_adapter(value)
        return value

    def parsed_source(self) -> sources.Source:
        """What ``source`` names."""
        return sources.parse_source(self.source)


class ModelSpec(ModelConfig):
    """``spec.model``: which model, and how it is known to clients."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        json_schema_extra={"x-kubernetes-validations": rules.MODEL_RULES},
    )

    source: str = Field(
        min_length=1,
        max_length=sources.MAX_LENGTH,
        json_schema_extra={"x-kubernetes-validations": rules.SOURCE_RULES},
        description="Where the model is, a GGUF file, or a folder with a GGUF or ONNX model: https://HOST/PATH, hf://OWNER/REPOSITORY[@REVISION]/FILE "
        "and s3://BUCKET/KEY are fetched into the cache that spec.storage describes; pvc://CLAIM/PATH is in a "
        "PersistentVolumeClaim of the same namespace, oci://IMAGE:TAG[/PATH] in an OCI image that the node mounts, "
        "file:///PATH in the runtime's image. FILE and KEY may have * in them; a folder that is fetched ends with /.",
    )
    files: tuple[str, ...] = Field(
        (),
        max_length=64,
        json_schema_extra={
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": sources.FILE_PATTERN},
        },
        description="Which files of a source that is a folder make up the model, by their paths in it; * stands for anything "
        "but a /. An https:// folder needs them, without *. Default: all.",
    )
    credentials: SecretReference | None = Field(
        None,
        description="A Secret of this namespace whose keys are environment variables of the fetch: HF_TOKEN for hf://; "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION for s3://; HTTP_BEARER_TOKEN, or "
        "HTTP_USERNAME and HTTP_PASSWORD, for https://. Default: none.",
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
    adapters: tuple[AdapterSpec, ...] = Field(
        (),
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="LoRA adapters that the model is served with beside itself. Each request is answered with the one that its model name names.",
    )

    @field_validator("source")
    @classmethod
    def _source_names_something(cls, value: str) -> str:
        sources.parse_source(value)
        return value

    @model_validator(mode="after")
    def _files_fit_the_source(self) -> "ModelSpec":
        rules.check_model(self.source, self.files)
        return self

    def parsed_source(self) -> sources.Source:
        """What ``source`` names."""
        return sources.parse_source(self.source)


class Placement(Config):
    """What a pod needs, and where it may go: given by a model itself, or by a hardware profile."""

    resources: Resources | None = Field(
        None,
        description="What each pod asks for and may use. Default: nothing is limited, and as much memory is asked for as the "
        "model was found to need, 512 MiB at least.",
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
    storage: Storage | None = Field(
        None,
        description="Where the model is kept if it is fetched. Default: in each pod, for as long as the pod lives.",
    )
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
        None, json_schema_extra=POD_TEMPLATE, description=POD_TEMPLATE["description"]
    )

    @field_validator("pod_template")
    @classmethod
    def _pod_template_has_its_shape(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        check_shape(value)
        return value


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


class ObservedModel(ModelFacts):
    """``status.model``: which model the pods were told to serve, and what it turned out to be."""

    source: str | None = Field(default=None, description="The spec.model.source of the observed generation.")
    sha256: str | None = Field(
        default=None,
        description="The SHA-256 digest of what was fetched, as spec.model.sha256 would pin it.",
    )
    memory_bytes: int | None = Field(
        default=None,
        json_schema_extra={"format": "int64"},
        description="Bytes of memory that a pod is estimated to need for it.",
    )


class ObservedFetch(Config):
    """``status.fetch``: how far a fetch is that is under way."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    bytes: int = Field(json_schema_extra={"format": "int64"}, description="Bytes that are there.")
    total_bytes: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Bytes of the whole model."
    )
    bytes_per_second: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Bytes a second of late."
    )
    remaining_seconds: int | None = Field(
        default=None, json_schema_extra={"format": "int64"}, description="Seconds until it is done, at this rate."
    )


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
        description="SourceResolved, ModelVerified, ResourcesFit, Available, Progressing, Degraded and Ready.",
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
    model: ObservedModel | None = Field(
        None, description="Which model the pods were told to serve, and what it turned out to be."
    )
    fetch: ObservedFetch | None = Field(None, description="How far a fetch is that is under way.")
