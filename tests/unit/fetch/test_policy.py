import pytest

from inferno_runtime.fetch import errors
from inferno_runtime.fetch.policy import LONGEST_RETRY_AFTER, Policy, retry_after
from inferno_runtime.fetch.progress import Progress

NOW = 1_445_412_470.0  # ten seconds before the date below

HEADERS: dict[str | None, float | None] = {
    None: None,
    "7": 7.0,
    " 0 ": 0.0,
    "-1": None,
    "soon": None,
    "": None,
    "Wed, 21 Oct 2015 07:28:00 GMT": 10.0,
    "Wed, 21 Oct 2014 07:28:00 GMT": 0.0,
    "9" * 400: 999_999_999.0,
}


@pytest.mark.parametrize(("value", "seconds"), HEADERS.items(), ids=str)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def waits(error: errors.FetchError, policy: Policy, dice: float) -> list[float | None]:
    return [policy.wait(error, failures, lambda: dice) for failures in range(1, policy.attempts + 1)]


def test_waits_double_up_to_a_limit_and_end() -> None:
    policy = Policy(attempts=6, first=1.0, longest=10.0)
    assert waits(errors.ServerError("x"), policy, 1.0) == [1.0, 2.0, 4.0, 8.0, 10.0, None]
    assert waits(errors.ServerError("x"), policy, 0.0) == [0.5, 1.0, 2.0, 4.0, 5.0, None]


def test_a_server_is_given_the_time_that_it_asks_for() -> None:
    policy = Policy()
    assert policy.wait(errors.RateLimited("x", 30.0), 1, lambda: 0.0) == 30.5
    assert policy.wait(errors.RateLimited("x", 0.0), 1, lambda: 0.0) == 0.5
    assert policy.wait(errors.RateLimited("x", 1e9), 1, lambda: 1.0) == LONGEST_RETRY_AFTER + 1


PERMANENT = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Permanent)]


@pytest.mark.parametrize("kind", PERMANENT)
def test_what_stays_so_is_not_tried_again(kind: type[errors.Permanent]) -> None:
    assert Policy().wait(kind("x"), 1, lambda: 0.0) is None


def test_every_error_has_a_reason_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FetchError)]
    reasons = [kind.reason for kind in kinds if "reason" in vars(kind)]
    assert len(set(reasons)) == len(reasons) == len(kinds) - 2, "all but the two families"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_that_of_late() -> None:
    clock = Clock()
    progress = Progress(total=1000, done=100, clock=clock)
    progress.begin()
    for _ in range(3):
        clock.now += 1
        progress.advance(100, "m")
    assert (progress.rate, progress.remaining) == (100, 6)
    assert progress.wire() == {"bytes": 400, "bytesPerSecond": 100, "totalBytes": 1000, "remainingSeconds": 6}
    for _ in range(30):
        clock.now += 1
        progress.advance(10, "m")
    assert progress.rate == 10


def test_too_little_for_too_long_is_a_stall() -> None:
    clock = Clock()
    progress = Progress(clock=clock, stall_seconds=60, stall_bytes=1000)
    progress.begin()
    for _ in range(59):
        clock.now += 1
        progress.advance(10, "m")
    clock.now += 1
    with pytest.raises(errors.Stalled, match="only 600 bytes came within 60 s"):
        progress.advance(10, "m")
    progress.begin()
    clock.now += 60
    progress.advance(1001, "m")
