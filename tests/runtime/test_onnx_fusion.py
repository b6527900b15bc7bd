"""Attention as one operator: what is replaced, what is left alone, and that nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from inferno_runtime.backends import load_backend
from inferno_runtime.backends.base import Backend, Span
from inferno_runtime.backends.onnx.fusion import prepare
from inferno_runtime.backends.onnx.gqa import OPERATOR
from inferno_runtime.config import EngineConfig
from inferno_runtime.models.layout import Layout
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins
from tests.runtime.onnx_twins import WINDOW, Export

CONFIG = EngineConfig(threads=1)
FUSED = [
    Export(),
    Export(positions="counted"),
    Export(positions="ignored"),
    Export(kept=True),
    Export(external=True, name="onnx/model.onnx"),
    Export(odd="halves turned"),
    Export(odd="norms"),
]
LEFT_ALONE = [
    Export(cache=np.float16),
    Export(merged=True, name="decoder_model_merged.onnx"),
    Export(odd="scale"),
    Export(odd="window"),
]


def named(export: Export) -> str:
    flags = [name for name in ("merged", "kept", "external") if getattr(export, name)]
    return "-".join([export.positions, np.dtype(export.cache).name, *flags, *export.odd.split()])


def loaded(path: Path, **engine: Any) -> Backend:
    return load_backend(str(path), EngineConfig(threads=1, **engine))


@pytest.mark.parametrize("export", FUSED, ids=named)
def test_a_fused_graph_says_what_the_exported_one_says(export: Export, tmp_path: Path) -> None:
    path = onnx_twins.decoder(DEFAULT_MODEL, tmp_path, export)
    layout = Layout.find(path)
    prepared = prepare(layout, CONFIG, 256)
    assert prepared.in_place
    assert prepared.graph
    graph = onnx.load_model_from_string(prepared.graph).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count(OPERATOR) == onnx_twins.Source(DEFAULT_MODEL).layers
    assert not {"Softmax", "Range"}.intersection(kinds)
    assert ("Cos" in kinds) == (
        export.odd == "norms"
    )  # where more is done to keys than to turn them, they are still turned so
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(layout.model.parent))
    sessions = [onnxruntime.InferenceSession(graph, options) for graph in (str(layout.model), prepared.graph)]
    for rows, tokens, past in ((1, 9, 0), (1, 5, 40), (3, 1, 255)):
        feeds = random_feeds(sessions[0], rows, tokens, past)
        for exported, fused in zip(*(answers(session, feeds) for session in sessions), strict=True):
            assert np.abs(exported - fused).max() < 1e-3  # of logits of about 15


def answers(session: Any, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    known = {value.name for value in session.get_inputs()}
    outputs = sorted(value.name for value in session.get_outputs())
    values: list[NDArray[Any]] = session.run(outputs, {name: value for name, value in feeds.items() if name in known})
    return values


def random_feeds(session: Any, rows: int, tokens: int, past: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(7)
    feeds: dict[str, NDArray[Any]] = {
        "input_ids": random.integers(0, 1700, (rows, tokens)),
        "attention_mask": np.ones((rows, past + tokens), dtype=np.int64),
        "position_ids": np.tile(np.arange(past, past + tokens), (rows, 1)),
        "num_logits_to_keep": np.array(tokens),
    }
    for value in session.get_inputs():
        if value.name.startswith("past"):
            shape = (rows, value.shape[1], past, value.shape[3])
            feeds[value.name] = random.standard_normal(shape, dtype=np.float32)
    return feeds


@pytest.mark.parametrize("export", LEFT_ALONE, ids=named)
def test_what_computes_something_else_is_left_alone(export: Export, tmp_path: Path) -> None:
    path = onnx_twins.decoder(DEFAULT_MODEL, tmp_path, export)
    prepared = prepare(Layout.find(path), CONFIG, WINDOW + 1)
    assert (prepared.graph, prepared.in_place) == (None, False)


def test_a_window_that_no_sequence_reaches_hides_nothing(tmp_path: Path) -> None:
    path = onnx_twins.decoder(DEFAULT_MODEL, tmp_path, Export(odd="window"))
    assert prepare(Layout.find(path), CONFIG, WINDOW).graph


def test_what_is_fused_already_is_only_told_of(tmp_path: Path) -> None:
    path = onnx_twins.decoder(DEFAULT_MODEL, tmp_path, Export(fused=True))
    prepared = prepare(Layout.find(path), CONFIG, 256)
    assert (prepared.graph, prepared.in_place) == (None, True)


def test_it_can_be_turned_off(twin: Path) -> None:
    assert prepare(Layout.find(twin), EngineConfig(onnx_fusion="off"), 256).graph is None


@pytest.mark.parametrize(
    "export", [Export(), Export(odd="norms"), Export(fused=True)], ids=["fused", "turned", "genai"]
)
def test_slots_that_come_go_and_move_say_what_they_say_alone(export: Export, tmp_path: Path) -> None:
    made = loaded(onnx_twins.decoder(DEFAULT_MODEL, tmp_path, export), slots=4, context_length=96)
    exported = loaded(tmp_path, slots=1, context_length=96, onnx_fusion="off")
    assert made.columns([0, 2]) == 3  # in place
    random = np.random.default_rng(3)
    texts: dict[int, list[int]] = {slot: [] for slot in range(4)}
    try:
        for number in range(60):
            slot, other = (int(one) for one in random.permutation(4)[:2])
            match number % 6:
                case 0:
                    made.clear(slot)
                    texts[slot] = [int(token) for token in random.integers(0, 1700, random.integers(1, 30))]
                    made.evaluate([Span(slot, 0, texts[slot], 1)])
                case 1 if texts[slot]:
                    assert made.copy(slot, other)
                    texts[other] = list(texts[slot])
                case 2 if texts[slot]:
                    data = made.save(slot)
                    assert data
                    assert made.restore(other, data)
                    texts[other] = list(texts[slot])
                case 3 if len(texts[slot]) > 1:
                    texts[slot] = texts[slot][: int(random.integers(1, len(texts[slot])))]
                    made.cut(slot, len(texts[slot]))
                case _:
                    spans = []
                    for running, text in texts.items():
                        count = 3 if running == slot and number % 2 else 1
                        if text and len(text) + count <= 96 and running != other:
                            new = [int(token) for token in random.integers(0, 1700, count)]
                            spans.append(Span(running, len(text), new, count))
                            text += new
                    if spans:
                        check(made.evaluate(spans).copy(), exported, [(texts[s.slot], s.logits) for s in spans])
    finally:
        made.close()
        exported.close()


def check(rows: NDArray[Any], exported: Backend, wanted: list[tuple[list[int], int]]) -> None:
    """Hold logits to those of whole texts, of which the last ones are wanted."""
    for text, count in wanted:
        exported.clear(0)
        alone = exported.evaluate([Span(0, 0, text, count)])
        assert np.abs(rows[:count] - alone).max() < 1e-3
        rows = rows[count:]
    assert not len(rows)
