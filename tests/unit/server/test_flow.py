"""What the levels of back pressure, the backlog and the window of acknowledgements count."""

import pytest

from inferno_runtime.server.flow import Backlog, Level, Window, level_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("usage", "level"),
    [
        (0.0, Level.HEALTHY),
        (0.5, Level.HEALTHY),
        (0.699, Level.HEALTHY),
        (0.7, Level.MODERATE),
        (0.8, Level.MODERATE),
        (0.9, Level.MODERATE),
        (0.901, Level.CRITICAL),
        (1.0, Level.CRITICAL),
        (7.5, Level.CRITICAL),
    ],
)
def test_levels(usage: float, level: Level) -> None:
    assert level_of(usage) is level


def test_a_backlog_rises_and_falls() -> None:
    backlog = Backlog(1000, Clock())
    backlog.put(600)
    assert (backlog.usage, backlog.level) == (0.6, Level.HEALTHY)
    backlog.put(400)
    assert backlog.level is Level.CRITICAL
    backlog.taken(250)
    assert (backlog.usage, backlog.level) == (0.75, Level.MODERATE)
    backlog.taken(750)
    assert (backlog.usage, backlog.level) == (0.0, Level.HEALTHY)


def test_a_backlog_is_silent_while_nothing_of_it_is_taken() -> None:
    clock = Clock()
    backlog = Backlog(1000, clock)
    clock.now += 50
    assert backlog.silence == 0  # there is nothing to take
    backlog.put(10)
    clock.now += 5
    backlog.put(10)  # being given more is no sign of life
    clock.now += 5
    assert backlog.silence == 10
    backlog.taken(10)
    assert backlog.silence == 0
    clock.now += 3
    assert backlog.silence == 3
    backlog.taken(10)
    clock.now += 3
    assert backlog.silence == 0


def test_a_window_closes_and_opens() -> None:
    window = Window(3, Clock())
    for _ in range(3):
        assert window.open
        window.send()
    assert not window.open
    window.ack(1)
    assert window.open
    window.send()
    assert not window.open
    window.ack(4)
    assert window.open


def test_a_client_owes_nothing_before_its_window_is_full() -> None:
    clock = Clock()
    window = Window(2, clock)
    window.send()
    clock.now += 100
    assert window.owing == 0
    window.send()
    clock.now += 7
    assert window.owing == 7
    window.ack(1)
    assert window.owing == 0
    window.send()
    clock.now += 2
    assert window.owing == 2


@pytest.mark.parametrize("received", [3, 4, 1 << 60])
def test_more_than_was_sent_cannot_be_acknowledged(received: int) -> None:
    window = Window(5, Clock())
    window.send()
    window.send()
    with pytest.raises(ValueError, match="only 2"):
        window.ack(received)


def test_an_acknowledgement_that_goes_back_changes_nothing() -> None:
    window = Window(2, Clock())
    window.send()
    window.send()
    window.ack(2)
    window.ack(0)
    assert window.open


def test_without_acknowledgements_there_is_no_end_of_the_window() -> None:
    clock = Clock()
    window = Window(None, clock)
    for _ in range(1000):
        window.send()
    clock.now += 1000
    assert window.open
    assert window.owing == 0
