"""Which pods had better be deleted since their nodes evict them."""

from typing import Any

import pytest

from inferno_operator import evictions
from inferno_operator.evictions import Evictions

LABELS = {"app.kubernetes.io/name": "inferno-runtime"}


def pod(uid: str, phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "labels": LABELS, **metadata}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("found", "due"),
    [
        (pod("a"), True),
        (pod("a", "Pending"), True),
        (pod("b"), False),
        (pod("a", deletionTimestamp="2026-01-01T00:00:00Z"), False),
        (pod("a", "Failed"), False),
        (pod("a", "Succeeded"), False),
        (pod("a", labels={"app.kubernetes.io/name": "inferno-prefetch"}), False),
    ],
    ids=["it serves", "it begins", "another", "it is deleted", "it is evicted", "it has ended", "it prepares"],
)
def test_the_pods_to_delete(found: dict[str, Any], due: bool) -> None:
    known = Evictions()
    known.note("a")
    assert known.under_way([found]) == ([found] if due else [])


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evictions, "_MOST", 2)
    known = Evictions()
    for uid in "abc":
        known.note(uid)
    assert known.under_way([pod(uid) for uid in "abc"]) == [pod("b"), pod("c")]
