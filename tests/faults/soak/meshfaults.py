"""What happens to the broker and to the wire between it and the daemon."""

import asyncio
import random

from tests.faults.soak.later import Later
from tests.faults.soak.world import World


class MeshFaults:
    """Each method is a fault by the name that plans call it; it returns a line for the trace."""

    def __init__(self, world: World, later: Later) -> None:
        self._world = world
        self._later = later
        self._free = asyncio.Lock()

    def broker(self, rng: random.Random) -> str:
        orderly = rng.random() < 0.5
        self._world.forgetful |= not orderly
        self._later.soon(0.0, lambda: self._renewed_broker(rng.uniform(0.0, 0.4), orderly=orderly, forget=False))
        return "stopped" if orderly else "killed"

    def broker_forgets(self, rng: random.Random) -> str:
        self._world.forgetful = True
        self._later.soon(0.0, lambda: self._renewed_broker(rng.uniform(0.0, 0.3), orderly=False, forget=True))
        return ""

    async def _renewed_broker(self, seconds: float, *, orderly: bool, forget: bool) -> None:
        broker = self._world.broker
        self._world.restarted_broker = True
        async with self._free:
            await (broker.stop() if orderly else broker.kill())
            if forget:
                broker.forget()
            await asyncio.sleep(seconds)
            await broker.start()

    def broker_freezes(self, rng: random.Random) -> str:
        self._later.soon(0.0, lambda: self._frozen_broker(rng.uniform(0.05, 0.6)))
        return ""

    async def _frozen_broker(self, seconds: float) -> None:
        async with self._free:
            self._world.broker.freeze()
            await asyncio.sleep(seconds)
            self._world.broker.thaw()

    def wire_cut(self, _rng: random.Random) -> str:
        self._world.wire.cut()
        return ""

    def wire_silent(self, rng: random.Random) -> str:
        self._world.wire.silence()
        self._later.soon(rng.choice((0.1, 0.5, 2.2)), self._restored_wire)
        return ""

    def wire_slow(self, rng: random.Random) -> str:
        self._world.wire.delay_s = rng.choice((0.01, 0.05))
        self._later.soon(0.5, self._restored_wire)
        return ""

    async def _restored_wire(self) -> None:
        self._world.wire.restore()
