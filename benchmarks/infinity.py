"""infinity, the embeddings server that ONNX models are compared with, over the same graph by the same onnxruntime.

It comes from the package index, pinned by hash, into an environment of its own: some 6 GB, most of it torch.
"""

import shutil
from pathlib import Path

from benchmarks.build import cache_folder, environment, locked
from benchmarks.loads import Load
from benchmarks.peers import MODEL, Server, Start

_LOCK = Path(__file__).with_name("infinity.txt")


def infinity(model: Path) -> Server:
    """The server over a model's folder, installed first if it is not there yet. Raises `BuildError`."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with locked(cache_folder() / "lock"):
        command = environment(_LOCK).with_name("infinity_emb")

    def start(load: Load, port: int, folder: Path) -> Start:
        # It finds a graph by its path from the folder that it was started in.
        shutil.copytree(model, folder, dirs_exist_ok=True)
        words = ["v2", "--model-id", ".", "--served-model-name", MODEL, "--engine", "optimum", "--device", "cpu"]
        words += ["--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1"]
        quiet = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
        return Start([str(command), *words], {**quiet, "HF_HOME": str(folder / "hub")})

    return Server("infinity", "infinity", "/health", start, lambda _: "")
