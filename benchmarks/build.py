"""Builds what Inferno is compared with, once, into the user's cache folder.

llama-server, llama-batched-bench and llama-bench are compiled from llama-cpp-python's own source distribution, in the
version and with the hash that requirements/runtime.txt pins. They are linked against the very libraries that Inferno
runs on, with the one CPU library that it chooses; so are the two Python servers. What is compared is the servers alone.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loads import Load
from benchmarks.model import make, make_encoder
from inferno_runtime.backends.llama_cpp.library import choose_variant

ROOT = Path(__file__).resolve().parent.parent
_HERE = Path(__file__).resolve().parent
_PROGRAMS = ("llama-server", "llama-batched-bench", "llama-bench")
_HEARTBEAT = 30.0  # seconds


class BuildError(Exception):
    """Something could not be built; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Built:
    """Where everything is. `programs` holds binaries and libraries; `python` has what the Python servers import."""

    programs: Path
    python: Path
    site: Path  # for PYTHONPATH: llama_cpp over the libraries in `programs`
    example_server: Path
    model: Path
    encoder: Path
    version: str  # of llama-cpp-python
    kernels: str  # which CPU library

    def model_for(self, load: Load) -> Path:
        """The model that a load asks."""
        return self.encoder if load.embeds else self.model


def build() -> Built:
    """Everything that a comparison needs, built first where it is not there yet. Raises `BuildError`."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        version, digest = pinned((ROOT / "requirements" / "runtime.txt").read_text())
        libraries = _installed_libraries()
        variants = sorted(libraries.glob("libggml-cpu-*.so"))
        chosen = choose_variant(variants) if variants else None
        python = environment(_HERE / "requirements.txt")
        source = _source(cache, python, version, digest)
        programs = _programs(cache, source, libraries, chosen, python)
        llama = source / "vendor" / "llama.cpp"
        model = make(llama, cache / "model")
        return Built(
            programs=programs,
            python=python,
            site=_site(programs, source),
            example_server=source / "examples" / "server" / "server.py",
            model=model,
            encoder=make_encoder(llama, model),
            version=version,
            kernels=chosen.stem.removeprefix("libggml-cpu-") if chosen else "native",
        )


def cache_folder() -> Path:
    """Where builds are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "inferno", "bench")


def environment(lock: Path) -> Path:
    """A Python with the packages that a lock pins, for it alone. Raises `BuildError`."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"venv-{_key(lock.read_bytes(), sys.version.encode())}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _say(f"installing the packages of {lock.name}")
        _run([sys.executable, "-m", "venv", str(folder)], cache)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], cache)
        (folder / "complete").touch()
    return python


def pinned(lock: str) -> tuple[str, str]:
    """The version and the SHA-256 of llama-cpp-python's source distribution in a lock. Raises `BuildError`."""
    entry = re.search(
        r"^llama-cpp-python==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)", lock, re.MULTILINE
    )
    hashes = re.findall(r"[0-9a-f]{64}", entry[2]) if entry else []
    if entry is None or len(hashes) != 1:
        raise BuildError("requirements/runtime.txt does not pin llama-cpp-python by one hash")
    return entry[1], hashes[0]


def keep_one_copy(source: Path, target: Path, skip: frozenset[str] = frozenset()) -> None:
    """Copy the shared libraries of a folder; where several names hold the same file, all but one become links.

    Two copies of one library in a process are two libraries, each with its own list of backends.
    """
    names: dict[str, list[str]] = {}
    for path in sorted(source.glob("*.so*")):
        if path.name not in skip:
            names.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(path.name)
    for same in names.values():
        longest = max(same, key=len)
        shutil.copyfile(source / longest, target / longest)
        for name in same:
            if name != longest:
                (target / name).symlink_to(longest)


def _installed_libraries() -> Path:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("llama-cpp-python is not installed")
    return Path(spec.submodule_search_locations[0]) / "lib"


def _source(cache: Path, python: Path, version: str, digest: str) -> Path:
    """The unpacked source distribution."""
    folder = cache / f"llama_cpp_python-{version}-{digest[:12]}"
    if not folder.exists():
        _say(f"fetching the sources of llama-cpp-python {version}")
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            wanted = Path(temporary, "wanted.txt")
            wanted.write_text(f"llama-cpp-python=={version} --hash=sha256:{digest}\n")
            pip = [str(python), "-m", "pip", "download", "-q", "--disable-pip-version-check"]
            _run([*pip, "--no-deps", "--no-binary", "llama-cpp-python", "-r", str(wanted), "-d", temporary], cache)
            (archive,) = Path(temporary).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
            (unpacked,) = (path for path in Path(temporary).iterdir() if path.is_dir())
            unpacked.rename(folder)
    return folder


def _programs(cache: Path, source: Path, libraries: Path, chosen: Path | None, python: Path) -> Path:
    """The folder with llama.cpp's programs and the libraries that they and everybody else run on."""
    project = _HERE / "native"
    identity = _key(
        (project / "CMakeLists.txt").read_bytes(),
        (libraries / "libllama.so").read_bytes(),
        (libraries / "libggml-base.so").read_bytes(),
        source.name.encode(),
        chosen.read_bytes() if chosen else b"",
    )
    folder = cache / f"programs-{identity}"
    if folder.exists():
        return folder
    _say("building llama-server and llama-batched-bench, once: some 4 minutes on two quiet cores")
    tools = python.parent
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        result = Path(temporary, "result")
        result.mkdir()
        other = {path.name for path in libraries.glob("libggml-cpu-*.so") if path != chosen}
        own = {path.name for path in libraries.glob("libmtmd.so*")}  # which llama-server is built with
        keep_one_copy(libraries, result, skip=frozenset(other | own))
        work = Path(temporary, "work")
        configure = [str(tools / "cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-S", str(project)]
        configure += ["-B", str(work), "-DCMAKE_BUILD_TYPE=Release", f"-DLIBRARIES={result}"]
        _run([*configure, f"-DLLAMA={source / 'vendor' / 'llama.cpp'}"], cache)
        jobs = len(os.sched_getaffinity(0))
        _run(["nice", "-n", "19", str(tools / "ninja"), "-C", str(work), "-j", str(jobs), "peers"], cache)
        keep_one_copy(work / "bin", result)
        for name in _PROGRAMS:
            shutil.copy2(work / "bin" / name, result / name)
        result.rename(folder)
    return folder


def _site(programs: Path, source: Path) -> Path:
    """A folder with the package llama_cpp as it stands in the sources, over the libraries in `programs`."""
    site = programs / "site"
    if not site.exists():
        part = programs / "site.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source / "llama_cpp", part / "llama_cpp", ignore=shutil.ignore_patterns("lib", "__pycache__"))
        (part / "llama_cpp" / "lib").symlink_to(Path("..", ".."))
        part.rename(site)
    return site


def _key(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _run(command: list[str], cache: Path) -> None:
    """Run a command quietly, with a sign of life now and then. Raises `BuildError` with what it printed last."""
    began = time.monotonic()
    with tempfile.TemporaryFile(dir=cache) as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while True:
                try:
                    status = process.wait(_HEARTBEAT)
                    break
                except subprocess.TimeoutExpired:
                    _say(f"  … {time.monotonic() - began:.0f} s")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        log.seek(0)
        if status:
            raise BuildError(
                f"{Path(command[0]).name} ended with {status}:\n{log.read().decode(errors='replace')[-4000:]}"
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that is building")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(build())
