"""How the other servers are built and started, as far as that is pure."""

import json
from pathlib import Path

import pytest

from benchmarks.build import ROOT, BuildError, Built, keep_one_copy, pinned
from benchmarks.loads import LOADS
from benchmarks.model import spoken_tokens
from benchmarks.peers import servers, speculation_off
from benchmarks.processes import proportional
from benchmarks.raw import RawRates, parse, rates
from benchmarks.targets import BEST, EXAMPLE, HIGH_LEVEL, LLAMA_SERVER

BUILT = Built(
    Path("/p"), Path("/v/bin/python"), Path("/s"), Path("/e.py"), Path("/m.gguf"), Path("/e.gguf"), "0", "zen4"
)


def test_the_lock_pins_the_sources() -> None:
    version, digest = pinned((ROOT / "requirements" / "runtime.txt").read_text())
    assert version[0].isdigit()
    assert len(digest) == 64


@pytest.mark.parametrize(
    "lock",
    [
        "",
        "llama-cpp-python==1.0 \\\n",
        f"llama-cpp-python==1.0 \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n",
    ],
    ids=["absent", "no hash", "two hashes"],
)
def test_a_lock_that_does_not_pin_is_refused(lock: str) -> None:
    with pytest.raises(BuildError):
        pinned(lock)


def test_one_copy_of_each_library(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in ("liba.so", "liba.so.0", "liba.so.0.1"):
        (source / name).write_bytes(b"a")
    (source / "libb.so").write_bytes(b"b")
    (source / "libc.so").write_bytes(b"c")
    keep_one_copy(source, target, skip=frozenset({"libc.so"}))
    assert sorted(path.name for path in target.iterdir()) == ["liba.so", "liba.so.0", "liba.so.0.1", "libb.so"]
    assert [path.name for path in sorted(target.iterdir()) if not path.is_symlink()] == ["liba.so.0.1", "libb.so"]
    assert (target / "liba.so").read_bytes() == b"a"


def test_best_flags_are_those_of_the_load() -> None:
    best: dict[str, tuple[str, ...]] = {"chat8": ("-fa", "on")}
    server = servers(BUILT, best)[BEST]
    assert server.shown_flags(LOADS["chat8"]) == "-np 8 -c 8192 -fa on"
    assert server.shown_flags(LOADS["chat1"]) == "-np 8 -c 8192 -fa off"
    best["chat1"] = ("-kvu",)
    assert server.shown_flags(LOADS["chat1"]) == "-np 8 -c 8192 -kvu"


def test_everybody_listens_on_loopback() -> None:
    load = LOADS["chat8"]
    known = servers(BUILT, {})
    for name in (LLAMA_SERVER, BEST, HIGH_LEVEL):
        command = known[name].start(load, 1234, Path("/tmp")).command
        assert command[command.index("--host") + 1] == "127.0.0.1"
        assert command[command.index("--port") + 1] == "1234"
    config = json.loads(known[EXAMPLE].start(load, 1234, Path("/tmp")).files["config.json"])
    assert config["server"] == {"host": "127.0.0.1", "port": 1234}
    assert (config["model"]["n_seq_max"], config["model"]["n_ctx"]) == (8, 8192)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ("  --slots INT  --threads INT", ()),
        ("  --speculation {auto,off}  whether …", ("--speculation", "off")),
        ("  --speculative-tokens INT  how many …", ("--speculative-tokens", "0")),
    ],
)
def test_the_flag_against_speculation(usage: str, expected: tuple[str, ...]) -> None:
    assert speculation_off(usage) == expected


def test_raw_rates() -> None:
    lines = 'noise\n{"pl": 1, "speed_pp": 900.0, "speed_tg": 100.0}\n{"pl": 8, "speed_pp": 1000.0, "speed_tg": 200.0}\n'
    more = '{"pl": 8, "speed_pp": 500.0, "speed_tg": 250.0}\n'
    found = rates(parse(lines + more))
    assert found == RawRates(1000.0, {1: 100.0, 8: 250.0})
    allowed = found.allow({"prompt_tokens": 1000.0, "tokens": 250.0}, 8)
    assert allowed["tokens_per_second"] == pytest.approx(125.0)
    assert "first_p99" not in allowed
    assert found.allow({"prompt_tokens": 1000.0, "tokens": 250.0}, 8, at_once=True)["first_p99"] == 1.0


def test_memory_of_a_file_counts_apart() -> None:
    smaps = (
        "7f00-7f10 r--s 00000000 00:01 5    /models/a model.gguf\nSize: 9 kB\nPss:    8 kB\nPss_Dirty:   0 kB\n"
        "7f20-7f30 rw-p 00000000 00:00 0 \nPss:   4 kB\n7f40-7f50 r-xp 00000000 00:01 6   /lib/x.so\nPss:    2 kB\n"
    )
    assert proportional(smaps, "/models/a model.gguf") == (14 * 1024, 8 * 1024)


def test_the_model_speaks_lower_case_words() -> None:
    assert spoken_tokens(["Ġthe", "the", "ĠThe", "Ġa", "Ġab", "Ġabc", "Ġ123", "Ġnaïve", "Ġfour"]) == [0, 5, 8]
