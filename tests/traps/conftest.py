"""The local org that each trap is set in: a few records of each object, long there."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from connector.devorg.server import DevOrg
from tests.copies import copied
from tests.traps.scene import Making, seed


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    """A local org with three records of each object."""
    async with DevOrg() as started:
        seed(started)
        yield started


@pytest.fixture
def copy(org: DevOrg, tmp_path: Path) -> Making:
    """Makes a replica of it; every call goes on with the same file."""
    return partial(copied, org, tmp_path / "replica.db")
