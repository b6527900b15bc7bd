from inferno_operator.api.kinds import MODEL, POD
from inferno_operator.api.resource import Key
from inferno_operator.controller import still_listed

GONE, HERE = Key("demo", "gone"), Key("demo", "here")


def test_what_has_ended_meanwhile_is_not_waited_for() -> None:
    behind = {MODEL: {GONE: 7, HERE: 8}, POD: {GONE: 9}}
    assert still_listed(behind, {MODEL: {HERE: 12}}) == {MODEL: {HERE: 8}, POD: {}}
