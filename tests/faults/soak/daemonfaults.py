"""What happens to the daemon, its database and its clock."""

import asyncio
import random
import sqlite3

from tests.faults.soak.later import Later
from tests.faults.soak.world import World

_HOUR_S = 3600
# Nobody sets a clock forward and back again during one call.
_CLOCK_GAP_S = 1.0


class DaemonFaults:
    """Each method is a fault by the name that plans call it; it returns a line for the trace."""

    def __init__(self, world: World, later: Later) -> None:
        self._world = world
        self._later = later
        self._free = asyncio.Lock()
        self._clock_set_s = 0.0

    def kill(self, rng: random.Random) -> str:
        self._world.daemon.kill()
        self._later.soon(rng.choice((0.0, 0.05, 0.3)), self._begin)
        return ""

    def terminate(self, _rng: random.Random) -> str:
        self._later.soon(0.0, self._restart)
        return ""

    async def _begin(self) -> None:
        async with self._free:
            self._world.daemon.start()
            self._world.note("daemon started")

    async def _restart(self) -> None:
        async with self._free:
            code = await self._world.daemon.stop()
            self._world.note(f"daemon stopped with {code}")
            self._world.daemon.start()

    def clock(self, rng: random.Random) -> str:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._clock_set_s < _CLOCK_GAP_S:
            return "was set a moment ago"
        self._clock_set_s = now_s
        offset_ms = rng.choice((0, 1, -1, 3, -3, 7)) * rng.choice((_HOUR_S, 7)) * 1000
        self._world.daemon.pull("clock_ms", offset_ms)
        return f"{offset_ms / 1000:+} s"

    def dies(self, rng: random.Random) -> str:
        """SIGKILL just before or just after one of the next commits."""
        commits, after = rng.randint(1, 12), rng.random() < 0.5
        self._world.daemon.pull("dies_after", after)
        self._world.daemon.pull("dies_in", commits)
        return f"{'after' if after else 'before'} commit {commits}"

    def dies_writing(self, rng: random.Random) -> str:
        """SIGKILL before the answer to its next create is stored, or just after."""
        after = rng.random() < 0.2
        self._world.daemon.pull("dies_after", after)
        self._world.ledger.at_next_create.append(lambda: self._world.daemon.pull("dies_in", 1))
        return "after" if after else "before"

    def disk_full(self, rng: random.Random) -> str:
        self._world.daemon.pull("disk_full", 1)
        self._later.soon(rng.uniform(0.05, 0.6), self._room_again)
        return ""

    async def _room_again(self) -> None:
        self._world.daemon.pull("disk_full", 0)

    def locked(self, rng: random.Random) -> str:
        self._later.soon(0.0, lambda: self._keep_locked(rng.uniform(0.05, 0.7)))
        return ""

    async def _keep_locked(self, seconds: float) -> None:
        """Another program writes to the replica for a while."""
        if not self._world.replica.path.exists():
            return
        other = sqlite3.connect(self._world.replica.path, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(seconds)
            other.execute("ROLLBACK")
        except sqlite3.OperationalError:
            pass  # not set up yet, or the daemon is writing at this moment
        finally:
            other.close()
