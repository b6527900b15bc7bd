"""Writes deploy/operator.yaml from the chart: `make manifests`.

It is what Helm renders by default, for those who have no Helm: with the namespace, and without what only Helm understands.
The InfernoModel resource is in crds/.

scripts/plain_yaml.py [--check]
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import build

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "deploy" / "operator.yaml"
NAMESPACE = "inferno-system"
HEAD = "# Written by `make manifests` from charts/inferno; edit it there, or change it with a kustomization.\n"
HOOK = "helm.sh/hook"
LEASE = "--lease-namespace="  # by default it is the pod's own, which a kustomization may change
MANAGED_BY = "app.kubernetes.io/managed-by"


def plain_yaml() -> str:
    """The content of the file. Raises `subprocess.CalledProcessError` and `build.BuildError`."""
    command = [str(build.helm()), "template", "inferno", str(ROOT / "charts" / "inferno"), f"--namespace={NAMESPACE}"]
    done = subprocess.run([*command, "--set=crds.install=false"], check=True, stdout=subprocess.PIPE, text=True)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    rendered = [body for body in yaml.safe_load_all(done.stdout) if body and not _is_hook(body)]
    return HEAD + yaml.safe_dump_all([namespace, *map(_without_helm, rendered)], sort_keys=False, width=120)


def _is_hook(body: dict[str, Any]) -> bool:
    return HOOK in body["metadata"].get("annotations", {})


def _without_helm(value: Any) -> Any:
    """A part of a manifest without the labels that say that Helm manages it."""
    if isinstance(value, list):
        return [_without_helm(item) for item in value if not str(item).startswith(LEASE)]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_helm(item)
        for name, item in value.items()
        if not name.startswith("helm.sh/") and (name, item) != (MANAGED_BY, "Helm")
    }


def main() -> None:
    """Write the file; with --check only say whether it is up to date."""
    text = plain_yaml()
    if "--check" not in sys.argv:
        TARGET.write_text(text)
    elif TARGET.read_text() != text:
        sys.exit(f"{TARGET.relative_to(ROOT)} is out of date: run `make manifests`")


if __name__ == "__main__":
    main()
