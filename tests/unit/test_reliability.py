"""The figures of the reliability report, and its page."""

from pathlib import Path

import pytest

from tests.node import report
from tests.node.traffic import Request, recovery

FAULT = 100.0
BEFORE = Request(90.0, 91.0, 99.0, "complete")
CASES: dict[str, tuple[list[Request], float]] = {
    "nothing failed": ([BEFORE, Request(101.0, 101.5, 103.0, "complete")], 1.5),
    "one that runs is cut, the next one is answered": (
        [Request(98.0, 99.0, 100.5, "cut: x"), Request(102.0, 103.0, 104.0, "complete")],
        3.0,
    ),
    "an answer between failures is no recovery": (
        [
            Request(100.5, 101.0, 102.0, "complete"),
            Request(103.0, None, 104.0, "refused: x"),
            Request(104.0, 106.0, 107.0, "complete"),
        ],
        6.0,
    ),
    "a stream that began before says nothing": ([BEFORE, Request(99.0, 101.0, 109.0, "complete")], 0.0),
}


@pytest.mark.parametrize(("requests", "seconds"), CASES.values(), ids=CASES)
def test_recovery_is_the_first_token_after_the_last_failure(requests: list[Request], seconds: float) -> None:
    assert recovery(requests, FAULT) == pytest.approx(seconds)


def test_a_row_counts_only_if_its_test_passed(tmp_path: Path) -> None:
    file = tmp_path / "made" / "results.json"
    results = report.Results(file)
    with results.row("fault", "The engine is killed", "an error event") as row:
        row.recovered(2.345)
        row.figures["streams"] = "8"
    with pytest.raises(AssertionError), results.row("fault", "The shim is killed", "nothing"):
        raise AssertionError
    page = report.page(report.load(file), "a machine")
    assert "| The engine is killed | an error event | 2.3 | streams: 8 |" in page
    assert "shim" not in page
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## {title}" for title in report.SECTIONS.values()
    ]
