"""The images that the tests run: the two that users build, and one of clients on top of the runtime's."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from inferno_runtime.models.source import DEFAULT_MODEL
from scripts import build_images
from tests.cluster.build import say_on_stderr
from tests.cluster.sandbox import REPOSITORY, Sandbox
from tests.runtime import onnx_twins

# Their own tag: what a person has built stays as it is.
TAG = "cluster-test"
NAMES = ("operator", "runtime", "client")
DEBIAN = "docker.io/library/debian:bookworm-slim"
LOCAL_BASE = "localhost/inferno-base:bookworm"
GGUF, OTHER_GGUF, ONNX = "inferno-tiny-Q8_0.gguf", "inferno-tiny-other-Q8_0.gguf", "inferno-tiny-onnx"
"""The models in the client's image, below `MODELS`."""
MODELS = "/opt/client/models"
_PACKAGES = ("httpx", "openai", "websocket-client")


def reference(registry: str, name: str) -> str:
    """An image's full name."""
    return f"{registry}/inferno-{name}:{TAG}"


def make(registry: str) -> None:
    """Builds all three. Raises CalledProcessError; the builder has said why."""
    builder = build_images.find_builder()
    command = [sys.executable, "scripts/build_images.py", f"--builder={builder}", f"--registry={registry}"]
    if not build_images.runs(builder, "pull", DEBIAN):
        if not _has(builder, LOCAL_BASE):
            say_on_stderr(f"no registry to take {DEBIAN} from: making a base image from Debian's packages")
            _run("scripts/local_base.sh", LOCAL_BASE)
        command.append(f"--base={LOCAL_BASE}")
    _run(*command, f"--tag={TAG}", "--", "--network=host")
    with tempfile.TemporaryDirectory(prefix="inferno-client-") as folder:
        _furnish(Path(folder))
        arguments = [f"--build-arg=RUNTIME={reference(registry, 'runtime')}", f"--tag={reference(registry, 'client')}"]
        _run(builder, "build", *arguments, folder)


def push(registry: str) -> None:
    """Sends them to the registry that their names begin with."""
    for name in NAMES:
        _run(build_images.find_builder(), "push", reference(registry, name))


def load(sandbox: Sandbox) -> None:
    """Gives them to our own node, the users' two under the names that the chart has by default."""
    builder = build_images.find_builder()
    with tempfile.TemporaryDirectory(prefix="inferno-images-") as folder:
        for name in NAMES:
            image = reference("localhost", name)
            loaded = sandbox.folder / f"{name}.image"
            identity = _output(builder, "images", "--quiet", "--no-trunc", image)
            if loaded.exists() and loaded.read_text() == identity:
                continue
            archive = Path(folder, f"{name}.tar")
            if builder == "buildah":
                _run("buildah", "push", "--quiet", image, f"docker-archive:{archive}:{image}")
            else:
                _run(builder, "save", "--output", str(archive), image)
            sandbox.import_image(archive)
            archive.unlink()
            if name in build_images.IMAGES:
                sandbox.tag_image(image, f"localhost/inferno-{name}:{build_images.version(name)}")
            loaded.write_text(identity)


def _furnish(folder: Path) -> None:
    """The client image's build context."""
    here = Path(__file__).parent / "client"
    shutil.copytree(here, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "examples" / "clients", folder / "examples")
    models = folder / "models"
    (models / ONNX).mkdir(parents=True)
    shutil.copy(DEFAULT_MODEL, models / GGUF)
    shutil.copy(DEFAULT_MODEL, models / OTHER_GGUF)
    onnx_twins.decoder(DEFAULT_MODEL, models / ONNX)
    uv = [
        str(Path(sys.prefix, "bin", "uv")),
        "pip",
        "install",
        "--quiet",
        "--python-version=3.11",
        "--only-binary=:all:",
    ]
    _run(*uv, "--constraint=requirements/dev.txt", f"--target={folder / 'packages'}", *_PACKAGES)
    # The folder's owner is whoever builds; the image's user reads.
    _run("chmod", "-R", "a+rX", str(folder))


def _has(builder: str, image: str) -> bool:
    return build_images.runs(builder, "inspect", *(["--type=image"] if builder != "docker" else []), image)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _run(*command: str) -> None:
    # The builder's words are for whoever waits; standard output is for answers.
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=sys.stderr)
