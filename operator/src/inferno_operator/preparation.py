"""What the containers that run before the runtime have said: what the model is, and how far its fetch has come."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from inferno_operator.api import names
from inferno_operator.api.types import ObservedFetch
from inferno_operator.pods import is_current
from inferno_runtime.models.facts import ModelFacts

CONTAINERS: Final = (names.INSPECT_CONTAINER, names.FETCH_CONTAINER)


@dataclass(frozen=True, slots=True)
class Preparation:
    """How far the pods of the current template are. ``facts`` and ``sha256`` are those of the model, once known."""

    facts: ModelFacts | None = None
    sha256: str | None = None
    fetched: str | None = None
    """In words, what the fetch has done."""
    fetched_bytes: int = 0
    """Bytes that came over the network for it."""
    fetching: str | None = None
    """The pod that is fetching."""
    progress: ObservedFetch | None = None


def observe(pods: Iterable[Mapping[str, Any]], template_digest: str) -> Preparation:
    """What the furthest of the pods of the current template says."""
    return furthest(_of_pod(pod) for pod in pods if is_current(pod, template_digest))


def furthest(preparations: Iterable[Preparation]) -> Preparation:
    """The one that has come the furthest."""

    def come(one: Preparation) -> tuple[bool, ...]:
        return one.fetched is not None, one.fetching is not None, one.facts is not None

    return max(preparations, key=come, default=Preparation())


def parse_progress(log: str) -> ObservedFetch | None:
    """The progress that the last line of a fetch's log tells of, if it does."""
    for line in reversed(log.splitlines()):
        try:
            return ObservedFetch.model_validate(json.loads(line)["fetch"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _of_pod(pod: Mapping[str, Any]) -> Preparation:
    # In a pod that serves they are init containers; in one that only fetches, its container is the fetch.
    status = pod.get("status", {})
    both = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    statuses = {each.get("name"): each for each in both}
    inspected = _said(statuses.get(names.INSPECT_CONTAINER))
    fetched = _said(statuses.get(names.FETCH_CONTAINER))
    digest = fetched.get("sha256")
    return Preparation(
        facts=_together(_facts(inspected), _facts(fetched)),
        sha256=digest if isinstance(digest, str) else None,
        fetched=_in_words(fetched) if fetched else None,
        fetched_bytes=_count(fetched.get("fetchedBytes")),
        fetching=pod["metadata"]["name"] if _is_running(statuses.get(names.FETCH_CONTAINER)) else None,
    )


def _said(status: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last words of a container that has done its work; empty otherwise."""
    ended = (status or {}).get("state", {}).get("terminated") or {}
    if ended.get("exitCode") != 0:
        return {}
    try:
        said = json.loads(ended.get("message") or "")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _facts(said: Mapping[str, Any]) -> ModelFacts | None:
    try:
        return ModelFacts.model_validate(said["model"])
    except (KeyError, ValidationError):
        return None


def _together(inspected: ModelFacts | None, fetched: ModelFacts | None) -> ModelFacts | None:
    """What both say; the fetch has seen all of the model, and nothing of what is beside it."""
    if inspected is None or fetched is None:
        return fetched or inspected
    return inspected.model_copy(update=fetched.model_dump(exclude_none=True))


def _in_words(said: Mapping[str, Any]) -> str:
    if not said.get("fetchedBytes"):
        return f"the model was in the cache, {said.get('bytes')} bytes with digest {said.get('sha256')}"
    return f"{said['fetchedBytes']} of {said.get('bytes')} bytes were fetched, digest {said.get('sha256')}"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _is_running(status: Mapping[str, Any] | None) -> bool:
    return "running" in (status or {}).get("state", {})
