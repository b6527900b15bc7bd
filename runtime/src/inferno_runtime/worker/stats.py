"""What an engine's processes have done, for metrics and health."""

from dataclasses import dataclass, field

from inferno_runtime.engine.request import Priority
from inferno_runtime.worker.depth import Depth
from inferno_runtime.worker.frames import Counters


@dataclass(slots=True)
class EngineStats:
    """What the engine reported last, and what its processes have counted since the server started."""

    active: int = 0
    queued: int = 0
    paused: int = 0  # of all, those whose clients take too little; known here, and not reported
    queued_by_priority: dict[Priority, int] = field(default_factory=dict)
    kv_usage: float = 0.0  # share of all cells
    steps: int = 0
    restarts: int = 0
    resubmitted: int = 0  # sequences and requests for vectors that a second process was given
    preemptions: int = 0
    drafted: int = 0  # tokens
    accepted: int = 0  # of these
    store_bytes: int = 0  # of prefixes that are kept in host memory
    depth: Depth = field(default_factory=Depth)  # of the queue
    _before: Counters = field(default_factory=Counters)  # what the processes before this one had counted

    def on_load(self, active: int, queued: int, at: float) -> None:
        """What the engine has to do after a step. at: on the loop's clock."""
        self.steps += 1
        if queued != self.queued:
            self.depth.set(queued, at)
        self.active, self.queued = active, queued

    def on_counters(self, counters: Counters) -> None:
        """What its process has counted."""
        before = self._before
        self.preemptions = before.preemptions + counters.preemptions
        self.drafted = before.drafted + counters.drafted
        self.accepted = before.accepted + counters.accepted
        self.store_bytes = counters.store_bytes

    def forget_process(self) -> None:
        """Nothing is evaluated or held any more; what was counted stays."""
        self.active = self.queued = self.store_bytes = 0
        self.queued_by_priority = {}
        self.kv_usage = 0.0
        self._before = Counters(self.preemptions, self.drafted, self.accepted)
