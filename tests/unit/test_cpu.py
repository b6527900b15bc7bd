"""The CPU, and the quota of it."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from inferno_runtime.cpu import AvailableCores, IdleCores, cpu_facts, cpu_limit, cpu_quota

POD = "/kubepods.slice/pod7/app"
V1 = "4:memory:/pod7/app\n3:cpu,cpuacct:/pod7/app\n2:cpuset:/elsewhere\n"


def tree(folder: Path, files: Mapping[str, str], membership: str) -> tuple[Path, Path]:
    """A folder of cgroups and one like /proc."""
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "self" / "cgroup").write_text(membership)
    return folder / "cgroup", folder / "proc"


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        pytest.param("0::/\n", {}, 8, id="no cgroups"),
        pytest.param("", {"cpu.max": "200000 100000"}, 2, id="no membership"),
        pytest.param("0::/\n", {"cpu.max": "max 100000"}, 8, id="v2 without a quota"),
        pytest.param("0::/\n", {"cpu.max": "200000 100000"}, 2, id="v2, a namespace of its own"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000"}, 0.5, id="v2, half a CPU"),
        pytest.param("0::/\n", {"cpu.max": "1600000 100000"}, 8, id="affinity is less"),
        pytest.param("0::/\n", {"cpu.max": "nonsense"}, 8, id="v2 unreadable"),
        pytest.param("0::/\n", {"cpu.max": "-5 100000"}, 8, id="v2 negative"),
        pytest.param(f"0::{POD}\n", {f"{POD[1:]}/cpu.max": "150000 100000"}, 1.5, id="v2, the process's own"),
        pytest.param(
            f"0::{POD}\n",
            {f"{POD[1:]}/cpu.max": "max 100000", "kubepods.slice/pod7/cpu.max": "300000 100000"},
            3,
            id="v2, the parent's",
        ),
        pytest.param(
            f"0::{POD}\n",
            {f"{POD[1:]}/cpu.max": "400000 100000", "kubepods.slice/cpu.max": "300000 100000"},
            3,
            id="v2, the grandparent's is less",
        ),
        pytest.param(f"0::{POD}\n", {"other/cpu.max": "100000 100000"}, 8, id="v2, a stranger's"),
        pytest.param("0::/../other\n", {"cpu.max": "200000 100000"}, 2, id="v2, above the namespace"),
        pytest.param("0::/a\n", {"unified/a/cpu.max": "200000 100000"}, 2, id="v2 beside v1"),
        pytest.param(
            V1, {"cpu/pod7/app/cpu.cfs_quota_us": "-1", "cpu/pod7/app/cpu.cfs_period_us": "100000"}, 8, id="v1 without"
        ),
        pytest.param(
            V1, {"cpu/pod7/app/cpu.cfs_quota_us": "350000", "cpu/pod7/app/cpu.cfs_period_us": "100000"}, 3.5, id="v1"
        ),
        pytest.param(
            V1,
            {"cpu,cpuacct/pod7/cpu.cfs_quota_us": "250000", "cpu,cpuacct/pod7/cpu.cfs_period_us": "100000"},
            2.5,
            id="v1, the parent's, by the long name",
        ),
        pytest.param(
            V1,
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            2,
            id="v1, a container that is told the host's path",
        ),
    ],
)
def test_the_smallest_of_quotas_and_affinity_counts(
    tmp_path: Path, membership: str, files: dict[str, str], limit: float
) -> None:
    root, proc = tree(tmp_path, files, membership)
    assert cpu_limit(root, allowed=8, proc=proc) == limit
    assert cpu_quota(root, allowed=8, proc=proc) == max(1, int(limit))


def test_this_machine_has_a_cpu_for_us() -> None:
    assert 1 <= cpu_quota() <= max(1, cpu_limit())


@pytest.mark.parametrize(
    ("cpuinfo", "facts"),
    [
        ("", {}),
        (
            "processor\t: 0\nvendor_id\t: A\nmodel name\t: A: B\ncpu MHz\t: 1234\nflags\t\t: fpu avx\n\n"
            "processor\t: 1\nmodel name\t: other\n",
            {"vendor_id": "A", "model name": "A: B", "flags": "fpu avx"},
        ),
        (
            "processor\t: 0\nBogoMIPS\t: 5\nFeatures\t: fp sve\nCPU part\t: 0xd40\n",
            {"Features": "fp sve", "CPU part": "0xd40"},
        ),
    ],
)
def test_a_cpu_is_known_by_what_does_not_change(tmp_path: Path, cpuinfo: str, facts: dict[str, str]) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert cpu_facts(tmp_path) == facts


def test_idle_cores_are_counted_from_one_call_to_the_next(tmp_path: Path) -> None:
    stat, now = tmp_path / "stat", [0.0]
    idle = IdleCores(tmp_path, lambda: now[0])
    assert idle() == math.inf  # there is no such file
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu 1 2 3 {10 * ticks} {5 * ticks} 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1\n")
    assert idle() == math.inf  # and now there is, but nothing to compare it with
    now[0] = 2.0
    stat.write_text(f"cpu 1 2 3 {12 * ticks} {6 * ticks} 0 0 0 0 0\n")
    assert idle() == pytest.approx(1.5)
    stat.write_text("nonsense\n")
    assert idle() == math.inf


def test_available_cores_are_those_that_were_used_and_those_that_were_idle() -> None:
    idle, used, now = [0.0], [0.0], [0.0]
    available = AvailableCores(lambda: idle[0], lambda: now[0], lambda: used[0])
    assert available() == math.inf
    idle[0], used[0], now[0] = 0.5, 3.0, 2.0
    assert available() == pytest.approx(2.0)
    idle[0], now[0] = math.inf, 4.0
    assert available() == math.inf
