"""From `kubectl apply` to an answer: what the operator has made runs, as it stands, and serves the model.

There is no kubelet here, so the test does by hand what one does: it lays out the volumes and runs the container's command
with its arguments. Paths and the port are its own; nothing else is changed.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.cluster.waiting import until
from tests.operator.conftest import ROOT
from tests.operator.namespace import Namespace
from tests.operator.process import OperatorProcess

EXAMPLE = ROOT / "examples" / "tiny.yaml"
READY = re.compile(r"^Serving tiny at http://0\.0\.0\.0:(\d+)/v1$")


def lay_out_volumes(pod: dict[str, Any], namespace: Namespace, root: Path) -> dict[str, Path]:
    """The container's mounts as folders; returns the folder of each mount path."""
    folders = {}
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in pod["containers"][0]["volumeMounts"]:
        folder = folders[mount["mountPath"]] = root / mount["name"]
        folder.mkdir()
        source = sources[mount["name"]]
        if "configMap" in source:
            for key, text in namespace.get("configmap", source["configMap"]["name"])["data"].items():
                (folder / key).write_text(text)
        elif "persistentVolumeClaim" in source:
            assert source["persistentVolumeClaim"]["claimName"] == "models"
            shutil.copy(DEFAULT_MODEL, folder)
        else:
            assert "emptyDir" in source
    return folders


@contextmanager
def run_container(pod: dict[str, Any], folders: dict[str, Path]) -> Iterator[int]:
    """The container as a process of this machine; gives the port that it listens on."""

    paths = re.compile("|".join(f"(?<![\\w]){re.escape(path)}(?=/)" for path in folders))

    def here(text: str) -> str:
        return paths.sub(lambda found: str(folders[found[0]]), text)

    for file in (path for folder in folders.values() for path in folder.glob("*.yaml")):
        file.write_text(here(file.read_text()))
    arguments = [here(argument) for argument in pod["containers"][0]["args"]]
    assert arguments[-2:] == ["--port", "8000"]
    command = [sys.executable, "-m", "inferno_runtime", *arguments[:-1], "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = READY.match(process.stdout.readline().strip())
        assert said, "the server did not say where it listens"
        yield int(said[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_example_becomes_a_pod_that_answers(
    namespace: Namespace, operator: OperatorProcess, tmp_path: Path
) -> None:
    namespace.kubectl("apply", f"--filename={EXAMPLE}")
    deployment = until("the Deployment", lambda: namespace.get("deployment", "tiny"))
    pod = deployment["spec"]["template"]["spec"]
    with run_container(pod, lay_out_volumes(pod, namespace, tmp_path)) as port:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused")
        stream = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
            stream=True,
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "Paris" in text
