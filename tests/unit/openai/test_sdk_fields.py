"""Every field that OpenAI's own client can send is known here: it is honoured, changes nothing, or is refused by name."""

import inspect
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from openai import resources
from openai.resources.responses import Responses
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import chat_completion_stream_options_param
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from inferno_runtime.openai import fields
from inferno_runtime.openai.embeddings import EmbeddingsRequest
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, StreamOptions
from inferno_runtime.openai.responses_api.requests import ResponsesRequest
from tests.unit.openai.test_bad_requests import CHAT, COMPLETION, SHARED

REQUESTS: list[tuple[Any, Any, type[msgspec.Struct]]] = [
    (chat_create_params.CompletionCreateParams, resources.chat.Completions, ChatRequest),
    (completion_create_params.CompletionCreateParams, resources.Completions, CompletionRequest),
    (response_create_params.ResponseCreateParams, Responses, ResponsesRequest),
    (embedding_create_params.EmbeddingCreateParams, resources.Embeddings, EmbeddingsRequest),
]
OF_THE_CLIENT = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


def known_to_the_client(params: Any) -> set[str]:
    """The fields of a request: of any of its types, if there are several for one (with and without `stream`)."""
    return {name for kind in get_args(params) or (params,) for name in get_type_hints(kind)}


@pytest.mark.parametrize(("params", "resource", "kind"), REQUESTS, ids=lambda value: getattr(value, "__name__", None))
def test_no_field_of_the_client_is_unknown(params: Any, resource: Any, kind: type[msgspec.Struct]) -> None:
    sent = known_to_the_client(params) | set(inspect.signature(resource.create).parameters) - OF_THE_CLIENT
    assert len(sent) > 4
    assert sent - set(fields.described(kind)) == set()


def test_nor_are_the_options_of_a_stream() -> None:
    options = get_type_hints(chat_completion_stream_options_param.ChatCompletionStreamOptionsParam)
    assert set(options) == set(fields.described(StreamOptions))


@pytest.mark.parametrize(("kind", "wrong"), [(ChatRequest, SHARED + CHAT), (CompletionRequest, SHARED + COMPLETION)])
def test_also_a_field_that_changes_nothing_must_be_of_its_type(
    kind: type[msgspec.Struct], wrong: list[tuple[str, Any, str]]
) -> None:
    ignored = {name for name, field in fields.described(kind).items() if field.ignored}
    assert ignored
    assert ignored <= {name for name, _, _ in wrong}


@pytest.mark.parametrize("kind", fields.REQUESTS)
def test_no_field_is_both_refused_and_without_effect(kind: type[msgspec.Struct]) -> None:
    assert not [name for name, field in fields.described(kind).items() if field.ignored and field.refused]
