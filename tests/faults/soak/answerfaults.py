"""What is wrong with the org's answers, and whether there are any."""

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

from tests.faults.soak import orders
from tests.faults.soak.later import Later
from tests.faults.soak.world import World


def ordered(world: World, rng: random.Random, order: Mapping[str, Any]) -> str:
    """Tell the org what to do wrong, at once or after a few calls."""
    order = {**order, "skip": rng.choice((0, 0, 0, 1, 3))}
    world.org.ctx.faults.add(**order)
    return json.dumps({name: value for name, value in order.items() if value})


class AnswerFaults:
    """Each method is a fault by the name that plans call it; it returns a line for the trace."""

    def __init__(self, world: World, later: Later) -> None:
        self._world = world
        self._later = later
        self._free = asyncio.Lock()

    def rest(self, rng: random.Random) -> str:
        kind = "bulk" if rng.random() < 0.15 else "rest"
        path = rng.choice(("", "", "", "/query", "/composite", "/sobjects", "/describe"))
        return ordered(
            self._world, rng, {"kind": kind, "path": path, **rng.choice(orders.REST), "count": rng.randint(1, 3)}
        )

    def rest_lost(self, rng: random.Random) -> str:
        if rng.random() < 0.5:
            self._world.ledger.at_next_create.append(lambda: self._world.org.drop_connections("/services/data"))
            return "of the next create"
        method, path = rng.choice(orders.WRITES)
        where = {"kind": "rest", "method": method, "path": path}
        return ordered(self._world, rng, {**where, **rng.choice(orders.LOST), "count": rng.randint(2, 5)})

    def oauth(self, rng: random.Random) -> str:
        self._world.org.ctx.tokens.expire("access")
        return ordered(self._world, rng, {"kind": "oauth", **rng.choice(orders.OAUTH), "count": rng.randint(1, 3)})

    def stream(self, rng: random.Random) -> str:
        return ordered(
            self._world, rng, {**rng.choice(orders.STREAM[self._world.transport]), "count": rng.randint(1, 2)}
        )

    def stream_http(self, rng: random.Random) -> str:
        kind = self._world.transport
        return ordered(
            self._world, rng, {"kind": kind, **rng.choice(orders.STREAM_HTTP[kind]), "count": rng.randint(1, 2)}
        )

    def deliver(self, rng: random.Random) -> str:
        transport = self._world.transport
        order = rng.choice(orders.DELIVER[transport])
        self._world.events_cut |= "truncate" in order
        return ordered(self._world, rng, {"kind": f"{transport}:deliver", **order})

    def tokens(self, _rng: random.Random) -> str:
        return f"{self._world.org.ctx.tokens.expire('access')} expired"

    def connections(self, rng: random.Random) -> str:
        prefix = rng.choice(("", "/cometd/", "/services/data"))
        if prefix == "/cometd/":
            return f"stream dropped: {self._world.drop_stream()}"
        return f"{self._world.org.drop_connections(prefix)} dropped {prefix}"

    def org_down(self, rng: random.Random) -> str:
        self._later.soon(0.0, lambda: self._hung_up(rng.uniform(0.05, 0.8)))
        return ""

    async def _hung_up(self, seconds: float) -> None:
        async with self._free:
            await self._world.org.hang_up()
            await asyncio.sleep(seconds)
            await self._world.org.listen()
