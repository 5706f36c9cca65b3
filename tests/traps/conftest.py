"""The local org that each trap is set in: a few records of each object, long there."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from connector.devorg.server import DevOrg
from tests.copies import copied
from tests.traps.scene import Making, seed


@pytest.fixture
def transport() -> str:
    """What the stream comes over; modules that are about the stream are run with both."""
    return "cometd"


@pytest.fixture
async def org(transport: str) -> AsyncIterator[DevOrg]:
    """A local org with three records of each object."""
    async with DevOrg(pubsub_port=0 if transport == "pubsub" else None) as started:
        seed(started)
        yield started


@pytest.fixture
def copy(org: DevOrg, tmp_path: Path, transport: str) -> Making:
    """Makes a replica of it; every call goes on with the same file."""
    return partial(copied, org, tmp_path / "replica.db", transport=transport)
