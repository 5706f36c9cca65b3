"""The stack that the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.e2e.making import MakeStack, stacks
from tests.e2e.stack import Stack


@pytest.fixture(scope="module")
def make_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStack]:
    """Starts broker and org; the daemon is the test's own to start."""
    with stacks(request.config, tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def stack(make_stack: MakeStack) -> Stack:
    """A seeded org, and the daemon at work on it."""
    made = make_stack()
    made.start()
    return made
