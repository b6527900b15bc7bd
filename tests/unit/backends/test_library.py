"""Which CPU library is loaded."""

import threading
import time
from pathlib import Path

import pytest

from inferno_runtime.backends.llama_cpp import library
from inferno_runtime.backends.llama_cpp.library import choose_variant, miscompiles_amx
from inferno_runtime.backends.llama_cpp.model import explain


@pytest.mark.parametrize(
    ("comment", "broken"),
    [
        (b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0", True),
        (b"GCC: (GNU) 11.4.0", True),
        (b"GCC: (GNU) 12.4.0", False),
        (b"GCC: (GNU) 13.2.0", True),
        (b"GCC: (Ubuntu 13.3.0-6ubuntu2) 13.3.0", False),
        (b"GCC: (GNU) 14.1.0", False),
        (b"GCC: (Debian 12.2.0-14) 12.2.0\0Debian clang version 19.1.7", False),
        (b"nothing of note", False),
    ],
)
def test_a_compiler_with_the_amx_bug_is_recognised(tmp_path: Path, comment: bytes, broken: bool) -> None:
    path = tmp_path / "libggml-cpu.so"
    path.write_bytes(b"\x7fELF" + b"\0" * 100 + comment + b"\0")
    assert miscompiles_amx(path) is broken


@pytest.mark.parametrize(
    ("scores", "broken", "chosen"),
    [
        ({"haswell": 30, "zen4": 60, "sapphirerapids": 0}, True, "zen4"),
        ({"haswell": 30, "icelake": 60, "sapphirerapids": 90}, False, "sapphirerapids"),
        ({"haswell": 30, "icelake": 60, "sapphirerapids": 90}, True, "icelake"),
        ({"haswell": 30, "icelake": 0, "sapphirerapids": 0}, True, "haswell"),
    ],
)
def test_the_best_sound_library_is_chosen(
    monkeypatch: pytest.MonkeyPatch, scores: dict[str, int], broken: bool, chosen: str
) -> None:
    paths = [Path(f"libggml-cpu-{name}.so") for name in scores]
    monkeypatch.setattr(library, "_score", lambda path: scores[path.stem.removeprefix("libggml-cpu-")])
    monkeypatch.setattr(library, "miscompiles_amx", lambda path: broken)
    assert choose_variant(paths) == Path(f"libggml-cpu-{chosen}.so")


def test_a_machine_that_no_library_suits_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_score", lambda path: 0)
    with pytest.raises(ImportError, match="suits this machine"):
        choose_variant([Path("libggml-cpu-zen4.so")])


def test_the_installed_library_chose_one_that_rates_itself_best() -> None:
    loaded = library.load()
    folder = Path(str(loaded.api.__file__)).parent / "lib"
    scores = {path.stem.removeprefix("libggml-cpu-"): library._score(path) for path in folder.glob("libggml-cpu-*.so")}
    assert scores[loaded.cpu_variant] > 0
    sound = {name: score for name, score in scores.items() if name != "sapphirerapids"}
    assert loaded.cpu_variant == "sapphirerapids" or scores[loaded.cpu_variant] == max(sound.values())


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            [
                "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'xyz'",
                "llama_model_load_from_file_impl: failed to load model",
            ],
            "error loading model architecture: unknown model architecture: 'xyz'",
        ),
        ([], "libllama could not load the model and gave no reason"),
        (["common: odd"], "odd"),
    ],
)
def test_a_failed_load_is_explained_in_one_line(lines: list[str], cause: str) -> None:
    assert explain(lines) == cause


def test_models_that_are_opened_together_load_the_library_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    most: list[int] = []

    def fake() -> None:
        inside.append(1)
        time.sleep(0.001)  # gives the others every chance
        most.append(len(inside))
        inside.pop()

    monkeypatch.setattr(library, "_load", fake)
    threads = [threading.Thread(target=library.load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
