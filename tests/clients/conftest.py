"""The stack that the programs of this folder read."""

from collections.abc import Iterator

import pytest

from tests.e2e.making import stacks
from tests.e2e.stack import Stack


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A seeded org, and the daemon at work on it."""
    with stacks(request.config, tmp_path_factory) as make:
        made = make()
        made.start()
        yield made
