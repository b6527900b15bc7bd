"""An engine that encodes a large image says that it is alive, and not more often than it need."""

from inferno_runtime.worker.__main__ import Reporter, sign_of_life
from inferno_runtime.worker.frames import Step
from tests.unit.engine.rig import Rig


def test_signs_come_once_a_second_while_there_is_progress() -> None:
    rig = Rig()
    sent: list[Step] = []
    tell = sign_of_life(sent.append, Reporter(rig.scheduler), lambda: rig.now)
    for _ in range(300):
        rig.now += 0.01
        tell()
    assert len(sent) in (2, 3)
    assert all(not step.ids and not step.finished for step in sent)
