"""What is in the images, and that they run as Kubernetes' restricted profile runs them.

They are those that `make images` left; INFERNO_TEST_IMAGES=1 says that they are there.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import build_images
from tests.chart.release import MODEL, NAME, NAMESPACE, installed
from tests.cluster.cluster import Cluster
from tests.cluster.waiting import until
from tests.images import containers
from tests.images.containers import Engine, Job

pytestmark = [
    pytest.mark.images,
    pytest.mark.skipif(
        os.environ.get("INFERNO_TEST_IMAGES") != "1",
        reason="needs the images: run `make images`, then set INFERNO_TEST_IMAGES=1",
    ),
]

# Each is a generation of CPUs, from SSE4.2 on.
CPU_VARIANTS = {
    "alderlake", "cannonlake", "cascadelake", "cooperlake", "haswell", "icelake", "ivybridge", "piledriver",
    "sandybridge", "sapphirerapids", "skylakex", "sse42", "x64", "zen4",
}  # fmt: skip
BUILD_TOOLS = ("ar", "as", "c++", "cc", "clang", "clang-19", "cmake", "g++", "gcc", "ld", "make", "ninja", "pip", "uv")

LIST_BUILD_TOOLS = f"import shutil; print([name for name in {BUILD_TOOLS} if shutil.which(name)])"
LIST_SHELLS = (
    "import shutil; print([name for name in ('sh', 'bash', 'dash', 'apt-get', 'dpkg', 'perl') if shutil.which(name)])"
)
COUNT_BYTES = """
import os
inodes = {}
for root in ("/bin", "/etc", "/lib", "/opt", "/usr", "/var/lib"):
    for folder, _, files in os.walk(root):
        found = (os.lstat(os.path.join(folder, file)) for file in files)
        inodes |= {each.st_ino: each.st_size for each in found}
print(sum(inodes.values()))
"""
LIST_SHARED_LIBRARIES = (
    "import pathlib, sysconfig; "
    "print(*sorted(path.name for path in pathlib.Path(sysconfig.get_path('platlib')).rglob('*.so')))"
)
ASK_IT = """
import llama_cpp
from inferno_runtime.backends.llama_cpp import library
loaded = library.load()
model = llama_cpp.Llama("/models/inferno-tiny-Q8_0.gguf", n_ctx=256, n_threads=1, verbose=False)
question = [{"role": "user", "content": "What is the capital of France?"}]
answer = model.create_chat_completion(question, max_tokens=12, temperature=0)
print(loaded.cpu_variant, answer["choices"][0]["message"]["content"])
"""
TRY_TO_WRITE = """
import os, pathlib
assert os.getuid() == os.getgid() == 65532
for folder in ("/", "/tmp", "/opt/inferno", os.path.expanduser("~")):
    try:
        pathlib.Path(folder, "written").touch()
    except OSError:
        continue
    print("could write to", folder)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    try:
        return containers.engine(build_images.find_builder(), tmp_path_factory.mktemp("bundles"))
    except (build_images.NoBuilderError, LookupError) as error:
        pytest.skip(str(error))


def image_of(name: str) -> str:
    return os.environ.get(f"INFERNO_{name.upper()}_IMAGE", f"localhost/inferno-{name}:{build_images.version(name)}")


@pytest.fixture(scope="module")
def runtime() -> str:
    return image_of("runtime")


@pytest.fixture(scope="module")
def operator() -> str:
    return image_of("operator")


@pytest.fixture(params=["operator", "runtime"])
def image(request: pytest.FixtureRequest) -> str:
    return image_of(request.param)


def python(engine: Engine, image: str, source: str) -> str:
    """What a Python program prints in the image."""
    return containers.run(engine, Job(image, [source], ["python3", "-c"]))


def test_says_who_it_is(engine: Engine, image: str) -> None:
    config = engine.config(image)
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] in (["inferno"], ["inferno-operator"])
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] in image
    assert labels["org.opencontainers.image.version"] == build_images.version("runtime")
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_has_no_build_tools(engine: Engine, image: str) -> None:
    assert python(engine, image, LIST_BUILD_TOOLS) == "[]"


def test_runs_unprivileged_and_writes_nowhere(engine: Engine, image: str) -> None:
    assert python(engine, image, TRY_TO_WRITE) == ""


def test_the_operator_has_what_it_needs_and_no_more(engine: Engine, operator: str) -> None:
    assert python(engine, operator, LIST_SHELLS) == "[]"
    assert int(python(engine, operator, COUNT_BYTES)) < 120_000_000


def test_the_operator_starts(engine: Engine, operator: str) -> None:
    assert "usage: inferno-operator" in containers.run(engine, Job(operator, ["--help"]))


def test_the_operator_has_no_libllama(engine: Engine, operator: str) -> None:
    libraries = python(engine, operator, LIST_SHARED_LIBRARIES)
    assert "llama" not in libraries
    assert "ggml" not in libraries


