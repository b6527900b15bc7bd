"""``spec.storage``: where models that are fetched are kept."""

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from inferno_operator.api.scheduling import Quantity
from inferno_runtime.config import Config

ONE_CLAIM: Any = [
    {"rule": "!has(self.claim) || !has(self.claimName)", "message": "claim and claimName exclude each other"},
    {
        "rule": "!has(self.prefetch) || !self.prefetch || has(self.claim) || has(self.claimName)",
        "message": "prefetch needs a claim to fetch into: set claim or claimName",
    },
]


class CacheClaim(Config):
    """``spec.storage.claim``: a PersistentVolumeClaim of the model's own."""

    size: Quantity = Field(description="Size of the volume, as a Kubernetes quantity in bytes; it may grow later.")
    storage_class_name: str | None = Field(
        default=None, min_length=1, max_length=253, description="The StorageClass. Default: the cluster's default."
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = Field(
        default="ReadWriteOnce",
        description="Who may use the volume at once. With ReadWriteOnce all pods must run on one node; "
        "pods on several nodes need ReadWriteMany.",
    )
    retain: bool = Field(default=False, description="Whether the claim stays when the model is deleted.")


class Storage(Config):
    """``spec.storage``: the cache of models that are fetched."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        json_schema_extra={"x-kubernetes-validations": ONE_CLAIM},
    )

    claim: CacheClaim | None = Field(
        default=None,
        description="A PersistentVolumeClaim that is made for this model's cache. Default: none, and each pod has a cache "
        "that goes with it.",
    )
    claim_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="A PersistentVolumeClaim of this namespace to keep the cache in; models may share it, and have a file "
        "once that several of them use. Default: none.",
    )
    size_limit: Quantity | None = Field(
        default=None,
        description="Most that the cache may hold, as a Kubernetes quantity in bytes; for more room what no resource uses is "
        "removed first, then what has been unused the longest. Default: what the volume holds.",
    )
    prefetch: bool = Field(
        default=False,
        description="Whether the model is fetched into the claim right away, also while replicas is 0.",
    )
