"""Choosing among settings on a machine that exists only as a table, and what is remembered of it."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inferno_runtime.engine import tuning
from inferno_runtime.engine.tuning import Candidate, Options, Rates, Tuning, choose, key, options, recall, remember

ALL = Options(flash_attention=(True, False), threads=(4, 2), micro_batch=(512, 256))
CHOSEN = Tuning(False, 2, 256, Rates(100.0, 210.5, 1600.25), 5, 1.5)
FACTS = {"model": "1-abc", "quota": 4}


class Machine:
    """Rates by setting, and a clock that moves while they are measured."""

    def __init__(self, speed: Callable[[Candidate, int], float | None], cost: float = 0.1) -> None:
        """speed: of a candidate at its so-manieth measurement, where the usual one is 1; cost: seconds of each."""
        self._speed = speed
        self._cost = cost
        self.now = 0.0
        self.measured: list[Candidate] = []
        self.given: list[float] = []

    def measure(self, candidate: Candidate, seconds: float) -> tuple[float, float, float] | None:
        speed = self._speed(candidate, self.measured.count(candidate))
        self.measured.append(candidate)
        self.given.append(seconds)
        self.now += self._cost
        return None if speed is None else (100 * speed, 200 * speed, 1000 * speed)

    def choose(self, among: Options = ALL, budget: float = 3.0) -> Tuning:
        return choose(self.measure, among, budget=budget, clock=lambda: self.now)


def test_a_typical_request_is_weighed() -> None:
    assert Rates(decode=64.0, batched=128.0, prefill=256.0).seconds == pytest.approx(1 + 0.5 + 1)
    # measured on a CPU with AMX at 800 tokens: flash attention makes prompts faster, and halves decoding
    assert Rates(78, 143, 850).seconds < Rates(40, 76, 1057).seconds


@pytest.mark.parametrize(
    ("speed", "chosen"),
    [
        pytest.param(lambda c, n: 1.0, Candidate(True, 4, 512), id="all the same"),
        pytest.param(lambda c, n: 1 + 0.04 * (not c.flash_attention), Candidate(True, 4, 512), id="within the noise"),
        pytest.param(lambda c, n: 2 - c.flash_attention, Candidate(False, 4, 512), id="flash attention is slow"),
        pytest.param(lambda c, n: 1 / c.threads, Candidate(True, 2, 512), id="threads are siblings"),
        pytest.param(lambda c, n: 1 / c.micro_batch, Candidate(True, 4, 256), id="small pieces"),
        pytest.param(
            lambda c, n: (2 - c.flash_attention) / c.threads / c.micro_batch, Candidate(False, 2, 256), id="everything"
        ),
        pytest.param(
            lambda c, n: 0.5 if n == 0 and c == ALL.default else 1.0, Candidate(True, 4, 512), id="disturbed at first"
        ),
        pytest.param(lambda c, n: None if not c.flash_attention else 1.0, Candidate(True, 4, 512), id="not supported"),
        pytest.param(
            lambda c, n: None if c.threads == 4 else 2 - c.flash_attention,
            Candidate(False, 2, 512),
            id="too many threads to come to an end",
        ),
        pytest.param(
            lambda c, n: None if n == 0 and c == ALL.default else c.threads / 4,
            Candidate(True, 4, 512),
            id="disturbed at first beyond measure",
        ),
        pytest.param(lambda c, n: float("inf"), Candidate(True, 4, 512), id="no time passed"),
        pytest.param(lambda c, n: 0.0, Candidate(True, 4, 512), id="no token came"),
    ],
)
def test_the_best_is_chosen(speed: Callable[[Candidate, int], float | None], chosen: Candidate) -> None:
    result = Machine(speed).choose()
    assert Candidate(result.flash_attention, result.threads, result.micro_batch) == chosen


def test_what_was_measured_is_told() -> None:
    machine = Machine(lambda c, n: 2 - c.flash_attention)
    result = machine.choose()
    assert result.rates == Rates(200, 400, 2000)
    assert result.measurements == len(machine.measured) == 5  # the default twice
    assert result.seconds == pytest.approx(0.5)
    assert str(result) == (
        "flash attention off, threads 4, micro-batch 512 (200 tokens/s decoding alone, 400 in company, 2000 prefilling; "
        "5 measurements in 0.5 s)"
    )


@pytest.mark.parametrize("speed", [1.0, None], ids=["slow", "never"])
def test_when_the_time_is_up_the_leader_stays(speed: float | None) -> None:
    machine = Machine(lambda c, n: speed and (speed + 0.2 * (c != ALL.default)), cost=2.0)
    result = machine.choose()
    assert len(machine.measured) == 2
    assert (result.flash_attention, result.threads, result.micro_batch) == (True, 4, 512)
    assert (result.rates is None) is (speed is None)
    assert all(given <= 3.0 / 5 for given in machine.given)
    assert not result.complete


def test_what_cannot_be_compared_leaves_nothing_to_look_for_again(tmp_path: Path) -> None:
    # Where there is time for short prompts only, pieces of 512 and of 256 are the same.
    machine = Machine(lambda c, n: None if c.micro_batch == 256 else 1.0)
    result = machine.choose()
    assert result.complete
    assert remember([tmp_path / "file"], FACTS, result)


def test_a_large_gain_needs_no_second_look_when_the_time_is_up() -> None:
    machine = Machine(lambda c, n: 1.0 + (c.threads == 2), cost=2.0)
    assert machine.choose().threads == 2


@pytest.mark.parametrize(("content", "measurements"), [(10.0, 1), (0.01, 5)], ids=["fast enough", "not so"])
def test_nobody_waits_for_what_nobody_would_notice(content: float, measurements: int) -> None:
    machine = Machine(lambda c, n: 2 - c.flash_attention)
    result = choose(machine.measure, ALL, budget=3.0, clock=lambda: machine.now, content=content)
    assert result.measurements == measurements
    assert result.flash_attention is (measurements == 1)
    assert result.rates


def test_what_is_decided_is_not_measured() -> None:
    among = options(8, flash_attention=False, threads=3, micro_batch=64)
    machine = Machine(lambda c, n: 1.0)
    assert machine.choose(among) == Tuning(False, 3, 64)
    assert machine.measured == []


@pytest.mark.parametrize(
    ("among", "expected"),
    [
        (options(1), Options((True, False), (1,), (512, 256, 128))),
        (options(2), Options((True, False), (2, 1), (512, 256, 128))),
        (options(7), Options((True, False), (7, 4), (512, 256, 128))),
        (options(2, kv_cache_type="q8_0"), Options((True,), (2, 1), (512, 256, 128))),
        (options(2, threads=5, flash_attention=False), Options((False,), (5,), (512, 256, 128))),
    ],
)
def test_the_options(among: Options, expected: Options) -> None:
    assert among == expected


def test_a_tuning_is_remembered_beside_the_model(tmp_path: Path) -> None:
    files = tuning.places(tmp_path / "m.gguf", {"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert recall(files, key(FACTS), ALL) is None
    assert remember(files, FACTS, CHOSEN) == tmp_path / "m.gguf.tuning.json"
    assert recall(files, key(FACTS), ALL) == CHOSEN
    assert recall(files, key({**FACTS, "quota": 2}), ALL) is None
    assert os.listdir(tmp_path) == ["m.gguf.tuning.json"]
    assert json.loads(files[0].read_text())["tunings"][key(FACTS)]["facts"] == FACTS


@pytest.mark.parametrize(
    "unknown", [Tuning(True, 4, 512), replace(CHOSEN, complete=False)], ids=["not measured", "cut short"]
)
def test_of_what_was_not_measured_nothing_is_remembered(tmp_path: Path, unknown: Tuning) -> None:
    assert remember([tmp_path / "file"], FACTS, unknown) is None
    assert os.listdir(tmp_path) == []


def test_where_the_model_lies_read_only_the_cache_is_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files = [tmp_path / "file" / "m.gguf.tuning.json", tmp_path / "cache" / "m.json"]  # a file has no children
    assert remember(files, FACTS, CHOSEN) == files[1]
    assert recall(files, key(FACTS), ALL) == CHOSEN
    assert remember(files[:1], FACTS, CHOSEN) is None


def test_two_models_of_one_name_are_told_apart_in_the_cache(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    one, other = (tuning.places(tmp_path / folder / "m.gguf", environment)[1] for folder in "ab")
    assert one.parent == other.parent == tmp_path / ".cache" / "inferno" / "tuning"
    assert one != other


def test_nothing_is_written_among_the_programs_own_files() -> None:
    model = Path(tuning.__file__).parents[1] / "models" / "m.gguf"
    assert {file.parent.name for file in tuning.places(model, {})} == {"tuning"}


def test_where_there_is_no_home_temporary_files_are_used(tmp_path: Path) -> None:
    """As in a pod, whose model lies read-only and whose user has none."""
    (tmp_path / "file").touch()
    home, temporary = tmp_path / "file" / "home", tmp_path / "tmp"
    files = tuning.places(tmp_path / "file" / "m.gguf", {"HOME": str(home), "TMPDIR": str(temporary)})
    written = remember(files, FACTS, CHOSEN)
    assert written is not None
    assert temporary in written.parents
    assert recall(files, key(FACTS), ALL) == CHOSEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 1, "tunings": []}',
        '{"version": 2, "tunings": {"KEY": {"tuning": {}}}}',
        '{"version": 1, "tunings": {"KEY": 5}}',
        '{"version": 1, "tunings": {"KEY": {"tuning": {"flashAttention": true}}}}',
        '{"version": 1, "tunings": {"KEY": {"tuning": {"flashAttention": true, "threads": 4000, "microBatch": 512,'
        ' "rates": null, "measurements": 1, "seconds": 1}}}}',
        '{"version": 1, "tunings": {"KEY": {"tuning": {"flashAttention": true, "threads": 4, "microBatch": 512,'
        ' "rates": {"decode": "fast"}, "measurements": 1, "seconds": 1}}}}',
        "\ud800",
        " " * (2 << 20),
    ],
    ids=lambda text: text[:40],
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "m.gguf.tuning.json"
    file.write_bytes(text.replace("KEY", key(FACTS)).encode("utf-8", "surrogatepass"))
    assert recall([file], key(FACTS), ALL) is None
    assert remember([file], FACTS, CHOSEN) == file
    assert recall([file], key(FACTS), ALL) == CHOSEN


def test_a_file_remembers_several_machines_and_forgets_the_oldest(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for quota in range(40):
        remember([file], {"quota": quota}, CHOSEN)
    known = [quota for quota in range(40) if recall([file], key({"quota": quota}), ALL)]
    assert known == list(range(8, 40))


def test_a_file_is_readable_for_pods_of_another_user(tmp_path: Path) -> None:
    remember([tmp_path / "file"], FACTS, CHOSEN)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_model_is_known_by_its_size_its_beginning_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "model"

    def of(content: bytes) -> str:
        path.write_bytes(content)
        return tuning.fingerprint(path)

    content = bytes(300_000)
    same = of(content)
    assert of(content) == same  # written again
    assert len({same, of(content + b"\0"), of(b"x" + content[1:]), of(content[1:] + b"x"), of(b""), of(b"x")}) == 6
