from typing import Any

import pytest

from inferno_operator.autoscaler import parse
from inferno_operator.scaling import Load, Need, Scaler, need
from tests.unit.operator.models import model


def spec(**scaling: Any) -> Any:
    return model({"autoscaling": {"maxReplicas": 10, "targetRequests": 10} | scaling}).spec


def busy(requests: float, kv: float = 0.0) -> Load:
    return Load(running=requests / 2, waiting=requests / 2, kv_usage=kv)


# name: pods that there are, their loads, and how many are needed
NEEDS: dict[str, tuple[int, list[Load | None], int | None]] = {
    "idle": (3, [busy(0)] * 3, 1),
    "as it should be": (2, [busy(10), busy(10)], 2),
    "a little more": (2, [busy(11), busy(11)], 2),
    "a little less": (2, [busy(9), busy(10)], 2),
    "more": (2, [busy(15), busy(16)], 4),
    "less": (4, [busy(5), busy(5), busy(5), busy(4)], 2),
    "more than may be": (2, [busy(500), busy(500)], 10),
    "the cache is full": (2, [busy(1, 0.95), busy(1, 0.95)], 3),
    "the cache is used as it should be": (2, [busy(1, 0.8), busy(1, 0.8)], 2),
    "nobody answers": (2, [None, None], None),
    "one does not answer": (3, [busy(2), busy(2), None], 2),
    "one does not answer, and more are needed": (2, [busy(40), None], 4),
    "one is still starting": (3, [busy(15), busy(15)], 3),
    "no pods": (0, [], None),
}


@pytest.mark.parametrize("case", NEEDS)
def test_need(case: str) -> None:
    current, loads, expected = NEEDS[case]
    found = need(spec(), current, loads)
    assert (found and found.replicas) == expected


def test_what_is_needed_is_explained() -> None:
    by_requests, by_memory = need(spec(), 1, [busy(30)]), need(spec(), 1, [busy(1, 0.99)])
    assert by_requests == Need(3, "30 sequences run or wait, 10 a pod is the target")
    assert by_memory == Need(2, "99 % of the KV cache is used, 80 % is the target")


def test_never_fewer_than_the_least() -> None:
    assert need(spec(minReplicas=2), 4, [busy(0)] * 4) == Need(2, "0 sequences run or wait, 10 a pod is the target")


def test_the_slots_are_the_target_where_none_is_given() -> None:
    slots = model({"autoscaling": {"maxReplicas": 9}, "engine": {"slots": 5}}).spec
    found = need(slots, 1, [busy(20)])
    assert found is not None
    assert found.replicas == 4


# name: the settings, the pods at first, what is needed at which second, and what is decided
DECISIONS: dict[str, tuple[dict[str, Any], int, list[tuple[float, int, int]]]] = {
    "up at once, in steps of a minute": (
        {"scaleUp": {"podsPerMinute": 2}},
        1,
        [(0, 9, 3), (10, 9, 3), (59, 9, 3), (60, 9, 5), (125, 9, 7)],
    ),
    "up only after a window, by the least that was needed in it": (
        {"scaleUp": {"windowSeconds": 30}},
        1,
        [(0, 4, 1), (10, 2, 1), (29, 4, 1), (31, 4, 2), (41, 4, 4)],
    ),
    "a peak within the window adds nothing": (
        {"scaleUp": {"windowSeconds": 30}},
        1,
        [(0, 1, 1), (20, 5, 1), (30, 1, 1), (60, 1, 1)],
    ),
    "down only after a window, by the most that was needed in it": (
        {"scaleDown": {"windowSeconds": 300, "podsPerMinute": 9}},
        5,
        [(0, 5, 5), (10, 1, 5), (299, 1, 5), (301, 1, 1)],
    ),
    "nothing is taken away before the window is over, also by a new operator": (
        {"scaleDown": {"windowSeconds": 300, "podsPerMinute": 9}},
        5,
        [(1000, 1, 5), (1200, 1, 5), (1300, 1, 1)],
    ),
    "down in steps of a minute": (
        {"scaleDown": {"windowSeconds": 0, "podsPerMinute": 1}},
        4,
        [(0, 1, 3), (30, 1, 3), (60, 1, 2), (120, 1, 1)],
    ),
    "the least pods hold at once": ({"minReplicas": 3}, 1, [(0, 3, 3)]),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_decide(case: str) -> None:
    settings, replicas, steps = DECISIONS[case]
    scaler, asked = Scaler(replicas), spec(**settings)
    assert [scaler.decide(asked, Need(needed, ""), at) for at, needed, _ in steps] == [decided for *_, decided in steps]


PAGE = """\
# HELP inferno_num_requests_running Sequences that are evaluated.
# TYPE inferno_num_requests_running gauge
inferno_num_requests_running{model_name="a"} 3.0
inferno_num_requests_running{model_name="b"} 1.0
inferno_num_requests_waiting{model_name="a"} 7.0
inferno_num_requests_running_total{model_name="a"} 99.0
inferno_kv_cache_usage_ratio{model_name="a"} 0.25
"""


def test_a_page_of_metrics() -> None:
    assert parse(PAGE.splitlines()) == Load(running=4, waiting=7, kv_usage=0.25)
    assert parse(["up 1"]) is None
    with pytest.raises(ValueError, match="could not convert"):
        parse(["inferno_num_requests_running many"])
