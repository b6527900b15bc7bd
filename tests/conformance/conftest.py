"""Servers over each format of the models."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.conformance.models import FORMATS, Model, encoder, generator
from tests.conformance.trouble import LONG_CONTEXT
from tests.runtime.process import ServerProcess
from tests.unit.server.conftest import start
from tests.unit.server.test_websocket import connect

__all__ = ["connect", "start"]  # servers in the test's own process, over an engine without a model

Serve = Callable[..., ServerProcess]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "covers(*promises): the promises that a test holds the server to")


@pytest.fixture(scope="session", params=FORMATS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The model that generates."""
    return generator(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def serve(model: Model) -> Serve:
    """Starts a server of a test's own: `with serve("--slots", "1") as server`."""
    return partial(ServerProcess, str(model.path), "--name", model.name, *model.flags)


@pytest.fixture(scope="session")
def server(serve: Serve) -> Iterator[ServerProcess]:
    """The server of all tests that do not end it, without limits."""
    with serve() as process:
        yield process


@pytest.fixture(scope="session")
def roomy(serve: Serve) -> Iterator[ServerProcess]:
    """A server that takes `ENDLESS` requests, for all tests that do not end it and leave nothing running."""
    with serve(*LONG_CONTEXT) as process:
        yield process


@pytest.fixture(scope="session", params=FORMATS)
def embedding_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The model that embeds."""
    return encoder(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def embedder(embedding_model: Model) -> Iterator[ServerProcess]:
    """A server that embeds."""
    with ServerProcess(str(embedding_model.path), "--name", embedding_model.name) as process:
        yield process
