"""Stored responses: whose they are, how long they stay, and who makes room for whom."""

import pytest

from inferno_runtime.server.response_store import ResponseStore, StoredResponse


class Clock:
    """A time that is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def of(size: int) -> StoredResponse:
    return StoredResponse(b"x" * (size - size // 2), b"x" * (size // 2))


def held(store: ResponseStore, account: str, *names: str) -> list[str]:
    return [name for name in names if store.get(account, name) is not None]


def test_a_response_belongs_to_its_account() -> None:
    store = ResponseStore(10, 1000, 60)
    store.put("one", "a", of(10))
    assert store.get("one", "a") == of(10)
    assert store.get("other", "a") is None
    assert not store.delete("other", "a")
    assert store.delete("one", "a")
    assert not store.delete("one", "a")
    assert (len(store), store.size) == (0, 0)


def test_items_are_found_by_their_ids() -> None:
    store = ResponseStore(2, 1000, 60)
    for name in ("a", "b"):
        store.put("one", name, StoredResponse(b"x", b"y", (f"{name}1", f"{name}2")))
    found = store.find("one", "a2")
    assert found is store.get("one", "a")
    assert store.find("other", "a2") is None
    store.put("one", "c", of(10))  # for which the oldest goes
    assert (store.find("one", "a1"), store.find("one", "a2")) == (None, None)
    assert store.find("one", "b1") is not None


def test_age() -> None:
    clock = Clock()
    store = ResponseStore(10, 1000, 60, clock)
    store.put("one", "a", of(10))
    clock.now = 30
    store.put("two", "b", of(10))
    store.get("one", "a")  # looking at it makes it no younger
    clock.now = 60
    assert store.get("one", "a") is None
    assert store.get("two", "b") is not None
    assert (len(store), store.size) == (1, 10)
    clock.now = 90
    assert store.get("two", "b") is None
    assert (len(store), store.size) == (0, 0)


@pytest.mark.parametrize(("most", "most_bytes"), [(3, 1000), (100, 35)])
def test_the_oldest_make_room(most: int, most_bytes: int) -> None:
    store = ResponseStore(most, most_bytes, 60)
    for name in "abcde":
        store.put("one", name, of(10))
    assert held(store, "one", *"abcde") == ["c", "d", "e"]
    assert (len(store), store.size) == (3, 30)


@pytest.mark.parametrize(("most", "most_bytes"), [(4, 1000), (100, 45)])
def test_whoever_holds_most_makes_room(most: int, most_bytes: int) -> None:
    store = ResponseStore(most, most_bytes, 60)
    store.put("small", "s", of(10))
    for number in range(50):
        store.put("large", str(number), of(10))
    assert store.get("small", "s") is not None
    assert held(store, "large", *map(str, range(50))) == ["47", "48", "49"]


def test_one_that_is_too_large_drives_nobody_out() -> None:
    store = ResponseStore(10, 100, 60)
    store.put("one", "a", of(60))
    store.put("one", "b", of(101))
    assert held(store, "one", "a", "b") == ["a"]


def test_a_store_that_keeps_nothing() -> None:
    store = ResponseStore(0, 100, 60)
    assert not store.keeps
    store.put("one", "a", of(1))
    assert len(store) == 0
