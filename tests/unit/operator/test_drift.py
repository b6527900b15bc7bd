from typing import Any

import pytest

from inferno_operator.drift import first_difference

# name: what is wanted, what there is, where they differ
CASES: dict[str, tuple[Any, Any, str | None]] = {
    "the same": ({"a": 1}, {"a": 1}, None),
    "more than wanted": ({"a": 1}, {"a": 1, "b": 2}, None),
    "less than wanted": ({"a": 1, "b": {"c": 2}}, {"a": 1}, "b: nothing -> {'c': 2}"),
    "another value": ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b: 2 -> 1"),
    "true is not one": ({"a": True}, {"a": 1}, "a: 1 -> True"),
    "an empty object may be dropped": ({"a": {}}, {}, None),
    "an empty list may be dropped": ({"a": []}, {}, None),
    "a list that is one value": ({"args": ["a"]}, {"args": ["a", "b"]}, "args: ['a', 'b'] -> ['a']"),
    "a value in a list": ({"args": ["a", "b"]}, {"args": ["a", "c"]}, "args[1]: 'c' -> 'b'"),
    "an item of somebody else's": (
        {"containers": [{"name": "runtime", "image": "a"}]},
        {"containers": [{"name": "sidecar"}, {"name": "runtime", "image": "a", "tty": False}]},
        None,
    ),
    "our item changed": (
        {"containers": [{"name": "runtime", "image": "a"}]},
        {"containers": [{"name": "sidecar"}, {"name": "runtime", "image": "b"}]},
        "containers[0].image: 'b' -> 'a'",
    ),
    "our item gone": ({"volumes": [{"name": "tmp"}]}, {"volumes": []}, "volumes[0]: nothing -> {'name': 'tmp'}"),
    "ports of a Service": (
        {"ports": [{"port": 8000, "protocol": "TCP"}]},
        {"ports": [{"port": 9, "protocol": "TCP"}, {"port": 8000, "protocol": "TCP", "nodePort": 30000}]},
        None,
    ),
    "quantities in another spelling": (
        {"resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}}},
        {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}}},
        None,
    ),
    "the size of a volume in another spelling": (
        {"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": 1_000_000_000}}]},
        {"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1G"}}]},
        None,
    ),
    "another quantity": (
        {"resources": {"limits": {"cpu": "1"}}},
        {"resources": {"limits": {"cpu": "2"}}},
        "resources.limits.cpu: '2' -> '1'",
    ),
    "what looks like a quantity elsewhere": ({"args": ["1000m"]}, {"args": ["1"]}, "args[0]: '1' -> '1000m'"),
    "a list instead of an object": ({"a": {"b": 1}}, {"a": [1]}, "a: [1] -> {'b': 1}"),
    "an object instead of a list": ({"a": [1]}, {"a": {"b": 1}}, "a: {'b': 1} -> [1]"),
    "text instead of a list": ({"a": ["x"]}, {"a": "x"}, "a: 'x' -> ['x']"),
}


@pytest.mark.parametrize("case", CASES)
def test_first_difference(case: str) -> None:
    desired, live, difference = CASES[case]
    assert first_difference(desired, live) == difference


def test_what_is_shown_is_short() -> None:
    assert len(first_difference({"a": "x" * 1000}, {"a": "y" * 1000}) or "") < 200
