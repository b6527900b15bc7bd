"""Which promises a test holds the server to."""

import pytest


def covers(*promises: str) -> pytest.MarkDecorator:
    """Mark a test, or a row of its table, with the promises that it covers, by their names in `promises.yaml`."""
    return pytest.mark.covers(*promises)


def later(what: str) -> pytest.MarkDecorator:
    """Mark a test of a promise that this server does not keep yet; it fails as soon as it does, so that this goes."""
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"{what} is not served yet")
