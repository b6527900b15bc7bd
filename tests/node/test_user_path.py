"""What a user does first, as the README says it, on a real node."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.sandbox import REPOSITORY
from tests.cluster.waiting import until
from tests.node import images
from tests.node.conftest import helm
from tests.node.connect import NodeCluster
from tests.node.place import Place
from tests.node.report import Results

README = (REPOSITORY / "README.md").read_text()
# Asks like examples/clients/curl.sh, whose program the image lacks, for a text in named events.
NAMED_EVENTS = """
import httpx, sys
query = {"model": sys.argv[2], "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}
with httpx.stream("GET", sys.argv[1] + "/stream/sse", params=query, timeout=60) as answer:
    answer.raise_for_status()
    print(*(line for line in answer.iter_lines() if line.startswith("event: ")), sep="\\n")
"""
FIRST_TOKEN = """
import httpx, sys, time
body = {"model": sys.argv[2], "stream": True, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
print("asking", flush=True)
while True:
    try:
        with httpx.stream("POST", sys.argv[1] + "/chat/completions", json=body, timeout=20) as answer:
            for line in answer.iter_lines():
                if '"content":"' in line and '"content":""' not in line:
                    print(time.time()), sys.exit()
    except httpx.HTTPError:
        pass
    time.sleep(0.1)  # more often would take the time of those that it asks
"""


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def quick_start() -> list[str]:
    """The commands of the README's section on Kubernetes."""
    (block,) = [block for block in blocks("console") if "helm install" in block]
    return [line.removeprefix("$ ").partition("  #")[0].strip() for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def user(cluster: NodeCluster) -> Iterator[Place]:
    """A person with a namespace in which *restricted* is enforced, and a claim with a model in it."""
    place = Place(cluster, f"quick-start-{os.getpid()}")
    place.claim()
    cluster.kubectl("config", "set-context", "--current", f"--namespace={place.name}")
    yield place
    cluster.kubectl("config", "set-context", "--current", "--namespace=default")
    cluster.kubectl("delete", "namespace", place.name, "--wait=false")


def say(user: Place, command: str) -> str:
    """What a command of the README prints, when a person types it."""
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, env=user.cluster.tools, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def test_the_quick_start_does_what_it_says(user: Place) -> None:
    build, install, apply, wait, get = quick_start()
    assert build == "make images"  # has been done: these are the images
    registry = f" --set registry={user.cluster.registry}" if user.cluster.registry != "localhost" else ""
    assert "deployed" in say(user, install + registry)
    assert "created" in say(user, apply)
    example = yaml.safe_load((REPOSITORY / apply.split()[-1]).read_text())
    assert yaml.safe_load(blocks("yaml")[0]) == example

    def ready() -> bool:
        # It waits for 30 seconds, and a slow machine is no fault.
        return subprocess.run(wait, shell=True, cwd=REPOSITORY, env=user.cluster.tools).returncode == 0

    until("the model to be ready", ready, 300)
    table = say(user, get).splitlines()
    assert table[0].split() == ["NAME", "READY", "REASON", "REPLICAS", "AVAILABLE", "URL", "AGE"]
    assert table[1].split()[:6] == ["tiny", "True", "Serving", "1", "1", user.url()]


def test_the_readmes_python_streams_an_answer_in_the_cluster(user: Place) -> None:
    (program,) = blocks("python")
    here = program.replace("http://127.0.0.1:8000/v1", user.url()).replace('"inferno-tiny"', '"tiny"')
    assert here.count("tiny") == program.count("tiny") + 1
    assert len(user.run_client(["-c", here]).split()) > 5


def test_the_examples_run_in_the_cluster(user: Place) -> None:
    chat = user.run_client(["/opt/client/examples/chat.py", user.url()]).splitlines()
    assert "Paris" in chat[0]
    short, long = user.run_client(["/opt/client/examples/websocket_stream.py", user.url(), "tiny"]).splitlines()
    assert short.startswith("short (")
    assert long.startswith("long (cancelled")
    events = user.run_client(["-c", NAMED_EVENTS, user.url(), "tiny"]).split("\n")
    assert events.count("event: token") > 1
    assert events[-2] == "event: complete"


def test_an_onnx_model_serves_as_a_gguf_model_does(user: Place) -> None:
    user.serve_model("graph", f"pvc://models/{images.ONNX}")
    assert "Paris" in user.run_client(["/opt/client/examples/chat.py", user.url("graph")]).splitlines()[0]
    user.kubectl("delete", "im", "graph")


def test_a_person_can_ask_kubectl_about_it(user: Place) -> None:
    described = user.kubectl("describe", "im", "tiny")
    assert re.search(r"Type: +Ready", described)
    assert "Serving" in described.split("Events:")[1]
    explained = user.kubectl("explain", "im.spec.model.source")
    assert "pvc://" in explained
    assert user.kubectl("get", "inferno", "--output=name").split() == ["infernomodel.inferno.ai/tiny"]
    user.kubectl("scale", "im", "tiny", "--replicas=2")
    user.until_ready()
    assert json.loads(user.kubectl("get", "im", "tiny", "--output=json"))["status"]["readyReplicas"] == 2
    user.kubectl("scale", "im", "tiny", "--replicas=1")
    user.until_ready()


def test_from_apply_to_the_first_token(user: Place, results: Results) -> None:
    title = "`kubectl apply`, the image on the node, the tiny model in a claim"
    with results.row("path", title, "the first token comes") as row:
        user.start_client("asker", ["-c", FIRST_TOKEN, user.url("first"), "first"])
        until("it to ask", lambda: "asking" in user.kubectl("logs", "asker"))
        before = time.time()
        user.model("first", f"pvc://models/{images.GGUF}")
        applied = time.time()
        told = until("the first token", lambda: user.kubectl("logs", "asker").split()[1:], 300)
        row.recovered(float(told[0]) - applied)
        row.figures["kubectl apply itself"] = f"{applied - before:.1f} s"
        user.kubectl("delete", "im/first", "pod/asker", "--now")


def test_an_upgrade_and_an_uninstall_leave_models_serving(user: Place) -> None:
    cluster = user.cluster
    (pod,) = user.pods()
    flags = ["--reset-then-reuse-values", "--set=replicaCount=2", "--wait", "--timeout=5m"]
    assert "deployed" in helm(cluster, "upgrade", "inferno", "charts/inferno", *flags)
    user.until_ready()
    helm(cluster, "uninstall", "inferno", "--wait")
    assert cluster.get("deployment", "inferno", "--namespace=inferno-system") is None
    assert [each["metadata"]["uid"] for each in user.pods()] == [pod["metadata"]["uid"]]
    assert "Paris" in user.run_client(["/opt/client/examples/chat.py", user.url()])
