"""Errors in the words of an API whose fields have other names."""

import pytest

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.openai.messages_api.convert import WORDS as MESSAGES
from inferno_runtime.openai.responses_api.convert import WORDS as RESPONSES


@pytest.mark.parametrize(
    ("names", "message", "param", "told", "named"),
    [
        (RESPONSES, "your messages has 9.", "messages", "your input has 9.", "input"),
        (RESPONSES, "'max_tokens' is 0.", "max_tokens", "'max_output_tokens' is 0.", "max_output_tokens"),
        (RESPONSES, "tools[0].function.name is long.", "tools", "tools[0].name is long.", "tools"),
        (RESPONSES, "It has no messages.", None, "It has no messages.", None),
        (MESSAGES, "'stop' may hold 16 strings.", "stop", "'stop_sequences' may hold 16 strings.", "stop_sequences"),
        (MESSAGES, "A stop string is empty.", "stop", "A stop string is empty.", "stop_sequences"),
        (MESSAGES, "tools[0].function.parameters is", "tools", "tools[0].input_schema is", "tools"),
    ],
)
def test_an_error(names: dict[str, str], message: str, param: str | None, told: str, named: str | None) -> None:
    with pytest.raises(ApiError) as caught, errors.in_words(names):
        raise ApiError(400, message, param=param, retry_after=3)
    error = caught.value
    assert (error.message, error.param, error.headers) == (told, named, {"Retry-After": "3"})


def test_what_nests_too_deep() -> None:
    with pytest.raises(ApiError) as caught, errors.in_words({}):
        raise RecursionError
    assert caught.value.code == "invalid_json"
