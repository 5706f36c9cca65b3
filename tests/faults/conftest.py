"""Stacks to be broken: one that a module's tests share, and others for those that leave nothing whole behind."""

from collections.abc import Iterator

import pytest

from tests.e2e.making import MakeStack, stacks
from tests.e2e.stack import Stack


@pytest.fixture
def make_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStack]:
    """Starts broker and org for one test; the daemon is the test's own to start."""
    with stacks(request.config, tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStack]:
    """The same for all tests of a module."""
    with stacks(request.config, tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def stack(make_shared: MakeStack) -> Stack:
    """A seeded org, and the daemon at work on it."""
    made = make_shared()
    made.start()
    return made
