"""The memory limit, and what is left of it."""

from pathlib import Path

import pytest

from inferno_runtime.memory import memory_available, memory_limit
from tests.unit.test_cpu import tree

GIB = 1 << 30
POD = "kubepods/pod7"
V1_UNLIMITED = "9223372036854771712"


def v2(folder: str, limit: int | str, current: int = 0, inactive: int = 0) -> dict[str, str]:
    return {
        f"{folder}memory.max": str(limit),
        f"{folder}memory.current": str(current),
        f"{folder}memory.stat": f"anon 1\ninactive_file {inactive}\nactive_file 12345",
    }


def v1(folder: str, limit: int | str, usage: int = 0, inactive: int = 0) -> dict[str, str]:
    return {
        f"{folder}memory.limit_in_bytes": str(limit),
        f"{folder}memory.usage_in_bytes": str(usage),
        f"{folder}memory.stat": f"inactive_file 7\nactive_file 3\ntotal_inactive_file {inactive}",
    }


@pytest.mark.parametrize(
    ("membership", "files", "limit", "available"),
    [
        pytest.param("0::/\n", {}, 16 * GIB, 10 * GIB, id="no cgroups"),
        pytest.param("0::/\n", v2("", "max", GIB), 16 * GIB, 10 * GIB, id="v2 without a limit"),
        pytest.param("0::/\n", v2("", 4 * GIB, 3 * GIB, GIB), 4 * GIB, 2 * GIB, id="v2"),
        pytest.param("0::/\n", v2("", 64 * GIB), 16 * GIB, 10 * GIB, id="the machine has less"),
        pytest.param("0::/\n", v2("", 12 * GIB), 12 * GIB, 10 * GIB, id="the machine's neighbours use it"),
        pytest.param("0::/\n", v2("", GIB, 2 * GIB), GIB, 0, id="over the limit"),
        pytest.param("0::/\n", {"memory.max": str(GIB)}, GIB, GIB, id="v2 without its use"),
        pytest.param("0::/\n", {"memory.max": "many"}, 16 * GIB, 10 * GIB, id="v2 unreadable"),
        pytest.param(
            f"0::/{POD}/app\n",
            v2(f"{POD}/app/", 4 * GIB, GIB) | v2(f"{POD}/", 5 * GIB, 4 * GIB),
            4 * GIB,
            GIB,
            id="v2, the pod's other container leaves less",
        ),
        pytest.param(
            f"0::/{POD}/app\n",
            v2(f"{POD}/app/", "max", GIB) | v2("kubepods/", 2 * GIB, GIB),
            2 * GIB,
            GIB,
            id="v2, only the root's",
        ),
        pytest.param("5:memory:/a\n0::/\n", v1("memory/a/", V1_UNLIMITED, GIB), 16 * GIB, 10 * GIB, id="v1 without"),
        pytest.param("5:memory:/a\n0::/\n", v1("memory/a/", 4 * GIB, 3 * GIB, GIB), 4 * GIB, 2 * GIB, id="v1"),
        pytest.param(
            "5:memory:/docker/abc\n", v1("memory/", 3 * GIB, GIB), 3 * GIB, 2 * GIB, id="v1, told the host's path"
        ),
        pytest.param("5:cpu:/a\n", v1("memory/", GIB), 16 * GIB, 10 * GIB, id="v1, not under that controller"),
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int, available: int
) -> None:
    root, proc = tree(tmp_path, files, membership)
    (proc / "meminfo").write_text(f"MemTotal: {16 << 20} kB\nMemFree: 12 kB\nMemAvailable: {10 << 20} kB\n")
    assert memory_limit(root, proc) == limit
    assert memory_available(root, proc) == available


def test_without_meminfo_the_machine_is_asked(tmp_path: Path) -> None:
    assert memory_limit(tmp_path, tmp_path) == memory_available(tmp_path, tmp_path) > 0


def test_this_machine_has_memory_for_us() -> None:
    assert 0 < memory_available() <= memory_limit()
