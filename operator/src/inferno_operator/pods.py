"""What a pod says about why it does not serve."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from inferno_operator.api import names

# What a container passes through on its way up.
_USUAL: Final = frozenset({"ContainerCreating", "PodInitializing"})
# Containers whose end is what is wanted of them.
_PREPARING: Final = frozenset({names.INSPECT_CONTAINER, names.FETCH_CONTAINER, names.ADAPTERS_CONTAINER})
_CRASH_LOOP: Final = "CrashLoopBackOff"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pod does not serve. ``by_runtime``: the runtime itself gave up, so the message is about the model;
    ``by_fetch``: what runs before it did, so it is about the model's source.
    """

    pod: str
    reason: str
    message: str
    by_runtime: bool = False
    by_fetch: bool = False


def first_problem(pods: Iterable[Mapping[str, Any]], template_digest: str) -> Problem | None:
    """The most telling problem among the pods of the current template, or None.

    What a runtime says about its model tells more than that something is being waited for.
    """
    current = [pod for pod in pods if is_current(pod, template_digest)]
    problems = sorted(
        (problem for pod in current for problem in _problems(pod)),
        key=lambda each: (not each.by_runtime and not each.by_fetch, each.pod),
    )
    return problems[0] if problems else None


def is_current(pod: Mapping[str, Any], template_digest: str) -> bool:
    """Whether the pod is of the template with this digest, and there to stay."""
    metadata = pod["metadata"]
    return metadata.get("annotations", {}).get(names.TEMPLATE_DIGEST) == template_digest and not metadata.get(
        "deletionTimestamp"
    )


def _problems(pod: Mapping[str, Any]) -> Iterator[Problem]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if problem := _container_problem(name, container):
            yield problem
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Problem(
                name, condition.get("reason", "Unschedulable"), condition.get("message", "no node takes the pod")
            )
    if status.get("phase") == "Failed" and status.get("reason"):
        yield Problem(name, status["reason"], status.get("message", "the pod was ended by its node"))


def _container_problem(pod: str, container: Mapping[str, Any]) -> Problem | None:
    """What is wrong with a container: it ended, or it cannot begin.

    One that runs again after it ended has not yet proved anything.
    """
    if container.get("ready"):
        return None
    state, last = container.get("state", {}), container.get("lastState", {})
    waiting = state.get("waiting", {})
    if waiting and waiting.get("reason") not in _USUAL | {_CRASH_LOOP}:
        return Problem(pod, waiting.get("reason", "Waiting"), waiting.get("message", "the container cannot start"))
    ended = state.get("terminated") or last.get("terminated")
    if ended is None or (container.get("name") in _PREPARING and state.get("terminated", {}).get("exitCode") == 0):
        return None
    return _ended(pod, container.get("name", ""), ended)


def _ended(pod: str, container: str, ended: Mapping[str, Any]) -> Problem:
    by_runtime = container == names.CONTAINER
    if container in _PREPARING and ended.get("exitCode"):
        return _unfetched(pod, ended)
    code, reason = ended.get("exitCode", 0), ended.get("reason", "Error")
    if reason == "OOMKilled":
        return Problem(
            pod, reason, "the container used more memory than spec.resources.limits.memory allows", by_runtime
        )
    said = " ".join(ended.get("message", "").split())
    return Problem(
        pod,
        reason if reason != "Error" else "ContainerFailed",
        said or f"the container ended with exit code {code}",
        by_runtime,
    )


def _unfetched(pod: str, ended: Mapping[str, Any]) -> Problem:
    """Why a container that prepares the model ended; it leaves a reason and a sentence as JSON, if it can."""
    said = ended.get("message", "")
    try:
        told = json.loads(said)
        return Problem(pod, str(told["reason"]), str(told["message"]), by_fetch=True)
    except (ValueError, KeyError, TypeError):
        pass
    code = ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        return Problem(pod, "OOMKilled", "the fetch used more memory than its limit allows", by_fetch=True)
    return Problem(
        pod, "FetchFailed", " ".join(said.split()) or f"the fetch ended with exit code {code}", by_fetch=True
    )
