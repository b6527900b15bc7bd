"""The scheduling fields of a pod, as far as an InfernoModel takes them; each goes into the pod as it is."""

from typing import Annotated, Any, Literal

from pydantic import Field

from inferno_runtime.config import Config

ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
ATOMIC_MAP: dict[str, Any] = {"x-kubernetes-map-type": "atomic"}

QUANTITY_PATTERN = r"^([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
Quantity = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
        }
    ),
]


class Resources(Config):
    """``spec.resources``: what each pod asks for and may use."""

    requests: dict[str, Quantity] | None = Field(
        None,
        description="What a node must have free for each pod, as Kubernetes quantities by resource name "
        "(cpu in cores, memory in bytes). Default: the limits.",
    )
    limits: dict[str, Quantity] | None = Field(
        None,
        description="The most that each pod may use, as Kubernetes quantities by resource name "
        "(cpu in cores, memory in bytes, nvidia.com/gpu in devices). Default: no limit.",
    )


class Toleration(Config):
    """A taint that the pods tolerate."""

    key: str | None = Field(None, description="The taint's key. Default: every key, which needs operator Exists.")
    operator: Literal["Exists", "Equal", "Gt", "Lt"] | None = Field(
        None, description="How the taint's value is compared with value. Default: Equal."
    )
    value: str | None = Field(None, description="The taint's value. Default: empty.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="The taint's effect. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        None,
        json_schema_extra={"format": "int64"},
        description="Seconds that a pod stays after a NoExecute taint appears. Default: for ever.",
    )


class Requirement(Config):
    """One requirement on a label or field of a node."""

    key: str = Field(description="The label's or field's name.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How the label's value is compared with values."
    )
    values: tuple[str, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="What the label's value is compared with. Default: none."
    )


class NodeSelectorTerm(Config):
    """Requirements on a node, all of which must hold."""

    match_expressions: tuple[Requirement, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="Requirements on the node's labels. Default: none."
    )
    match_fields: tuple[Requirement, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="Requirements on the node's fields. Default: none."
    )


class NodeSelector(Config):
    """Alternatives, one of which must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = Field(
        json_schema_extra=ATOMIC, description="The alternatives; a node that meets one of them will do."
    )


Weight = Annotated[
    int,
    Field(
        ge=1, le=100, json_schema_extra={"format": "int32"}, description="How much this preference counts, 1 to 100."
    ),
]


class PreferredNodes(Config):
    """A preference for nodes."""

    weight: Weight
    preference: NodeSelectorTerm = Field(description="The nodes that are preferred.")


class NodeAffinity(Config):
    """Which nodes the pods go to."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        None,
        json_schema_extra=ATOMIC_MAP,
        description="Nodes that the pods may go to. Default: every node.",
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodes, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="Nodes that the pods prefer. Default: none."
    )


class LabelRequirement(Config):
    """One requirement on a label."""

    key: str = Field(description="The label's name.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label's value is compared with values."
    )
    values: tuple[str, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="What the label's value is compared with. Default: none."
    )


class LabelSelector(Config):
    """Requirements on labels, all of which must hold."""

    match_labels: dict[str, str] | None = Field(None, description="Labels and their values. Default: none.")
    match_expressions: tuple[LabelRequirement, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="Requirements on labels. Default: none."
    )


class PodAffinityTerm(Config):
    """Pods beside which, or away from which, the model's pods go."""

    topology_key: str = Field(
        description="The node label whose value says what beside means, such as kubernetes.io/hostname."
    )
    label_selector: LabelSelector | None = Field(
        None, json_schema_extra=ATOMIC_MAP, description="Which pods, by label. Default: none."
    )
    namespaces: tuple[str, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="The namespaces of those pods. Default: the model's own."
    )
    namespace_selector: LabelSelector | None = Field(
        None,
        json_schema_extra=ATOMIC_MAP,
        description="The namespaces of those pods, by label. Default: the model's own.",
    )
    match_label_keys: tuple[str, ...] | None = Field(
        None,
        json_schema_extra=ATOMIC,
        description="Labels of the model's pods whose values those pods must share. Default: none.",
    )
    mismatch_label_keys: tuple[str, ...] | None = Field(
        None,
        json_schema_extra=ATOMIC,
        description="Labels of the model's pods whose values those pods must not share. Default: none.",
    )


class PreferredPods(Config):
    """A preference for the neighbourhood of pods."""

    weight: Weight
    pod_affinity_term: PodAffinityTerm = Field(description="Which pods, and what beside means.")


class PodAffinity(Config):
    """Pods beside which, or away from which, the model's pods go."""

    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="What must hold. Default: none."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredPods, ...] | None = Field(
        None, json_schema_extra=ATOMIC, description="What is preferred. Default: none."
    )


class Affinity(Config):
    """``spec.affinity``: which nodes the pods go to, and beside which pods."""

    node_affinity: NodeAffinity | None = Field(None, description="Which nodes the pods go to. Default: any.")
    pod_affinity: PodAffinity | None = Field(None, description="Pods beside which the pods go. Default: none.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Pods away from which the pods go. Default: none.")


class SecretReference(Config):
    """A Secret of the model's namespace, by name."""

    name: str = Field(min_length=1, max_length=253, description="The Secret's name.")
