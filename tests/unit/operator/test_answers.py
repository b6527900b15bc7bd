"""What the API server's refusals mean: whether it is worth asking again, and when."""

import json
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from inferno_operator import cluster
from inferno_operator.errors import Conflict, Ending, ReconcileError, RequestRejected, TransientError


def refusal(status: int, reason: str = "", message: str = "said the API server", **more: Any) -> ApiException:
    error = ApiException(status=status, reason="a reason")
    error.body = json.dumps({"kind": "Status", "reason": reason, "message": message, "code": status} | more)
    return error


ENDING = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
# name: the answer, and what it is taken for
CASES: dict[str, tuple[ApiException, type[ReconcileError]]] = {
    "not permitted": (refusal(403, "Forbidden"), RequestRejected),
    "the namespace goes": (refusal(403, "Forbidden", details=ENDING), Ending),
    "not valid": (refusal(422, "Invalid"), RequestRejected),
    "not understood": (refusal(400, "BadRequest"), RequestRejected),
    "a misspelt field": (refusal(500, message=".spec.x: field not declared in schema"), RequestRejected),
    "written meanwhile": (refusal(409, "Conflict"), Conflict),
    "the token has expired": (refusal(401, "Unauthorized"), TransientError),
    "a list that took too long": (refusal(410, "Expired"), TransientError),
    "too much": (refusal(429, "TooManyRequests"), TransientError),
    "broken": (refusal(500, "InternalError"), TransientError),
    "overloaded": (refusal(503), TransientError),
}


@pytest.mark.parametrize("case", CASES)
def test_what_an_answer_means(case: str) -> None:
    answer, meaning = CASES[case]
    found = cluster._translated(answer)
    assert type(found) is meaning
    assert str(json.loads(str(answer.body))["message"]) in str(found)


@pytest.mark.parametrize(("header", "seconds"), [("3", 3.0), ("100000", 60.0), ("Wed, 21 Oct 2026", 0.0), (None, 0.0)])
def test_how_long_it_asks_to_be_left_alone(header: str | None, seconds: float) -> None:
    answer = refusal(429)
    answer.headers = {"Retry-After": header} if header else {}
    found = cluster._translated(answer)
    assert isinstance(found, TransientError)
    assert found.retry_after == seconds


def test_an_answer_that_is_no_status() -> None:
    answer = ApiException(status=502, reason="Bad Gateway")
    answer.body = "<html>"
    assert "Bad Gateway" in str(cluster._translated(answer))
