"""The loads: the same for everybody, and within what the servers are started with."""

import pytest

from benchmarks.loads import LOADS, QUICK, Load, User
from benchmarks.targets import TARGETS

WORDS = [f"word{number}" for number in range(500)]
OF_TEMPLATE = 20  # tokens a message, generously


def most_tokens(user: User) -> int:
    """Tokens of the longest request of a user, answer included."""
    system = len(user.system.split()) + OF_TEMPLATE
    turns = [len(turn.prompt.split()) + turn.max_tokens + OF_TEMPLATE for turn in user.turns]
    return system + (sum(turns) if user.remembers else max(turns))


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_every_request_fits_its_slot(load: Load) -> None:
    assert max(most_tokens(user) for user in load.make(WORDS)) < load.context


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_the_same_seed_makes_the_same_load(load: Load) -> None:
    assert load.make(WORDS, seed="1") == load.make(WORDS, seed="1")
    assert load.make(WORDS, seed="1") != load.make(WORDS, seed="2")


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_smaller_share_has_as_many_users(load: Load) -> None:
    part, whole = load.make(WORDS, 0.25), load.make(WORDS)
    assert len(part) == len(whole)
    assert 1 <= len(part[0].turns) <= len(whole[0].turns)


def test_a_shared_prefix_is_shared() -> None:
    users = LOADS["shared8"].make(WORDS)
    assert len({user.system for user in users}) == 1
    assert len({user.turns[0].prompt for user in users}) == 8


def test_conversations_have_three_users_for_each_slot() -> None:
    load = LOADS["conversations"]
    users = load.make(WORDS)
    assert len(users) == 3 * load.slots
    assert all(user.remembers for user in users)


def test_names_are_known() -> None:
    assert set(QUICK) <= set(LOADS)
    assert {target.load for target in TARGETS} <= set(LOADS)
