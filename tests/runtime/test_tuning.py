"""Measuring the real tiny model. What the figures are is this machine's business; that they come is ours."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inferno_runtime.models
from inferno_runtime.backends.llama_cpp.library import Library, load
from inferno_runtime.backends.llama_cpp.model import open_model
from inferno_runtime.backends.llama_cpp.tune import Bench, library_facts
from inferno_runtime.cpu import cpu_facts
from inferno_runtime.engine.tuning import (
    Candidate,
    Options,
    choose,
    fingerprint,
    key,
    places,
    recall,
    remember,
)

MODEL = Path(inferno_runtime.models.__file__).parent / "inferno-tiny-Q8_0.gguf"
FIRST = Candidate(flash_attention=True, threads=1, micro_batch=512)
LONG = 600.0  # seconds; no measurement of this model needs as many


@pytest.fixture(scope="module")
def library() -> Library:
    return load()


@pytest.fixture(scope="module")
def model(library: Library) -> Iterator[Any]:
    handle = open_model(library, MODEL, vocabulary_only=False)
    yield handle
    library.api.llama_model_free(handle)


def bench(library: Library, model: Any, **settings: Any) -> Bench:
    return Bench(library, model, **{"first": FIRST, "slots": 4, "context": 1024, "kv_cache_type": "f16", **settings})


@pytest.mark.parametrize(
    "candidate",
    [
        FIRST,
        FIRST._replace(flash_attention=False),
        FIRST._replace(micro_batch=128),
        Candidate(flash_attention=False, threads=1, micro_batch=100),
    ],
)
@pytest.mark.parametrize(("slots", "context"), [(1, 1024), (4, 256), (16, 1024)])
def test_every_setting_can_be_measured(
    library: Library, model: Any, candidate: Candidate, slots: int, context: int
) -> None:
    with bench(library, model, slots=slots, context=context) as measuring:
        for each in (FIRST, candidate, candidate):
            if each.micro_batch == 512 or context == 1024:
                rates = measuring.measure(each, LONG)
                assert rates is not None
                assert all(rate > 0 for rate in rates)


def test_the_number_of_threads_changes_between_measurements(library: Library, model: Any) -> None:
    with bench(library, model, slots=1, context=300) as measuring:  # little work: the other cores are other tests'
        for threads in (1, 2, 1):
            assert measuring.measure(FIRST._replace(threads=threads), LONG)


def test_settings_that_come_to_the_same_are_not_told_apart(library: Library, model: Any) -> None:
    with bench(library, model, context=256) as measuring:  # no room for a prompt beyond 128 tokens
        assert measuring.measure(FIRST, LONG)
        assert measuring.measure(FIRST._replace(micro_batch=256), LONG) is None


def test_a_measurement_is_broken_off_and_the_next_one_is_sound(
    library: Library, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with bench(library, model) as measuring:
        assert measuring.measure(FIRST, 1e-9) is None
        assert measuring.measure(FIRST, LONG)
        assert measuring.measure(FIRST._replace(flash_attention=False), 1e-9) is None
        assert measuring.measure(FIRST._replace(flash_attention=False), LONG)
    assert not caplog.records
    assert not library.recent_errors


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"context": 32, "slots": 1}, id="no room"),
        pytest.param({"kv_cache_type": "q8_0", "first": FIRST._replace(flash_attention=False)}, id="no kernel"),
    ],
)
def test_what_cannot_be_measured_is_no_error(library: Library, model: Any, settings: dict[str, Any]) -> None:
    with bench(library, model, **settings) as measuring:
        assert measuring.measure(settings.get("first", FIRST), LONG) is None


def test_from_the_model_to_what_is_remembered(library: Library, model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shutil.copyfile(MODEL, path)
    among = Options(flash_attention=(True, False), threads=(1,), micro_batch=(512,))
    facts = {"model": fingerprint(path), "cpu": cpu_facts(), **library_facts(library)}
    files = places(path, {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    with bench(library, model, first=among.default) as measuring:
        chosen = choose(measuring.measure, among, budget=LONG, clock=time.monotonic)
    assert chosen.rates
    assert chosen.measurements >= 2
    assert remember(files, facts, chosen) == tmp_path / "model.gguf.tuning.json"
    recalled = recall(files, key(facts), among)
    assert recalled
    assert str(recalled).split(" (")[0] == str(chosen).split(" (")[0]
