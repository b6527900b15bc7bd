"""Digests of manifests: by them it is known what was applied last, and a pod notices a change of its configuration."""

import hashlib
import json
from typing import Any

from inferno_operator.api import names


def digest(value: Any) -> str:
    """Names ``value``, which must be JSON, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def with_digest(manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest`` with an annotation that names it as it was before."""
    metadata = manifest["metadata"]
    annotations = metadata.get("annotations", {}) | {names.DESIRED_DIGEST: digest(manifest)}
    return manifest | {"metadata": metadata | {"annotations": annotations}}
