"""Hardware profiles: named sets of what a pod needs and where it may go, tried in the order that a model gives.

Which one is in use stands in the model's status, so that a pass needs no memory of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from inferno_operator.api import names
from inferno_operator.api.types import InfernoModelSpec, Placement, ProfileName
from inferno_operator.errors import UnknownProfile

Profiles = Mapping[str, Placement]
_profiles: TypeAdapter[dict[ProfileName, Placement]] = TypeAdapter(dict[ProfileName, Placement])


def parse(document: Any) -> Profiles:
    """Profiles by name. Raises pydantic's ValidationError, which is a ValueError."""
    return _profiles.validate_python(document or {})


@dataclass(frozen=True, slots=True)
class Choice:
    """The profile in use, of the spec's."""

    name: str
    candidates: tuple[str, ...]

    def status(self) -> dict[str, Any]:
        """As it stands in the model's status."""
        return {"name": self.name, "candidates": list(self.candidates)}

    @property
    def next(self) -> "Choice | None":
        """What to fall back to."""
        index = self.candidates.index(self.name) + 1
        return Choice(self.candidates[index], self.candidates) if index < len(self.candidates) else None


def current(spec: InfernoModelSpec, profiles: Profiles, status: Mapping[str, Any]) -> Choice | None:
    """The profile in use: the one in the status while the spec names the same ones, else the first. Raises
    UnknownProfile.
    """
    if not spec.profiles:
        return None
    if unknown := [name for name in spec.profiles if name not in profiles]:
        known = ", ".join(sorted(profiles)) or "none"
        raise UnknownProfile(f"there is no hardware profile {', '.join(unknown)}; the operator knows: {known}")
    recorded = status.get("profile") or {}
    if tuple(recorded.get("candidates", ())) == spec.profiles and recorded.get("name") in spec.profiles:
        return Choice(recorded["name"], spec.profiles)
    return Choice(spec.profiles[0], spec.profiles)


def placed(spec: InfernoModelSpec, choice: Choice | None, profiles: Profiles) -> InfernoModelSpec:
    """The spec with what the profile adds to it."""
    if choice is None:
        return spec
    profile = profiles[choice.name]
    added = {
        name: getattr(profile, name)
        for name in Placement.model_fields
        if getattr(spec, name) is None and getattr(profile, name) is not None
    }
    return spec.model_copy(update=added)


def no_node_since(pods: Iterable[Mapping[str, Any]], template_digest: str) -> datetime | None:
    """Since when no node has taken any of the pods of a template; None if one has, or nobody has looked yet."""
    since: list[datetime] = []
    for pod in pods:
        metadata = pod["metadata"]
        if metadata.get("annotations", {}).get(names.TEMPLATE_DIGEST) != template_digest:
            continue
        found = next((each for each in pod["status"].get("conditions", ()) if each["type"] == "PodScheduled"), None)
        if found is None or found["status"] != "False":
            return None
        since.append(datetime.fromisoformat(found["lastTransitionTime"]))
    return max(since, default=None)


def left(spec: InfernoModelSpec, since: datetime, now: datetime) -> float:
    """Seconds that the profile in use is still given; none if it has had its time."""
    return (since + timedelta(seconds=spec.profile_timeout_seconds) - now).total_seconds()
