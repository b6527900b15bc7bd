"""Runs a built image as Kubernetes' restricted profile would: its own user, a read-only root, no capabilities.

Whichever builder made the images runs them too; buildah, which has no daemon and runs nothing detached, through runc.
"""

import contextlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What to run: an image with its own entry point, or with `command` in its place, on the host's network."""

    image: str
    arguments: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)  # path in the container: file on this machine


def output(*command: str) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Daemon:
    """docker or podman."""

    program: str

    def config(self, image: str) -> dict[str, Any]:
        """The image's configuration, by the names of the OCI image specification."""
        config: dict[str, Any] = json.loads(output(self.program, "image", "inspect", image))[0]["Config"]
        return config

    @contextlib.contextmanager
    def process(self, job: Job) -> Iterator[subprocess.Popen[str]]:
        """A container, which ends with the block."""
        name = f"inferno-test-{uuid.uuid4().hex[:12]}"
        # Otherwise podman raises them as far as it goes, which not every machine lets it.
        limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"]
        # And it would mount /tmp, which docker does not.
        bare = ["--read-only-tmpfs=false"] if self.program == "podman" else []
        line = [
            self.program, "run", *limits, *bare, "--rm", "--name", name, "--network", "host",
            "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            *(f"--env={key}={value}" for key, value in job.environment.items()),
            *(f"--volume={path}:{target}:ro" for target, path in job.files.items()),
            *(f"--entrypoint={program}" for program in job.command[:1]),
            job.image, *job.command[1:], *job.arguments,
        ]  # fmt: skip
        try:
            with _ended(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)) as process:
                yield process
        finally:
            subprocess.run([self.program, "rm", "--force", name], capture_output=True, check=False)


@dataclass(frozen=True)
class Runc:
    """buildah's storage, and runc to run what is in it."""

    bundles: Path

    def config(self, image: str) -> dict[str, Any]:
        """The image's configuration, by the names of the OCI image specification."""
        config: dict[str, Any] = json.loads(output("buildah", "inspect", "--type", "image", image))["OCIv1"]["config"]
        return config

    @contextlib.contextmanager
    def process(self, job: Job) -> Iterator[subprocess.Popen[str]]:
        """A container, which ends with the block."""
        name = f"inferno-test-{uuid.uuid4().hex[:12]}"
        bundle = self.bundles / name
        bundle.mkdir(parents=True)
        container = output("buildah", "from", "--pull-never", job.image)
        try:
            output("runc", "spec", "--bundle", str(bundle))
            specification = bundle / "config.json"
            spec = json.loads(specification.read_text())
            _restrict(spec, job, self.config(job.image), output("buildah", "mount", container))
            specification.write_text(json.dumps(spec))
            line = ["runc", "run", "--bundle", str(bundle), name]
            with _ended(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)) as process:
                yield process
        finally:
            subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)
            output("buildah", "rm", container)


Engine = Daemon | Runc


def _restrict(spec: dict[str, Any], job: Job, config: dict[str, Any], root: str) -> None:
    """Turn runc's default specification into one for this job and the restricted profile."""
    user, _, group = config["User"].partition(":")
    spec["root"] = {"path": root, "readonly": True}
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": int(user), "gid": int(group)},
        "args": [*(job.command or config["Entrypoint"]), *job.arguments],
        "env": [*config["Env"], *(f"{key}={value}" for key, value in job.environment.items())],
        "cwd": config.get("WorkingDir") or "/",
        "noNewPrivileges": True,
        "capabilities": {},
    }
    for target, path in job.files.items():
        spec["mounts"].append({"destination": target, "source": str(path), "options": ["bind", "ro"]})
    spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != "network"]


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The process, which does not outlive the block."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def engine(builder: str, bundles: Path) -> Engine:
    """What runs the images that `builder` built. Raises LookupError when something is missing for it."""
    if builder in ("docker", "podman"):
        return Daemon(builder)
    if shutil.which("runc") is None:
        raise LookupError("images built by buildah are run by runc, which is not installed")
    return Runc(bundles)


def run(engine: Engine, job: Job, timeout: float = 120) -> str:
    """What a container prints that has to end with code 0."""
    with engine.process(job) as process:
        printed, _ = process.communicate(timeout=timeout)
        assert process.returncode == 0, printed
    return printed.strip()
