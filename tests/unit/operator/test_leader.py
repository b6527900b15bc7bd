import copy
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from inferno_operator import cluster, leader
from inferno_operator.errors import Conflict, NotLeading, TransientError
from inferno_operator.leader import Candidate, Election, Fence, Lease, Move

NOW = datetime(2026, 5, 4, 3, 2, 1, 5, tzinfo=UTC)


def lease(holder: str, *, version: str = "1", seconds: int = 15) -> Lease:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": version, "leaseTransitions": 4}
    return {"metadata": {"name": "inferno-operator", "namespace": "ops", "resourceVersion": version}, "spec": spec}


# name: what is read, when, and what to do
CASES: dict[str, list[tuple[Lease | None, float, Move]]] = {
    "there is none": [(None, 0, Move.CREATE)],
    "it is ours": [(lease("me"), 0, Move.RENEW), (lease("me"), 1000, Move.RENEW)],
    "it was given back": [(lease(""), 0, Move.TAKE)],
    "a stranger's is taken only after it did not change for as long as it lasts": [
        (lease("you"), 100, Move.WAIT),
        (lease("you"), 114.9, Move.WAIT),
        (lease("you"), 115, Move.TAKE),
    ],
    "each renewal starts the wait anew": [
        (lease("you"), 100, Move.WAIT),
        (lease("you", version="2"), 114, Move.WAIT),
        (lease("you", version="2"), 128, Move.WAIT),
        (lease("you", version="2"), 129, Move.TAKE),
    ],
    "so does another holder": [
        (lease("you"), 100, Move.WAIT),
        (lease("they"), 110, Move.WAIT),
        (lease("they"), 120, Move.WAIT),
    ],
    "the holder says how long it lasts": [
        (lease("you", seconds=40), 0, Move.WAIT),
        (lease("you", seconds=40), 39, Move.WAIT),
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_moves(case: str) -> None:
    candidate = Candidate("me", "ops")
    assert [candidate.next_move(seen, now) for seen, now, _ in CASES[case]] == [move for _, _, move in CASES[case]]


def test_what_is_written() -> None:
    candidate = Candidate("me", "ops")
    first = candidate.held(None, NOW)
    assert first["metadata"] == {"name": "inferno-operator", "namespace": "ops"}
    assert first["spec"] == {
        "holderIdentity": "me",
        "acquireTime": "2026-05-04T03:02:01.000005Z",
        "renewTime": "2026-05-04T03:02:01.000005Z",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 0,
    }
    taken = candidate.held(lease("you"), NOW)
    assert taken["spec"]["leaseTransitions"] == 5
    assert taken["metadata"]["resourceVersion"] == "1", "so that only one of two takes it"
    released = candidate.released(taken, NOW)
    assert (released["spec"]["holderIdentity"], released["spec"]["leaseDurationSeconds"]) == ("", 1)


def test_the_last_write_is_over_before_another_may_act() -> None:
    assert leader.RENEW_SECONDS + cluster.WRITE_SECONDS <= leader.LEASE_SECONDS
    assert leader.RENEW_EVERY_SECONDS + leader.RETRY_SECONDS < leader.RENEW_SECONDS, "one failure costs nothing"


class Shelf:
    """One Lease, kept as the API server keeps it: by its version."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.down = False
        self.reads = self.writes = 0

    async def get(self, kind: str, namespace: str, name: str) -> Lease | None:
        """The Lease."""
        self._answer()
        self.reads += 1
        return copy.deepcopy(self.lease)

    async def create_lease(self, manifest: Mapping[str, Any]) -> Lease:
        """Puts it there if there is none."""
        self._answer()
        if self.lease is not None:
            raise Conflict("there is one")
        return self._put(manifest, 1)

    async def replace_lease(self, manifest: Mapping[str, Any]) -> Lease:
        """Replaces the version that was read."""
        self._answer()
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        if manifest["metadata"]["resourceVersion"] != version:
            raise Conflict("it has changed")
        return self._put(manifest, int(version) + 1)

    def _answer(self) -> None:
        if self.down:
            raise TransientError("nobody answers")

    def _put(self, manifest: Mapping[str, Any], version: int) -> Lease:
        metadata = dict(manifest["metadata"]) | {"resourceVersion": str(version)}
        self.lease = dict(copy.deepcopy(manifest)) | {"metadata": metadata}
        self.writes += 1
        return copy.deepcopy(self.lease)


def replica(shelf: Shelf, name: str) -> tuple[Election, Fence]:
    fence = Fence()
    return Election(shelf, Candidate(name, "ops"), fence), fence


async def test_one_acts_and_the_next_follows_at_once() -> None:
    shelf = Shelf()
    (one, one_fence), (two, two_fence) = replica(shelf, "one"), replica(shelf, "two")
    await one.acquire()
    one_fence()
    assert not await two._attempt()
    with pytest.raises(NotLeading):
        two_fence()
    await one.release()
    with pytest.raises(NotLeading):
        one_fence()
    await two.acquire()
    two_fence()


async def test_writing_ends_when_the_lease_cannot_be_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shelf = Shelf()
    election, fence = replica(shelf, "one")
    await election.acquire()
    shelf.down = True
    now += leader.RENEW_SECONDS - 0.1
    assert not await election._attempt()
    fence()
    now += 0.2
    with pytest.raises(NotLeading):
        fence()
    await election.keep()  # returns: it is lost


async def test_writing_ends_when_somebody_else_has_the_lease() -> None:
    shelf = Shelf()
    election, fence = replica(shelf, "one")
    await election.acquire()
    assert shelf.lease is not None
    shelf.lease["spec"]["holderIdentity"] = "somebody"
    shelf.lease["metadata"]["resourceVersion"] = "99"
    assert not await election._attempt()
    with pytest.raises(NotLeading):
        fence()
    await election.release()
    assert shelf.lease["spec"]["holderIdentity"] == "somebody"


async def test_a_renewal_is_one_request() -> None:
    shelf = Shelf()
    election, _ = replica(shelf, "one")
    await election.acquire()
    reads, writes = shelf.reads, shelf.writes
    assert await election._attempt()
    assert (shelf.reads, shelf.writes) == (reads, writes + 1)


async def test_a_renewal_that_was_lost_on_its_way_back_is_made_up_for() -> None:
    shelf = Shelf()
    election, fence = replica(shelf, "one")
    await election.acquire()
    assert shelf.lease is not None
    shelf.lease["metadata"]["resourceVersion"] = "99"  # ours, but its answer never arrived
    assert await election._attempt()
    fence()


async def test_of_two_that_try_at_once_one_succeeds() -> None:
    shelf = Shelf()
    one, two = replica(shelf, "one")[0], replica(shelf, "two")[0]
    assert shelf.lease is None
    lease_read = await shelf.get("Lease", "ops", "inferno-operator")
    assert await one._attempt()
    with pytest.raises(Conflict):
        await shelf.create_lease(two._candidate.held(lease_read, NOW))
