"""What the engine's process tells of a step."""

from inferno_runtime.worker.__main__ import Reporter
from inferno_runtime.worker.frames import Counters
from tests.unit.engine.rig import Rig


def test_counters_are_told_when_they_change() -> None:
    rig = Rig(store_bytes=1 << 20)
    reporter = Reporter(rig.scheduler)
    rig.submit(1, [5, 6, 7])
    frames = [reporter.frame(rig.scheduler.step()) for _ in range(3)]
    assert [frame.counters for frame in frames] == [None, None, None]
    assert (frames[0].active, frames[0].queued) == (1, 0)
    rig.scheduler.preemptions += 1
    rig.scheduler.speculation.drafted, rig.scheduler.speculation.accepted = 8, 6
    assert reporter.frame(rig.scheduler.step()).counters == Counters(1, 8, 6, 0)
    assert reporter.frame(rig.scheduler.step()).counters is None
