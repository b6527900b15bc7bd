from typing import Any

import pytest

from inferno_operator.api import names
from inferno_operator.api.resource import Key
from inferno_operator.store import Packed, Store

TINY = Key("demo", "tiny")
CONFIG = Key("demo", "tiny-config")


def raw(version: int, owner: str = "tiny", **more: Any) -> dict[str, Any]:
    labels = {names.INSTANCE: owner, names.MANAGED_BY: names.FIELD_MANAGER}
    metadata = {"namespace": "demo", "name": "tiny-config", "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata} | more


def config(version: int, owner: str = "tiny", **more: Any) -> Packed:
    return Packed.of("ConfigMap", raw(version, owner, **more))


@pytest.fixture
def store() -> Store:
    return Store()


def test_what_is_new_is_news_and_its_echo_is_not(store: Store) -> None:
    assert store.put("ConfigMap", config(5)) == TINY
    assert store.put("ConfigMap", config(5)) is None
    assert store.put("ConfigMap", config(4, data={"a": "older"})) is None
    assert store.put("ConfigMap", config(6, data={"a": "b"})) == TINY
    held = store.get("ConfigMap", CONFIG)
    assert held is not None
    assert held["data"] == {"a": "b"}


def test_a_model_concerns_itself(store: Store) -> None:
    body = {"metadata": {"namespace": "demo", "name": "tiny", "resourceVersion": "1"}}
    assert store.put(names.KIND, Packed.of(names.KIND, body)) == TINY


def test_what_has_ended_is_gone_and_an_older_answer_does_not_bring_it_back(store: Store) -> None:
    store.put("ConfigMap", config(5))
    assert store.remove("ConfigMap", config(7)) == TINY
    assert store.get("ConfigMap", CONFIG) is None
    assert store.put("ConfigMap", config(6)) is None
    assert store.put("ConfigMap", config(8)) == TINY, "made again"


def test_the_end_of_a_namesake_that_was_replaced_is_no_news(store: Store) -> None:
    store.put("ConfigMap", config(9))
    assert store.remove("ConfigMap", config(7)) is None
    assert store.get("ConfigMap", CONFIG) is not None


def test_what_belongs_to_a_model(store: Store) -> None:
    store.put("ConfigMap", config(1))
    assert [each["metadata"]["name"] for each in store.owned(TINY, "ConfigMap")] == ["tiny-config"]
    assert store.owned(TINY, "Service") == []
    store.put("ConfigMap", config(2, owner="other"))
    assert store.owned(TINY, "ConfigMap") == []
    assert len(store.owned(Key("demo", "other"), "ConfigMap")) == 1
    store.forget("ConfigMap", CONFIG)
    assert store.owned(Key("demo", "other"), "ConfigMap") == []
    assert len(store) == 0


def test_what_a_list_shows_and_nobody_has_reported(store: Store) -> None:
    other = Key("demo", "other-config")
    store.put("ConfigMap", config(5))
    assert store.behind("ConfigMap", {CONFIG: 5}) == {}
    assert store.behind("ConfigMap", {CONFIG: 6, other: 1}) == {CONFIG: 6, other: 1}
    store.remove("ConfigMap", config(7))
    assert store.behind("ConfigMap", {CONFIG: 6}) == {}, "it has ended since"


def test_what_ended_while_nobody_watched(store: Store) -> None:
    store.put("ConfigMap", config(5))
    assert store.ghosts("ConfigMap", {CONFIG: 5}, 9, [None]) == []
    assert store.ghosts("ConfigMap", {}, 9, ["elsewhere"]) == []
    assert store.ghosts("ConfigMap", {}, 4, [None]) == [], "made after the list was taken"
    assert store.ghosts("ConfigMap", {}, 9, ["demo"]) == [CONFIG]


def test_what_is_kept_is_a_copy_without_the_owners_of_each_field(store: Store) -> None:
    body = raw(1)
    body["metadata"]["managedFields"] = [
        {"manager": names.FIELD_MANAGER, "fieldsV1": {"f:data": {}}},
        {"manager": names.FIELD_MANAGER, "subresource": "status"},
    ]
    store.put("ConfigMap", Packed.of("ConfigMap", body))
    held = store.get("ConfigMap", CONFIG)
    assert held is not None
    assert held["metadata"]["managedFields"] == [{"manager": names.FIELD_MANAGER}]
    held["metadata"]["name"] = "changed"
    assert store.get("ConfigMap", CONFIG) != held


def test_of_a_pod_only_its_state_is_kept(store: Store) -> None:
    labels = {names.INSTANCE: "tiny"}
    pod = {
        "metadata": {"namespace": "demo", "name": "tiny-1", "resourceVersion": "1", "labels": labels},
        "spec": {
            "containers": [{"name": "runtime", "image": "i", "resources": {"limits": {"cpu": "1"}}}],
            "nodeName": "n",
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1", "qosClass": "BestEffort"},
    }
    assert store.put("Pod", Packed.of("Pod", pod)) == TINY
    [held] = store.owned(TINY, "Pod")
    assert held["status"] == {"phase": "Running", "podIP": "10.0.0.1"}
    assert held["spec"] == {"containers": [{"name": "runtime", "resources": {"limits": {"cpu": "1"}}}]}
