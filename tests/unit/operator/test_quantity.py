import pytest

from inferno_operator import quantity


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1000m", "1", True),
        ("0.5", "500m", True),
        (1, "1", True),
        ("1024Mi", "1Gi", True),
        ("1e3", "1k", True),
        ("1E", "1000P", True),
        (".5Gi", "512Mi", True),
        ("1G", "1Gi", False),
        ("100m", "100M", False),
        ("one", "one", False),
        ("1", None, False),
        ("1.0.0", "1.0.0", False),
    ],
)
def test_same(one: object, other: object, same: bool) -> None:
    assert quantity.same(one, other) == same
