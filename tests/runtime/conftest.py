"""One server for all tests that do not end it."""

from collections.abc import Iterator

import openai
import pytest

from tests.runtime.process import ServerProcess


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, which refuses answers that are not as it knows them."""
    with openai.OpenAI(
        base_url=server.url, api_key="none", max_retries=0, timeout=60, _strict_response_validation=True
    ) as strict:
        yield strict


@pytest.fixture(scope="session")
def lenient(client: openai.OpenAI) -> openai.OpenAI:
    """The same, for streams of `/v1/completions`: its types have no place for the null that OpenAI sends there, as the
    `finish_reason` of all events but the last.
    """
    return client.with_options(_extra_kwargs={"_strict_response_validation": False})
