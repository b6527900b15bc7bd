"""Where the binaries come from, without building them."""

import dataclasses
from pathlib import Path

import pytest

from tests.cluster import build, gotoolchain


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8\n", (1, 26, 8)), ("1.26", (1, 26, 0)), ("go1.27rc1", (1, 27, 0)), ("devel +abc", ()), ("", ())],
)
def test_versions_of_go(text: str, version: tuple[int, ...]) -> None:
    assert gotoolchain.parse_version(text) == version


def test_a_go_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    assert gotoolchain.version_of(tmp_path / "go") == ()


def test_a_build_is_named_by_what_it_is_built_from() -> None:
    assert len({program.key for program in build.PROGRAMS}) == len(build.PROGRAMS)
    assert build.CONTROL_PLANE.key == dataclasses.replace(build.CONTROL_PLANE).key
    assert build.CONTROL_PLANE.key != dataclasses.replace(build.CONTROL_PLANE, names=()).key


def test_the_control_plane_is_one_version_throughout() -> None:
    """k8s.io/kubernetes v1.X.Y goes with v0.X.Y of all the modules that it replaces."""
    replaced = build.CONTROL_PLANE.module.joinpath("go.mod").read_text().split("replace (")[1]
    versions = {line.split()[-1] for line in replaced.splitlines() if "=>" in line}
    assert versions == {build.CONTROL_PLANE.version.replace("v1.", "v0.")}


def test_assets_win_over_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    for name in build.REQUIRED_ASSETS:
        (tmp_path / name).touch(mode=0o755)
    assert build.control_plane() == tmp_path


def test_assets_that_lack_something_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (tmp_path / "etcd").touch(mode=0o755)
    with pytest.raises(build.BuildError, match="no kube-apiserver, no kubectl"):
        build.control_plane()


def test_a_build_that_fails_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho undefined: answer >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "find_go", lambda *_: go)
    with pytest.raises(build.BuildError, match="undefined: answer"):
        build.helm()
    assert [path.name for path in (tmp_path / "cache" / "inferno" / "helm").iterdir()] == ["lock"]


def test_a_build_is_made_once_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    go = tmp_path / "go"
    go.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho made > "$2"\n')
    go.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "find_go", lambda *_: go)
    monkeypatch.setattr(build, "UNUSED_SECONDS", -1.0)
    older = tmp_path / "cache" / "inferno" / "controlplane" / "0123456789abcdef"
    older.mkdir(parents=True)
    first = build.build(build.CONTROL_PLANE, said.append)
    assert not older.exists()
    assert (first / "kubectl").read_text() == "made\n"
    assert len(said) == 2
    assert build.build(build.CONTROL_PLANE, said.append) == first
    assert len(said) == 2
