"""A server whose wall clock is set while it runs: nothing that is measured goes by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.process import ServerProcess, eventually
from tests.runtime.test_life import Streams
from tests.stepped.clock import SteppedClock

DAY = 86_400.0
STEPS = {"back": -DAY, "ahead": DAY}


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path)


@pytest.fixture
def server(clock: SteppedClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    with ServerProcess("--requests-per-minute", "20") as process:
        monkeypatch.undo()
        yield process


@pytest.mark.parametrize("seconds", STEPS.values(), ids=STEPS)
def test_streams_and_limits_go_on_as_if_nothing_had_happened(
    server: ServerProcess, clock: SteppedClock, seconds: float
) -> None:
    before = server.complete("Once", max_tokens=1)
    streams = Streams(server, 2)
    clock.step(seconds)
    after = server.complete("Once", max_tokens=1)
    assert after.json()["created"] - before.json()["created"] == pytest.approx(seconds, abs=60), "the clock was set"
    streams.join()
    assert [events[-1] for events in streams.events] == ["[DONE]"] * 2
    health = server.client.get("/health").json()
    assert health["status"] == "healthy"
    assert 0 < health["uptime_seconds"] < DAY / 2
    assert server.metric("engine_restarts_total") == 0

    def refused() -> bool:
        answer = server.complete("Once", max_tokens=1)
        return answer.status_code == 429 and 1 <= int(answer.headers["Retry-After"]) <= 60

    eventually(refused, "a caller has had its minute's requests")
