"""What the tests of a run found, and the page that is made of it."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.cluster.sandbox import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"
SECTIONS = {"path": "From apply to the first token", "rollout": "Changes under traffic", "fault": "Faults"}


@dataclass(slots=True)
class Row:
    """A line of the report: what was done, what was promised and held, and the figures that were measured."""

    section: str
    title: str
    outcome: str
    figures: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None

    def recovered(self, seconds: float) -> None:
        """How long it took until all was well again."""
        self.seconds = round(seconds, 1)


class Results:
    """The rows of a run, kept in a file as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Row] = []

    @contextlib.contextmanager
    def row(self, section: str, title: str, outcome: str) -> Iterator[Row]:
        """A row, which counts if the block ends well: the assertions in it are what ``outcome`` says."""
        row = Row(section, title, outcome)
        yield row
        self._rows.append(row)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps([asdict(each) for each in self._rows], indent=1))


def load(path: Path) -> list[Row]:
    """The rows of the last run."""
    return [Row(**row) for row in json.loads(path.read_text())]


def page(rows: list[Row], machine: str) -> str:
    """The report, as Markdown."""
    lines = [
        "# Reliability",
        "",
        "Written by `make cluster-test`, which builds the images, installs the chart on a real node as users do, and then does",
        "to it what production does. Each line is a test that passed; what it promises is what the test asserts. Times are",
        "those of the last run and decide nothing.",
        "",
        f"*{time.strftime('%Y-%m-%d')}, {machine}; one node, the tiny model.*",
    ]
    for section, title in SECTIONS.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| what happens | what users see | seconds | measured |",
            "| --- | --- | --- | --- |",
        ]
        for row in rows:
            if row.section == section:
                figures = "; ".join(f"{name}: {value}" for name, value in row.figures.items())
                seconds = "" if row.seconds is None else f"{row.seconds:g}"
                lines.append(f"| {row.title} | {row.outcome} | {seconds} | {figures} |")
    return "\n".join(lines) + "\n"
