"""When the words of a few changes are put into the text index: once it is quiet, and now and then where it never is."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar, cast

from connector.app.indexing import LOOK_S, QUIET_S, SETTLE_S, keep_indexed
from connector.ports import Unit
from tests.warp import run_warped

T = TypeVar("T")


class Replica:
    """A replica in which nothing is missing; notes when it was settled."""

    def __init__(self) -> None:
        self.version = 1
        self.settled_s: list[float] = []

    async def run(self, work: Callable[[Unit], T]) -> T:
        return work(cast("Unit", self))

    def last_version(self) -> int:
        return self.version

    def extend_indexes(self, _name: str, _rows: int) -> bool:
        return False

    def settle_index(self, _name: str) -> None:
        self.settled_s.append(asyncio.get_running_loop().time())


def settled(busy_s: int) -> list[float]:
    """When a replica is settled that changes every second for so long, seconds; watched for three minutes."""
    replica = Replica()

    async def work() -> None:
        began_s = asyncio.get_running_loop().time()
        keeping = asyncio.create_task(keep_indexed(replica, lambda: ["Contact"], lambda _unit, _name: True))
        for second in range(180):
            replica.version += second < busy_s
            await asyncio.sleep(1)
        keeping.cancel()
        replica.settled_s = [at - began_s for at in replica.settled_s]

    run_warped(work())
    return replica.settled_s


def test_a_change_alone_waits_until_it_is_quiet() -> None:
    """Two looks that find the same version."""
    assert QUIET_S < settled(1)[0] < 2 * QUIET_S + 3 * LOOK_S


def test_changes_that_keep_coming_wait_for_a_minute() -> None:
    """Many share a write, and none waits for ever."""
    times = settled(180)
    assert len(times) == 2
    assert all(SETTLE_S <= later - earlier < SETTLE_S + 2 * QUIET_S for earlier, later in pairwise([0.0, *times]))
