"""The report: what was measured, beside the targets, without a trace of the machine's owner."""

import json
from pathlib import Path
from xml.etree import ElementTree

from benchmarks import onnx, plot, report
from benchmarks.runner import Results, publishable
from benchmarks.stats import Spread
from benchmarks.targets import BEST, INFERNO, LLAMA_SERVER, RAW


def results() -> Results:
    def figures(speed: float) -> dict[str, float]:
        return {"tokens_per_second": speed, "first_p50": 10 / speed, "overhead_mb": 100.0, "tokens": 10}

    return Results(
        rounds={
            "chat8": {
                INFERNO: [figures(210), figures(220), figures(200)],
                LLAMA_SERVER: [figures(180), figures(181), {}],
                BEST: [figures(230), figures(200), figures(190)],
            },
            "memory": {INFERNO: [figures(10)] * 3},
        },
        flags={INFERNO: {"chat8": "--slots 8"}, BEST: {"chat8": "-fa off | -x"}},
        titles={INFERNO: "Inferno", LLAMA_SERVER: "llama-server", BEST: "llama-server, best flags"},
        raw_rates=[{"prefill": 1000.0, "decode 8": 250.0}],
        failures=["rag, llama-server: it broke … for some reason"],
    )


def test_the_table_for_the_terminal() -> None:
    lines = report.text(results()).splitlines()
    (row,) = [line for line in lines if "tokens/s" in line and "best flags" not in line]
    assert "1.19 (1.17–1.22)" in row
    assert "≥ 1.15" in row
    assert any("MISSED" in line and "best flags" in line for line in lines)
    assert any("≤ 150" in line and "reached" in line for line in lines)
    assert "rag, llama-server: it broke" in "\n".join(lines)


def test_the_page() -> None:
    page = report.markdown(results(), {"CPU": "a fast one"}, [("Ratios", "benchmarks/ratios.svg")])
    assert "| CPU | a fast one |" in page
    assert "| chat, 8 users | output tokens/s | llama-server | 1.19 (1.17–1.22) | ≥ 1.15 | ✓ |" in page
    assert "![Ratios](benchmarks/ratios.svg)" in page
    assert "| Inferno | 210 (200–220) |" in page
    assert "`-fa off \\| -x`" in page
    assert "- rag, llama-server: it broke … for some reason\n" in page


def test_what_the_library_allows_stands_beside_what_was_reached() -> None:
    saved = results()
    assert "What there is to gain" not in report.markdown(saved, {}, [])
    saved.rounds["chat8"][RAW] = [{"tokens_per_second": 250.0}] * 3
    saved.rounds["burst"] = {LLAMA_SERVER: [{"first_p99": 8.0}], RAW: [{"first_p99": 6.0}]}
    saved.titles[RAW] = "the rates"
    page = report.markdown(saved, {}, [])
    assert "## What there is to gain" in page
    assert (
        "| chat, 8 users | output tokens/s | 0.840 (0.800–0.880) | 0.722 (0.720–0.724) | 0.800 (0.760–0.920) |" in page
    )
    assert "| burst | first token, p99 |  | 0.750 |  |" in page


def test_saved_results_make_the_same_page_again(tmp_path: Path) -> None:
    report.write(results(), {"CPU": "a fast one"}, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    saved, facts = report.read(tmp_path / "benchmarks" / "results.json")
    report.write(saved, facts, tmp_path / "again")
    assert (tmp_path / "again" / "benchmarks.md").read_text() == page
    assert facts == {"CPU": "a fast one"}


def test_what_is_written(tmp_path: Path) -> None:
    paths = report.write(results(), {"CPU": "a fast one"}, tmp_path)
    assert {path.name for path in paths} == {
        "benchmarks.md",
        "ratios.svg",
        "throughput.svg",
        "first-token.svg",
        "results.json",
    }
    for path in paths:
        if path.suffix == ".svg":
            ElementTree.fromstring(path.read_text())
            assert path.name in (tmp_path / "benchmarks.md").read_text()
    data = json.loads((tmp_path / "benchmarks" / "results.json").read_text())
    assert data["machine"] == {"CPU": "a fast one"}
    assert data["rounds"]["chat8"][BEST][0]["tokens_per_second"] == 230


def test_failures_name_no_folder_of_this_machine() -> None:
    message = "it ended:\nTraceback\n  File /home/me/src/a.py\nno model /home/me/src/b\n\n"
    assert publishable(message, {Path("/home/me/src"): "."}) == "it ended: … no model ./b"
    assert publishable("one line", {}) == "one line"


def test_nothing_measured_is_a_report_too(tmp_path: Path) -> None:
    assert report.text(Results()).startswith("load")
    assert len(report.write(Results(), {}, tmp_path)) == 5


def test_a_scale_keeps_values_inside() -> None:
    scale = plot.Scale(0.1, 10, logarithmic=True)
    assert scale(0.1) == scale(0.001)
    assert scale(0.1) < scale(1) < scale(10)
    assert scale(10) == scale(100)


def test_marks_have_their_colours() -> None:
    drawing = plot.ratios("t", [("a & b", "p", Spread(2, 1, 3, 3), 1.5), ("c", "p", Spread(1, 1, 1, 1), 1.5)])
    assert "a &amp; b" in drawing
    assert "#2f9e44" in drawing
    assert "#e03131" in drawing


def test_what_was_measured_of_onnx_models_is_on_the_page(tmp_path: Path) -> None:
    report.write(results(), {}, tmp_path)
    assert "## ONNX" not in (tmp_path / "benchmarks.md").read_text()
    speeds = {INFERNO: (410, 400, 390), onnx.ALONE: (100, 100, 100)}
    rounds = {"decode8": {name: [{"tokens_per_second": speed} for speed in own] for name, own in speeds.items()}}
    (tmp_path / onnx.FIGURES).write_text(json.dumps({"rounds": rounds, "failures": ["infinity: it broke"]}))
    report.write(results(), {}, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    row = "| tokens/s | 400 (390–410) | onnxruntime alone | 100 (100–100) | 4.00 (3.90–4.10) | ≥ 4.0 |"
    assert f"| decode, 8 at a time {row}" in page
    assert "Not measured: infinity: it broke." in page
    assert "decode, 1 at a time" not in page