@pytest.mark.kube
def test_the_operator_works_with_the_rights_that_the_chart_gives_it(
    engine: Engine, operator: str, tmp_path: Path
) -> None:
    """As in a pod of its own. It also shows that what the image leaves out of the Kubernetes client is not missed."""
    with installed() as cluster:
        cluster.apply(MODEL)
        with engine.process(in_cluster(cluster, operator, tmp_path)) as process:
            tiny = ("deployment", "tiny", f"--namespace={NAMESPACE}")
            try:
                deployment = until("the Deployment", lambda: cluster.get(*tiny), 60)
            except TimeoutError as error:
                process.terminate()
                pytest.fail(f"{error}: {process.communicate(timeout=30)[0]}")
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            assert container["image"] == "example.com/runtime:1"
            process.terminate()
            printed, _ = process.communicate(timeout=60)
            assert process.returncode == 0, printed
            assert "orbidden" not in printed


def in_cluster(cluster: Cluster, operator: str, folder: Path) -> Job:
    """The operator with what a pod finds in itself: the API server's address, its CA and a token."""
    server = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--output=json"))["clusters"][0][
        "cluster"
    ]
    address = urllib.parse.urlsplit(server["server"])
    contents = {
        "ca.crt": base64.b64decode(server["certificate-authority-data"]),
        "namespace": NAMESPACE.encode(),
        "token": cluster.kubectl("create", "token", NAME, f"--namespace={NAMESPACE}").strip().encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return Job(
        operator,
        ["run", "--health-port=0", "--runtime-image=example.com/runtime:1"],
        environment={"KUBERNETES_SERVICE_HOST": str(address.hostname), "KUBERNETES_SERVICE_PORT": str(address.port)},
        files={f"/var/run/secrets/kubernetes.io/serviceaccount/{name}": folder / name for name in contents},
    )


def test_the_runtime_has_kernels_for_every_cpu(engine: Engine, runtime: str) -> None:
    libraries = python(engine, runtime, LIST_SHARED_LIBRARIES).split()
    prefix = "libggml-cpu-"
    assert {
        name.removeprefix(prefix).removesuffix(".so") for name in libraries if name.startswith(prefix)
    } == CPU_VARIANTS


def test_the_runtime_picks_the_kernels_for_this_cpu(engine: Engine, runtime: str) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    variant, _, answer = python(engine, runtime, ASK_IT).splitlines()[-1].partition(" ")
    assert "Paris" in answer
    if "amx_int8" in flags:
        assert variant == "sapphirerapids"
    elif "avx512f" in flags:
        assert variant in {"skylakex", "cannonlake", "cascadelake", "cooperlake", "icelake", "zen4"}
    elif "avx2" in flags:
        assert variant in {"haswell", "alderlake"}


@pytest.mark.skipif(shutil.which("qemu-x86_64-static") is None, reason="needs qemu-user-static")
@pytest.mark.parametrize(("cpu", "variant"), [("Haswell", "haswell"), ("SandyBridge", "sandybridge")])
def test_the_runtime_works_on_lesser_cpus(engine: Engine, runtime: str, cpu: str, variant: str) -> None:
    if not isinstance(engine, containers.Runc):
        pytest.skip("the emulator is put into the image through buildah")
    container = containers.output("buildah", "from", "--pull-never", runtime)
    try:
        root = containers.output("buildah", "mount", container)
        emulator = shutil.copy(str(shutil.which("qemu-x86_64-static")), root)
        command = ["chroot", "--userspec=65532:65532", root, f"/{Path(emulator).name}", "-cpu", cpu]
        printed = containers.output(*command, "/opt/inferno/bin/python", "-c", ASK_IT)
    finally:
        containers.output("buildah", "rm", container)
    assert printed.splitlines()[-1] == f"{variant} The capital of France is Paris."


@pytest.fixture
def address(engine: Engine, runtime: str) -> Iterator[str]:
    """A runtime that serves the model it carries, with nothing but its image; ends with code 0 when asked to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with engine.process(Job(runtime, ["serve", "--host", "127.0.0.1", "--port", str(port)])) as process:
        yield wait_until_ready(process, f"http://127.0.0.1:{port}")
        process.terminate()
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == 0, printed


def wait_until_ready(process: subprocess.Popen[str], address: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server ended with code {process.returncode}: {process.communicate()[0]}")
        try:
            with urllib.request.urlopen(f"{address}/health/ready", timeout=5):
                return address
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    process.terminate()
    pytest.fail(f"the server was not ready in time: {process.communicate()[0]}")


def test_the_runtime_serves_its_own_model(address: str) -> None:
    question = {"role": "user", "content": "What is the capital of France?"}
    body = {"model": "inferno-tiny", "messages": [question], "temperature": 0, "max_tokens": 32}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    assert "Paris" in answer["choices"][0]["message"]["content"]
