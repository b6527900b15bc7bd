"""The depth of a queue over time."""

import pytest

from inferno_runtime.worker.depth import Depth


def test_a_depth_that_was_never_set() -> None:
    assert (Depth().mean(5.0), Depth().most) == (0.0, 0)


def test_the_mean_counts_by_time() -> None:
    depth = Depth()
    depth.set(0, 10.0)
    depth.set(4, 12.0)
    depth.set(1, 13.0)
    assert depth.mean(15.0) == pytest.approx((0 * 2 + 4 * 1 + 1 * 2) / 5)
    assert (depth.value, depth.most) == (1, 4)


def test_no_time_has_passed() -> None:
    depth = Depth()
    depth.set(3, 10.0)
    assert depth.mean(10.0) == 3.0
