"""What a caller may ask for in a minute, on a virtual clock."""

import asyncio
import gc
import time
from functools import partial

import pytest

from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server import limits as limits_module
from inferno_runtime.server.limits import Account, Accounts, Limits, Meter, Store
from inferno_runtime.server.windows import Windows

pytestmark = pytest.mark.asyncio

LIMITS = Limits(requests=100, tokens=1000, connections=2)
NONE = Limits(requests=0, tokens=0, connections=0)


class Clock:
    """The time that has gone by, as the test says, and the time of day, which may be set to anything."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.step = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now + clock.step)
    monkeypatch.setattr(limits_module, "Windows", partial(Windows, clock=clock))
    return clock


def account(limits: Limits = LIMITS, store: Store | None = None) -> Account:
    return Account("key/a", limits, store or Store())


async def begun(account: Account) -> Meter:
    meter = Meter(account)
    await meter.begin()
    return meter


def remaining(meter: Meter) -> tuple[int, int]:
    headers = meter.headers()
    return int(headers["X-RateLimit-Remaining-Requests"]), int(headers["X-RateLimit-Remaining-Tokens"])


async def refused(meter: Meter, tokens: int | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await (meter.begin() if tokens is None else meter.prompt(tokens))
    error = caught.value
    assert (error.status, error.type) == (429, "rate_limit_error")
    assert error.message.startswith("Rate limit exceeded")
    return error


async def test_the_headers_tell_of_a_minute_that_begins_with_its_first_request(clock: Clock) -> None:
    own = account()
    meter = await begun(own)
    clock.now += 20
    await meter.prompt(300)
    assert meter.headers() == {
        "X-RateLimit-Limit-Requests": "100",
        "X-RateLimit-Limit-Tokens": "1000",
        "X-RateLimit-Remaining-Requests": "99",
        "X-RateLimit-Remaining-Tokens": "700",
        "X-RateLimit-Reset-Requests": "1700000060",
        "X-RateLimit-Reset-Tokens": "1700000080",
    }
    clock.now += 41
    assert remaining(await begun(own)) == (99, 700)
    clock.now += 20
    assert remaining(await begun(own)) == (98, 1000)


async def test_what_is_off_has_no_headers_and_never_refuses() -> None:
    own = account(NONE)
    for _ in range(300):
        meter = await begun(own)
    await meter.prompt(10**9)
    meter.output(10**9)
    await meter.settle()
    assert meter.headers() == {}
    only_tokens = await begun(account(Limits(0, 5, 0)))
    assert set(only_tokens.headers()) == {f"X-RateLimit-{what}-Tokens" for what in ("Limit", "Remaining", "Reset")}


async def test_requests_beyond_the_limit_are_refused_until_the_minute_ends(clock: Clock) -> None:
    own = account()
    for _ in range(100):
        meter = await begun(own)
    clock.now += 12.5
    beyond = Meter(own)
    error = await refused(beyond)
    assert error.headers["Retry-After"] == "48"
    assert (remaining(meter)[0], remaining(beyond)[0]) == (0, 0)
    clock.now += 48
    assert remaining(await begun(own))[0] == 99


async def test_every_one_of_many_at_once_has_a_number_of_its_own() -> None:
    own = account()
    meters = await asyncio.gather(*(begun(own) for _ in range(50)))
    assert sorted(remaining(meter)[0] for meter in meters) == list(range(50, 100))


async def test_prompts_at_once_take_no_more_than_there_is() -> None:
    own = account()
    meters = [await begun(own) for _ in range(20)]
    outcomes = await asyncio.gather(*(meter.prompt(300) for meter in meters), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 3
    assert all(isinstance(outcome, ApiError) for outcome in outcomes if outcome is not None)
    assert remaining(await begun(own))[1] == 100


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0], ids=["back", "ahead"])
async def test_a_minute_lasts_a_minute_when_the_clock_is_set(clock: Clock, step: float) -> None:
    own = account(Limits(requests=1, tokens=0, connections=0))
    await begun(own)
    clock.now += 20
    clock.step = step
    assert (await refused(Meter(own))).headers["Retry-After"] == "40"
    clock.now += 40
    await begun(own)


async def test_a_prompt_that_is_too_long_costs_nothing(clock: Clock) -> None:
    own = account()
    meter = await begun(own)
    await meter.prompt(900)
    late = await begun(own)
    clock.now += 30
    error = await refused(late, 101)
    assert error.headers["Retry-After"] == "30"
    assert "101" in error.message
    assert "100 of 1000" in error.message
    assert remaining(late)[1] == 100
    await late.prompt(100)
    assert remaining(late)[1] == 0


async def test_output_is_counted_together_and_may_exceed_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    own = account(store=store)
    meter = await begun(own)
    await meter.prompt(990)
    added: list[int] = []
    add = store.add

    async def watched(key: str, amount: int) -> tuple[int, float]:
        added.append(amount)
        await asyncio.sleep(0)
        return await add(key, amount)

    monkeypatch.setattr(store, "add", watched)
    for _ in range(10):
        meter.output(3)
    await meter.settle()
    assert sum(added) == 30
    assert len(added) <= 2
    assert remaining(meter)[1] == 0
    await refused(meter, 1)


async def test_output_is_counted_though_nobody_waits_for_it() -> None:
    own = account()
    meter = await begun(own)
    meter.output(7)
    for _ in range(20):
        await asyncio.sleep(0)
    assert remaining(await begun(own))[1] == 993


async def test_what_was_not_evaluated_is_given_back_in_its_own_minute(clock: Clock) -> None:
    own = account()
    meter = await begun(own)
    await meter.prompt(600)
    await meter.refund(600)
    assert remaining(meter)[1] == 1000
    await meter.prompt(600)
    clock.now += 61
    await meter.refund(600)
    assert remaining(await begun(own))[1] == 1000


async def test_connections_are_counted_while_they_are_open() -> None:
    own = account()
    with own.connection():
        with own.connection():
            with pytest.raises(ApiError) as caught, own.connection():
                pass
            assert (caught.value.status, caught.value.code) == (429, "too_many_connections")
            assert caught.value.headers["Retry-After"] == "1"
        with pytest.raises(ZeroDivisionError), own.connection():
            raise ZeroDivisionError
        with own.connection():
            pass


async def test_callers_have_accounts_of_their_own_which_are_not_kept_for_ever() -> None:
    store = Store()
    accounts = Accounts(store)
    first = accounts.of("key/a", LIMITS)
    with first.connection():
        assert accounts.of("key/a", LIMITS) is first
        assert accounts.of("key/b", LIMITS) is not first
    await begun(first)
    assert accounts.of("key/a", Limits(7, 7, 7)).limits.requests == 7
    del first
    gc.collect()
    assert remaining(await begun(accounts.of("key/a", LIMITS)))[0] == 98  # the store has remembered
