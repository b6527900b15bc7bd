"""The operator as a process of its own, with no more rights than its ServiceAccount has."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.cluster.process import free_port
from tests.cluster.waiting import until

IMAGE = "registry.example/inferno-runtime:test"
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class OperatorProcess:
    """One replica. ``arguments`` are those of ``inferno-operator run``."""

    def __init__(self, kubeconfig: Path, log: Path, *arguments: str) -> None:
        self.log = log
        self._port = free_port()
        command = [sys.executable, "-m", "inferno_operator", "run", f"--health-port={self._port}", *arguments]
        command += [f"--runtime-image={IMAGE}", "--log-format=text"]
        environment = {name: value for name, value in os.environ.items() if name != "POD_NAMESPACE"}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment | {"KUBECONFIG": str(kubeconfig)}, stdout=output, stderr=output
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self._process.terminate()  # a killed leader would keep the next test waiting for its Lease
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def leads(self) -> bool:
        """Whether this replica acts."""
        return self.metric("inferno_operator_leader") == 1

    def ready(self) -> Self:
        """Returns when /readyz says so."""
        until("the operator to be ready", lambda: self.get("/readyz")[0] == 200, START_SECONDS)
        return self

    def leading(self) -> Self:
        """Returns when it acts, and knows every model."""
        until("the operator to lead", lambda: self.leads and self.get("/readyz")[0] == 200, START_SECONDS)
        return self

    def terminate(self) -> int:
        """Asks it to end; returns its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Ends it without asking."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Returns its exit status once it has ended on its own."""
        return self._process.wait(STOP_SECONDS)

    def get(self, path: str) -> tuple[int, str]:
        """The status and the body of a page, or 0 while nobody listens."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum(sample.value for sample in self._samples(name) if labels.items() <= sample.labels.items())

    def samples(self, name: str, label: str) -> dict[str, float]:
        """A metric's samples by the value of a label."""
        return {sample.labels[label]: sample.value for sample in self._samples(name)}

    def _samples(self, name: str) -> list[Sample]:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return [sample for family in families for sample in family.samples if sample.name == name]

    @property
    def writes(self) -> float:
        """Writes to the API, without those to its Lease."""
        return self.metric("inferno_operator_api_writes_total")

    @property
    def passes(self) -> float:
        """Reconciliations so far."""
        return self.metric("inferno_operator_reconciles_total")
