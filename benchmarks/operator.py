"""What the operator costs: on a control plane of our own, with so many models that nobody serves.

``python -m benchmarks.operator [--models N] [--large N] [--quiet SECONDS]`` prints a table.

Requests are counted by a proxy between the operator and the API server, since kopf's are not the operator's own to count.
The models have no pods (``replicas: 0``): what a kubelet does is not measured here.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster.cluster import Cluster, KubectlError
from tests.cluster.controlplane import connect
from tests.cluster.waiting import until
from tests.operator.conftest import CRD
from tests.operator.process import OperatorProcess
from tests.operator.proxy import FaultyProxy

NAMESPACE = "bench"
SPEC = {"model": {"source": "file:///opt/models/tiny.gguf"}, "replicas": 0}
CHANGES = 20
_BATCH = 1000
_WRITES = ("POST", "PUT", "PATCH", "DELETE")


def main() -> None:
    """Measures, and prints as it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="models that are created at once")
    parser.add_argument("--large", type=int, default=10_000, help="models in the steady state; 0 leaves it out")
    parser.add_argument("--quiet", type=int, default=600, help="seconds for which the steady state is watched")
    options = parser.parse_args()
    with connect() as cluster, tempfile.TemporaryDirectory() as folder:
        prepare(cluster)
        with FaultyProxy(cluster.kubeconfig) as proxy:
            bench = Bench(cluster, proxy, Path(folder))
            bench.creation(options.models)
            bench.restart(options.models)
            bench.steady(max(options.large, options.models), options.quiet)


def prepare(cluster: Cluster) -> None:
    """A cluster that knows InfernoModels, with a namespace for them."""
    cluster.apply(yaml.safe_load(CRD.read_text()))
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})

    def served() -> bool:
        try:
            cluster.kubectl("get", "infernomodels", "--all-namespaces")
        except KubectlError:
            return False
        return True

    until("InfernoModels to be served", served)


class Bench:
    """The measurements, one after another on one cluster."""

    def __init__(self, cluster: Cluster, proxy: FaultyProxy, folder: Path) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._folder = folder
        self._made = 0

    def creation(self, count: int) -> None:
        """So many models at once, while the operator runs."""
        with self._operator() as operator:
            operator.leading()
            self._create(count)
            began = time.monotonic()
            until("all of them", lambda: reconciled(operator) >= count, 600)
            until("the queue to be empty", lambda: idle(operator), 600)
            show(f"{count} models reconciled, after the last was created", f"{time.monotonic() - began:.1f} s")
            show("memory", f"{memory(operator):.0f} MB")
            show("99 of 100 passes took, with the API server's time, at most", milliseconds(operator, "duration"))
            show("without it", milliseconds(operator, "own"))

    def restart(self, count: int) -> None:
        """A new operator where everything is as it should be."""
        before = self._writes()
        began = time.monotonic()
        with self._operator() as operator:
            until("it to be ready", lambda: operator.get("/readyz")[0] == 200 and operator.leads, 600)
            show(f"ready after a restart with {count} models", f"{time.monotonic() - began:.1f} s")
            until("a pass over each", lambda: operator.passes >= count, 600)
            show("writes of the restart", f"{self._writes() - before:g}")
            show("passes of the restart", f"{operator.passes:g}")

    def steady(self, count: int, seconds: int) -> None:
        """Nothing changes; then one thing does, and another."""
        with self._operator() as operator:
            operator.leading()
            self._create(count - self._made)
            until("all of them", lambda: operator.passes >= count, 3600)
            until("the queue to be empty", lambda: idle(operator), 600)
            requests, writes = self._proxy.seen.total(), self._writes()
            time.sleep(seconds)
            rate = (self._proxy.seen.total() - requests) / seconds
            show(f"requests a second with {count} models at rest", f"{rate:.2f}")
            show(f"writes in {seconds} s of that", f"{self._writes() - writes:g}")
            show(f"memory with {count} models", f"{memory(operator):.0f} MB")
            times = [self._change(number) for number in range(CHANGES)]
            show("from a change to its being acted on, median", f"{statistics.median(times) * 1000:.0f} ms")
            show("the slowest", f"{max(times) * 1000:.0f} ms")

    def _change(self, number: int) -> float:
        patch = json.dumps({"spec": {"engine": {"slots": 10 + number}}})
        self._cluster.kubectl("patch", "im", "m0", f"--namespace={NAMESPACE}", "--type=merge", f"--patch={patch}")
        began = time.monotonic()
        until("the change", lambda: self._slots() == 10 + number)
        return time.monotonic() - began

    def _slots(self) -> int:
        config = self._cluster.get("configmap", "m0-config", f"--namespace={NAMESPACE}")
        document = yaml.safe_load(config["data"]["model.yaml"])
        return int(document["spec"].get("engine", {}).get("slots", 0))

    def _create(self, count: int) -> None:
        head = {"apiVersion": "inferno.ai/v1alpha1", "kind": "InfernoModel"}
        for start in range(self._made, self._made + count, _BATCH):
            numbers = range(start, min(start + _BATCH, self._made + count))
            items = [head | {"metadata": {"name": f"m{n}", "namespace": NAMESPACE}, "spec": SPEC} for n in numbers]
            listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            self._cluster.kubectl("create", "--validate=false", "--filename=-", input=listed, timeout=1200)
        self._made += count

    def _writes(self) -> float:
        """Writes that passed the proxy; there is no election, so none is about a Lease."""
        return float(sum(self._proxy.seen[method] for method in _WRITES))

    @contextmanager
    def _operator(self) -> Iterator[OperatorProcess]:
        log = self._folder / "operator.log"
        flags = ("--no-leader-election", f"--namespace={NAMESPACE}")
        with OperatorProcess(self._proxy.kubeconfig, log, *flags) as operator:
            try:
                yield operator
            except BaseException:
                sys.stderr.write(log.read_text()[-4000:])
                raise


def reconciled(operator: OperatorProcess) -> float:
    """Models whose status has been written, each at least once."""
    return operator.metric("inferno_operator_api_writes_total", verb="apply_status")


def idle(operator: OperatorProcess) -> bool:
    return operator.metric("inferno_operator_queue_depth") == 0


def memory(operator: OperatorProcess) -> float:
    """What the operator has in memory, in MB."""
    pages = int(Path(f"/proc/{operator.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def milliseconds(operator: OperatorProcess, kind: str) -> str:
    """The upper bound of the bucket in which 99 of 100 passes end, of one of the histograms of passes."""
    name = f"inferno_operator_reconcile_{kind}_seconds"
    buckets = operator.samples(f"{name}_bucket", "le")
    total = buckets["+Inf"]
    return f"{min(float(bound) for bound, passes in buckets.items() if passes >= 0.99 * total) * 1000:g} ms"


def show(what: str, value: str) -> None:
    print(f"{what:<68}{value:>12}", flush=True)


if __name__ == "__main__":
    main()
