"""The operator's image carries none of the clients that are generated for each kind of the Kubernetes API."""

import json
import os
import subprocess
import sys
from pathlib import Path

# As where these modules were deleted.
PROGRAM = """
import asyncio, sys

class Deleted:
    def find_spec(self, name, path=None, target=None):
        if ".client.api." in name or ".client.models." in name:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Deleted())
from inferno_operator import app, cluster

async def connect():
    async with cluster.connect(lambda: None) as connected:
        print(repr(await connected.log_tail("default", "tiny", "fetch")))

asyncio.run(connect())
"""


def test_it_connects_without_them(tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "''\n"), done.stderr
