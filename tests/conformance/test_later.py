"""What is promised and not there yet: how it is refused, and what it is to be."""

import pytest

from tests.conformance.covering import covers
from tests.conformance.wire import QUESTION, error_of
from tests.runtime.process import MODEL, ServerProcess

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


@covers("later.refused")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages"),  # of a model without a projector
        ({"messages": [{"role": "user", "content": [SOUND]}]}, "messages"),
    ],
    ids=str,
)
def test_of_a_chat_what_is_not_there_is_refused_by_name(
    server: ServerProcess, fields: dict[str, object], param: str
) -> None:
    refused(server, "chat/completions", {"messages": QUESTION, **fields}, param)


def refused(server: ServerProcess, endpoint: str, fields: dict[str, object], param: str) -> None:
    response = server.client.post(f"/v1/{endpoint}", json={"model": MODEL, **fields})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "unsupported_parameter")
