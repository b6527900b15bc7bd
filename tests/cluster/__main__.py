"""A whole Kubernetes on this machine, to try Inferno on: ``python -m tests.cluster up``, ``down`` or ``status``."""

import argparse
import sys

from tests.cluster import build
from tests.cluster.sandbox import Sandbox, SandboxError, obstacles


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=(__doc__ or "").split(":")[0])
    parser.add_argument("command", choices=["up", "down", "status"])
    command = parser.parse_args().command
    sandbox = Sandbox()
    try:
        if command == "up":
            sandbox.up()
        elif command == "down":
            sandbox.down()
        else:
            return status(sandbox)
    except (SandboxError, build.BuildError) as error:
        build.say_on_stderr(f"error: {error}")
        return 1
    return 0


def status(sandbox: Sandbox) -> int:
    """Prints what there is; 0 if the cluster runs."""
    for program in build.PROGRAMS:
        built = (build.cache_folder() / program.folder / program.key).exists()
        print(f"{program.title} {program.version}: {'built' if built else 'not built'}")
    if sandbox.running:
        print(f"up: export KUBECONFIG={sandbox.kubeconfig}")
        return 0
    print("\n".join(["down", *obstacles()]))
    return 3


if __name__ == "__main__":
    sys.exit(main())
