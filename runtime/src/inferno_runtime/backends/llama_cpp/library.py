"""Loads libllama, with the CPU kernels that suit this machine.

A build with ``GGML_CPU_ALL_VARIANTS`` carries a library for each generation of CPUs. ggml would pick the best one itself;
it is done here because one of them may be broken: GCC before 12.4 and 13.3 drops the stores behind ``_tile_loadconfig``
(GCC bug 114098), and code for AMX that it compiled dies at the first batch of a quantised model. Such a library is passed
over, and where it is the only one its AMX kernels are left unused.
"""

import ctypes
import functools
import importlib
import importlib.util
import logging
import mmap
import re
import sys
import threading
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from inferno_runtime.models.errors import ModelError

logger = logging.getLogger(__name__)

_GCC = re.compile(rb"GCC: \([^)]{0,100}\) (\d+)\.(\d+)\.\d+")
_COMPLAINTS = (3, 4)  # of ggml_log_level: warning and error
_MAX_REMEMBERED = 32
_loading = threading.Lock()
_callbacks: list[object] = []  # the library holds bare pointers to them


@dataclass(frozen=True)
class Library:
    """The loaded library. `api` is the module whose functions are libllama's."""

    api: ModuleType
    cpu_variant: str
    extra_buffers: bool  # whether repacked and AMX kernels may be used
    recent_errors: list[str]  # the library's last complaints, oldest first


def load() -> Library:
    """Load libllama once for the process. Raises `ImportError` when it is not installed."""
    with _loading:  # several models may be opened at the same time
        return _load()


@functools.cache
def load_vision() -> ModuleType:
    """The module of libmtmd's functions; libllama is loaded. Raises `ModelError` of a build without it."""
    try:
        vision = importlib.import_module("llama_cpp.mtmd_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(f"llama-cpp-python was built without libmtmd, and reads no images: {error}") from error
    callback = _callbacks[0]  # libllama's own
    vision.mtmd_helper_log_set(callback, None)
    return vision


@functools.cache
def _load() -> Library:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("llama-cpp-python is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    variants = sorted(folder.glob("libggml-cpu-*.so"))
    api = _bindings(spec)
    errors = _capture_log(api)
    if variants:
        chosen = choose_variant(variants)
        # Through libllama's own handle: a wheel holds copies where a build has links, and a library opened by another of
        # its names is another library, with a list of backends that libllama never looks at.
        ggml = api._lib
        ggml.ggml_backend_load.restype = ctypes.c_void_p
        ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
        for path in (chosen, *_accelerators(folder)):
            if not ggml.ggml_backend_load(str(path).encode()):
                raise ImportError(f"{path} could not be loaded")
        api.llama_backend_init()
        return Library(api, chosen.stem.removeprefix("libggml-cpu-"), True, errors)
    api.llama_backend_init()
    amx = b"AMX_INT8 = 1" in api.llama_print_system_info()
    broken = amx and any(miscompiles_amx(path) for path in folder.glob("libggml-cpu.so"))
    if broken:
        logger.warning("libllama was built by a GCC that miscompiles AMX: its repacked kernels are not used")
    return Library(api, "native", not broken, errors)


def _bindings(spec: ModuleSpec) -> ModuleType:
    """The module of libllama's functions, without the package around it, which imports numpy, a database and more."""
    if spec.name not in sys.modules:
        package = sys.modules[spec.name] = ModuleType(spec.name)
        package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations or ())
    return importlib.import_module(f"{spec.name}.llama_cpp")


def choose_variant(paths: list[Path]) -> Path:
    """The library with the best kernels for this CPU, as each of them rates itself."""
    scores = {path: _score(path) for path in paths}
    usable = [path for path in paths if scores[path] > 0]
    if not usable:
        raise ImportError(f"none of the CPU libraries in {paths[0].parent} suits this machine")
    sound = [path for path in usable if "sapphirerapids" not in path.name or not miscompiles_amx(path)]
    return max(sound or usable, key=lambda path: (scores[path], path.name))


def miscompiles_amx(path: Path) -> bool:
    """Whether a library was compiled by a GCC with bug 114098, by what compilers write into the file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"clang version") >= 0:
            return False  # the GCC named beside it compiled the start-up files only
        versions = [(int(major), int(minor)) for major, minor in _GCC.findall(data)]
    return any(version < (12, 4) or (13, 0) <= version < (13, 3) for version in versions)


def _accelerators(folder: Path) -> list[Path]:
    names = ("cuda", "hip", "vulkan", "sycl", "metal")
    return [path for name in names for path in sorted(folder.glob(f"libggml-{name}.so"))]


def _score(path: Path) -> int:
    score = ctypes.CDLL(str(path)).ggml_backend_score
    score.restype = ctypes.c_int
    return int(score())


def _capture_log(api: ModuleType) -> list[str]:
    """Send the library's log to ours, and remember its complaints: they are the cause when something fails."""
    errors: list[str] = []

    def on_log(level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in _COMPLAINTS and line:
            errors.append(line)
            del errors[:-_MAX_REMEMBERED]
        if line.strip("."):
            # Libraries speak to their developers: what matters of it is quoted by the error that follows.
            logger.debug("%s", line)

    callback = api.llama_log_callback(on_log)
    api.llama_log_set(callback, None)
    _callbacks.append(callback)
    return errors
