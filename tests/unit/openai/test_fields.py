"""What is said of the fields of requests, held against the types and against what is refused."""

import msgspec
import pytest

from inferno_runtime.openai import fields
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest
from tests.unit.openai.test_bad_requests import CHAT, COMPLETION, SHARED


@pytest.mark.parametrize("kind", fields.REQUESTS)
def test_every_field_has_a_meaning(kind: type[msgspec.Struct]) -> None:
    described = fields.described(kind)
    assert sorted(described) == sorted(kind.__struct_fields__)
    assert all(field.meaning.endswith(".") for field in described.values())


def test_every_meaning_has_a_field() -> None:
    for kind, meanings in fields.MEANINGS.items():
        assert meanings.keys() <= {info.encode_name for info in msgspec.structs.fields(kind)}


def test_what_must_be_there_comes_first() -> None:
    assert list(fields.described(ChatRequest))[:2] == ["model", "messages"]


@pytest.mark.parametrize(
    ("kind", "wrong", "by_others"),
    [
        (ChatRequest, SHARED + CHAT, set()),
        (CompletionRequest, SHARED + COMPLETION, set()),
    ],
)
def test_what_is_refused_is_said(kind: type, wrong: list[tuple[str, object, str]], by_others: set[str]) -> None:
    refused = {name for name, _, code in wrong if code == "unsupported_parameter"} - {"messages"}
    assert {name for name, field in fields.described(kind).items() if field.refused} == refused | by_others
