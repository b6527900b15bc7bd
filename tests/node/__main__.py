"""Installs Inferno on a real node as users do, and does to it what production does: ``make cluster-test``.

``python -m tests.node [--registry PREFIX] [--keep] [pytest's arguments]``. With INFERNO_TEST_USE_KUBECONFIG=1 the node
is KUBECONFIG's, and the images are pushed to the registry. A run of all tests, all passed, writes docs/reliability.md.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts import build_images
from tests.cluster import build
from tests.cluster.build import say_on_stderr
from tests.cluster.sandbox import REPOSITORY, Sandbox, SandboxError, obstacles
from tests.node import images, report


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.node", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--registry", help="what the images' names begin with, on somebody's cluster")
    parser.add_argument("--keep", action="store_true", help="leave our own cluster up")
    parser.add_argument("--or-skip", action="store_true", help="where no node can be started, say why and end well")
    options, tests = parser.parse_known_args()
    theirs = os.environ.get("INFERNO_TEST_USE_KUBECONFIG") == "1"
    if theirs and not options.registry:
        parser.error("a cluster of yours needs --registry, to which you may push")
    sandbox = None if theirs else Sandbox()
    if problems := lacks(sandbox):
        for problem in problems:
            say_on_stderr(f"{'skipped' if options.or_skip else 'error'}: {problem}")
        return 0 if options.or_skip else 1
    try:
        return run(sandbox, options.registry or "localhost", tests)
    except (SandboxError, build.BuildError, subprocess.CalledProcessError) as error:
        say_on_stderr(f"error: {error}")
        return 1
    finally:
        if sandbox is not None and not options.keep:
            sandbox.down()


def lacks(sandbox: Sandbox | None) -> list[str]:
    """Why the tests cannot be run here, before anything is built; empty if they can."""
    problems = obstacles() if sandbox is not None and not sandbox.running else []
    try:
        build_images.find_builder()
    except build_images.NoBuilderError as error:
        problems.append(str(error))
    return problems


def run(sandbox: Sandbox | None, registry: str, tests: list[str]) -> int:
    """Builds, starts and tests; pytest's exit status."""
    if sandbox is not None and not tests:
        sandbox.down()  # what is left of a run that was cut off: a user finds a cluster without Inferno
    build.helm()
    own = {"INFERNO_TEST_NODE": "1", "INFERNO_TEST_REGISTRY": registry}
    if sandbox is not None and not tests:
        # That a node comes and goes without a trace, before there is one to stay.
        _pytest(["tests/cluster/test_sandbox.py"], own, check=True)
    started = time.monotonic()
    images.make(registry)
    if sandbox is None:
        images.push(registry)
    else:
        if not sandbox.running:
            sandbox.up()
        images.load(sandbox)
    say_on_stderr(f"the cluster and the images are ready after {time.monotonic() - started:.0f} s")
    with tempfile.TemporaryDirectory(prefix="inferno-results-") as folder:
        results = Path(folder, "results.json")
        status = _pytest(tests or ["tests/node"], own | {"INFERNO_TEST_RESULTS": str(results)})
        if status == 0 and not tests and sandbox is not None:
            report.PAGE.write_text(report.page(report.load(results), machine()))
    return status


def _pytest(arguments: list[str], own: dict[str, str], *, check: bool = False) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=os.environ | own, check=check).returncode


def machine() -> str:
    """Where the run was, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"Kubernetes {build.CONTROL_PLANE.version}, {os.cpu_count()} cores ({platform.machine()}), {memory} GiB"


if __name__ == "__main__":
    sys.exit(main())
