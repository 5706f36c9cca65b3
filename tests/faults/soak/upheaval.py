"""A plan's steps: edits and commands here, faults in the modules beside; and how all of it ends."""

import random

from tests.e2e.watcher import ROOT
from tests.faults.soak.answerfaults import AnswerFaults
from tests.faults.soak.daemonfaults import DaemonFaults
from tests.faults.soak.later import Later
from tests.faults.soak.meshfaults import MeshFaults
from tests.faults.soak.orgfaults import OrgFaults
from tests.faults.soak.world import World


class Upheaval:
    """Makes a plan's steps happen; what they begin, `end` ends."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._later = Later()
        self._homes = (
            self,
            *(kind(world, self._later) for kind in (DaemonFaults, MeshFaults, AnswerFaults, OrgFaults)),
        )
        self._controls = 0
        self._paused = False

    async def step(self, kind: str, rng: random.Random) -> None:
        """One step; its line goes into the trace."""
        home = next(home for home in self._homes if hasattr(home, kind))
        line = getattr(home, kind)(rng)
        self._world.note(f"{kind}: {line}")

    async def end(self, rng: random.Random) -> None:
        """Everything works again."""
        world, context = self._world, self._world.org.ctx
        context.faults.clear()
        context.settings.stream_stalled = False
        context.settings.stream_delay_s = 0.0
        await self._later.all_done()
        context.faults.clear()
        for key in world.held:
            context.org.release(key)
            world.note(f"released {key[:8]}")
        world.wire.restore()
        if rng.random() < 0.5:
            world.daemon.pull("clock_ms", 0)
        world.daemon.pull("dies_in", 0)
        world.ledger.at_next_create.clear()
        if self._paused:  # a resumption is a poll of everything, which would put right what nothing else does
            self._say("control/resume")
        context.bus.wake()
        world.daemon.start()

    # Edits

    def edit(self, rng: random.Random) -> str:
        return self._world.edit(rng)

    def edits(self, rng: random.Random) -> str:
        return " | ".join(self._world.edit(rng) for _ in range(rng.randint(2, 5)))

    def bulk(self, rng: random.Random) -> str:
        return self._world.edit(rng, most=rng.choice((4, 10, 40)))

    def silent(self, rng: random.Random) -> str:
        return self._world.edit(rng, most=2, announce=False)

    def hold(self, rng: random.Random) -> str:
        return self._world.edit(rng, most=4, hold=True)

    def release(self, rng: random.Random) -> str:
        if not self._world.held:
            return "nothing held"
        key = self._world.held.pop(rng.randrange(len(self._world.held)))
        self._world.org.ctx.org.release(key)
        return key[:8]

    def abandon(self, rng: random.Random) -> str:
        if not self._world.held:
            return "nothing held"
        key = self._world.held.pop(rng.randrange(len(self._world.held)))
        self._world.org.ctx.org.abandon(key)
        return key[:8]

    # The service

    def command(self, rng: random.Random) -> str:
        return self._world.service.command(rng)

    def burst(self, rng: random.Random) -> str:
        return self._world.service.burst(rng)

    def malformed(self, rng: random.Random) -> str:
        return self._world.service.malformed(rng)

    def repeat(self, rng: random.Random) -> str:
        return self._world.service.repeat(rng)

    def control(self, rng: random.Random) -> str:
        verb = rng.choice(("status", "status", "sync", "verify"))
        self._say(f"control/{verb}")
        return verb

    def pause(self, rng: random.Random) -> str:
        self._paused = True
        self._say("control/pause")
        self._later.soon(rng.uniform(0.05, 0.5), self._resume)
        return ""

    async def _resume(self) -> None:
        self._say("control/resume")

    def _say(self, topic: str) -> None:
        self._controls += 1
        body = {"reply_to": "soak/controls", "correlation": f"c{self._controls}"}
        self._world.watcher.send(f"{ROOT}/{topic}", body, wait=False)
