"""Replicas whose wall clocks are set while they run, each to another time: who acts is decided by no such clock."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.waiting import until
from tests.operator.conftest import OWN_NAMESPACE, StartOperator
from tests.operator.namespace import Namespace
from tests.operator.test_replicas import leader_and_follower, slots
from tests.stepped.clock import SteppedClock

# Far more than a Lease lasts, and less than the certificates of the API server are younger than they say.
STEP = 1800.0
# Longer than a Lease lasts, at one renewal in five seconds.
RENEWALS = 4


@pytest.mark.parametrize("seconds", [-STEP, STEP], ids=["the leader's back", "the leader's ahead"])
def test_who_leads_goes_on_leading(
    start_operator: StartOperator,
    namespace: Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    clocks = []
    replicas = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        clocks.append(SteppedClock(folder))
        with monkeypatch.context() as environment:
            for variable, value in clocks[-1].environment.items():
                environment.setenv(variable, value)
            replicas.append(start_operator())
    with replicas[0] as one, replicas[1] as two:
        leader, follower = leader_and_follower(one, two)
        namespace.serve()
        before = lease(namespace.cluster)
        leaders = clocks[replicas.index(leader)]
        leaders.step(seconds)
        clocks[replicas.index(follower)].step(-seconds)
        seen = {before["renewTime"]}

        def renewed() -> bool:
            seen.add(lease(namespace.cluster)["renewTime"])
            return len(seen) > RENEWALS

        until("the Lease to be renewed", renewed, 120)
        after = lease(namespace.cluster)
        assert (after["holderIdentity"], after["leaseTransitions"]) == (
            before["holderIdentity"],
            before["leaseTransitions"],
        )
        set_by = moment(after) - moment(before)
        assert set_by.total_seconds() == pytest.approx(seconds, abs=600), "the clock was set"
        namespace.model(engine={"slots": 7})
        until("the leader to act", lambda: "slots: 7" in slots(namespace))
        assert leader.leads
        assert not follower.leads
        leader.kill()
        follower.leading()


def lease(cluster: Cluster) -> dict[str, Any]:
    """What the operator's Lease says."""
    found: dict[str, Any] = cluster.get("lease", "inferno-operator", f"--namespace={OWN_NAMESPACE}")["spec"]
    return found


def moment(lease: dict[str, Any]) -> datetime:
    """When the Lease was renewed, by its holder's clock."""
    return datetime.fromisoformat(lease["renewTime"])
