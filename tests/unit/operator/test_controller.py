from inferno_operator.controller import WatchProgress
from inferno_operator.reconciler import Key

A, B = Key("demo", "a"), Key("demo", "b")


def test_a_watch_that_keeps_up() -> None:
    progress = WatchProgress()
    progress.saw(A, 1)
    for generation in range(1, 5):
        progress.compare({A: generation})
        assert not progress.stalled
        progress.saw(A, generation)


def test_a_little_late_is_not_stalled() -> None:
    progress = WatchProgress()
    progress.compare({A: 1})
    progress.saw(A, 1)
    progress.compare({A: 1, B: 1})
    progress.saw(B, 1)
    progress.compare({A: 2, B: 1})
    assert not progress.stalled


def test_what_was_listed_twice_and_never_seen_is_stalled() -> None:
    progress = WatchProgress()
    progress.compare({A: 1})
    progress.compare({A: 1})
    assert progress.stalled
    progress.saw(A, 1)
    progress.compare({A: 1})
    assert not progress.stalled


def test_what_is_gone_is_not_waited_for() -> None:
    progress = WatchProgress()
    progress.compare({A: 1})
    progress.compare({})
    assert not progress.stalled
