#!/usr/bin/env python3
"""Builds the operator's and the runtime's images with whichever builder is there: docker, podman or buildah.

    scripts/build_images.py [--base IMAGE] [--registry PREFIX] [--tag TAG] [operator] [runtime] [-- BUILDER-OPTION...]

What follows ``--`` goes to the builder as it is (``-- --network host``, say). Needs only Python's standard library.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ("operator", "runtime")
BUILDERS = ("docker", "podman", "buildah")


class NoBuilderError(Exception):
    """No builder can be used; the message says what each of them lacks."""


def runs(*command: str) -> bool:
    """Whether the command exists and succeeds."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def lacks(builder: str) -> str | None:
    """What the builder lacks to be used, None if nothing.

    A docker client is often there without a daemon. Its classic builder does not know the Dockerfiles' cache mounts;
    BuildKit does, which was a part of the client before version 23 and has been a plugin since.
    """
    if shutil.which(builder) is None:
        return "is not installed"
    if not runs(builder, "info"):
        return "has no running daemon" if builder == "docker" else f"fails: try `{builder} info`"
    if builder == "docker" and docker_client() >= 23 and not runs("docker", "buildx", "version"):
        return "has no buildx plugin"
    return None


def docker_client() -> int:
    """The major version of the docker client."""
    command = ["docker", "version", "--format", "{{.Client.Version}}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return int(printed.partition(".")[0])


def find_builder(candidates: Sequence[str] = BUILDERS) -> str:
    """The first builder that can be used."""
    reasons = []
    for builder in candidates:
        reason = lacks(builder)
        if reason is None:
            return builder
        reasons.append(f"{builder} {reason}")
    raise NoBuilderError("no image builder: " + "; ".join(reasons))


def version(image: str) -> str:
    """The version of the distribution that the image carries."""
    project = tomllib.loads((ROOT / image / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def revision() -> str:
    """The commit that is built, with ``-dirty`` where the tree differs from it; empty outside a repository."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip()


def build_command(builder: str, image: str, name: str, base: str | None, options: Sequence[str]) -> list[str]:
    """The builder's command line for one image."""
    build_args = {"VERSION": version(image), "REVISION": revision()}
    if base is not None:
        build_args["BASE"] = base
    return [
        builder,
        "build",
        *(() if builder == "docker" else ("--layers",)),
        *(f"--build-arg={key}={value}" for key, value in build_args.items()),
        f"--file=Dockerfile.{image}",
        f"--tag={name}",
        *options,
        ".",
    ]  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the images.", epilog="Options after -- go to the builder.")
    parser.add_argument("images", nargs="*", metavar="{operator,runtime}", help="which to build (both)")
    parser.add_argument(
        "--base", help="image that stands in for the Dockerfiles' Debian base, as from scripts/local_base.sh"
    )
    parser.add_argument("--registry", default="localhost", help="what the images' names begin with (%(default)s)")
    parser.add_argument("--tag", help="the images' tag (the distribution's version)")
    parser.add_argument("--builder", choices=BUILDERS, help="use this builder (the first that works)")
    parser.add_argument("--which", action="store_true", help="only print which builder would be used")
    parsed = parser.parse_args(arguments)
    for image in parsed.images:
        if image not in IMAGES:
            parser.error(f"unknown image {image!r} (choose from {', '.join(IMAGES)})")
    return parsed


def main(arguments: Sequence[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = arguments[split + 1 :]
    parsed = parse(arguments[:split])
    try:
        builder = find_builder([parsed.builder] if parsed.builder else BUILDERS)
    except NoBuilderError as error:
        print(error, file=sys.stderr)
        return 1
    if parsed.which:
        print(builder)
        return 0
    for image in parsed.images or IMAGES:
        name = f"{parsed.registry}/inferno-{image}:{parsed.tag or version(image)}"
        print(f"building {name} with {builder}", flush=True)
        start = time.monotonic()
        command = build_command(builder, image, name, parsed.base, options)
        built = subprocess.run(command, cwd=ROOT, env=os.environ | {"DOCKER_BUILDKIT": "1"}, check=False)
        if built.returncode != 0:
            return built.returncode
        print(f"built {name} in {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
