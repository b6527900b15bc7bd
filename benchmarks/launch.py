"""Starts a Python server with the CPU's kernels loaded: `launch.py FOLDER SCRIPT.py|MODULE ARGUMENTS…`.

llama-cpp-python does not load them itself where they are libraries of their own. It runs in the other servers'
environment, and so imports nothing of this repository.
"""

import ctypes
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Load the kernels, then become the server."""
    folder, target, *arguments = sys.argv[1:]
    ggml = ctypes.CDLL(str(Path(folder, "libggml.so")), mode=ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    for path in sorted(Path(folder).glob("libggml-cpu-*.so")):
        if not ggml.ggml_backend_load(str(path).encode()):
            sys.exit(f"{path} could not be loaded")
    sys.argv = [target, *arguments]
    if target.endswith(".py"):
        runpy.run_path(target, run_name="__main__")
    else:
        runpy.run_module(target, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
