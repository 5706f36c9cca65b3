"""Stacks to be broken: each test has one of its own."""

from collections.abc import Iterator

import pytest

from tests.e2e.making import MakeStack, stacks
from tests.e2e.stack import Stack


@pytest.fixture
def make_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStack]:
    """Starts broker and org; the daemon is the test's own to start."""
    with stacks(request.config, tmp_path_factory) as make:
        yield make


@pytest.fixture
def stack(make_stack: MakeStack) -> Stack:
    """A seeded org, and the daemon at work on it."""
    made = make_stack()
    made.start()
    return made
