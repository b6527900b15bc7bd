from collections.abc import Iterator
from pathlib import Path

import pytest

from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.download import Downloader
from inferno_runtime.fetch.http import Client
from inferno_runtime.fetch.policy import Policy
from inferno_runtime.fetch.progress import Progress
from tests.unit.fetch.web import Sleeps, Web


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
def downloader(cache: Cache, sleeps: Sleeps) -> Downloader:
    return Downloader(Client(read_seconds=0.3), cache, Progress(), policy=Policy(attempts=4), sleep=sleeps)
