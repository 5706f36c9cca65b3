"""What happens in the org itself: to its stream and replay ids, its clock, its fields."""

import contextlib
import random

from connector.devorg.errors import OrgError
from connector.devorg.events.changes import OVERFLOW_ID
from connector.devorg.objects.residents import FIRST_EDITOR_ID
from tests.faults.soak import orders
from tests.faults.soak.answerfaults import ordered
from tests.faults.soak.fields import OBJECTS
from tests.faults.soak.later import Later
from tests.faults.soak.untold import change_untold, garbled
from tests.faults.soak.world import World

_HOUR_S = 3600


class OrgFaults:
    """Each method is a fault by the name that plans call it; it returns a line for the trace."""

    def __init__(self, world: World, later: Later) -> None:
        self._world = world
        self._later = later
        self._fields: list[tuple[str, str]] = []
        self._reset = False

    def replay(self, rng: random.Random) -> str:
        context = self._world.org.ctx
        self._world.events_lost = True
        self._later.soon(rng.uniform(0.0, 0.2), self._dropped_stream)
        match rng.randrange(3):
            case 0 if not self._reset:
                self._reset = True  # of two in a row the ids of the first could mean something in the second
                context.bus.reset()
                return "reset"
            case 1:
                return ordered(
                    self._world, rng, {"kind": f"{self._world.transport}:subscribe", "invalid_replay_id": True}
                )
            case _:
                context.bus.expire_all()
                return "all expired"

    async def _dropped_stream(self) -> None:
        self._world.drop_stream()

    def events(self, rng: random.Random) -> str:
        """Changes that an event tells of without telling what they are."""
        kind = rng.choice(("GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE", "GAP_OVERFLOW", "UPDATE"))
        # What is deleted with an account or a contact would need an event of its own.
        name = rng.choice(("Lead", "Invoice__c") if kind in ("GAP_DELETE", "GAP_UNDELETE") else OBJECTS)
        ids = change_untold(self._world, rng, name, kind)
        bus = self._world.org.ctx.bus
        if kind in ("GAP_OVERFLOW", "UPDATE") and self._world.position() is not None:
            self._world.whole.add(name)
        if kind == "GAP_OVERFLOW":
            bus.emit_without_body(name, kind, (OVERFLOW_ID,))
        elif kind == "UPDATE":
            prefix = self._world.org.ctx.schema.require(name).key_prefix
            bus.emit_without_body(name, kind, (f"{prefix}*",))
        elif ids:
            bus.emit_without_body(name, kind, ids)
        return f"{kind} {name} {' '.join(ids)}"

    def overflow(self, rng: random.Random) -> str:
        self._world.org.ctx.event_options.overflow_changes = rng.choice((3, 8, 100_000))
        return self._world.edit(rng, most=20)

    def undecodable(self, rng: random.Random) -> str:
        line, _ = garbled(self._world, rng, rng.choice(orders.GARBAGE))
        return line

    def stall(self, rng: random.Random) -> str:
        settings = self._world.org.ctx.settings
        if rng.random() < 0.5:
            settings.stream_delay_s = rng.choice((0.1, 0.5))
            return f"delayed by {settings.stream_delay_s}"
        settings.stream_stalled = True
        self._later.soon(rng.uniform(0.1, 1.0), self._flowing)
        return "stalled"

    async def _flowing(self) -> None:
        self._world.org.ctx.settings.stream_stalled = False
        self._world.org.ctx.bus.wake()

    def org_clock(self, rng: random.Random) -> str:
        seconds = rng.choice((1, 1, 2, 5, 61, -3, _HOUR_S, 3 * _HOUR_S, 25 * _HOUR_S, 4 * 24 * _HOUR_S))
        if self._world.held and abs(seconds) > _HOUR_S // 60:
            return "stays: a transaction is open"  # none of the org's lasts that long
        self._world.events_lost |= seconds > 24 * _HOUR_S  # the retention window is three days
        self._world.clock_went_back |= seconds < 0
        self._world.org.ctx.org.advance(seconds)
        self._world.org.ctx.bus.wake()
        return f"{seconds:+} s"

    def schema(self, rng: random.Random) -> str:
        """Fields come and go; nothing tells of the values of one that went."""
        schema, now_ms = self._world.org.ctx.schema, self._world.org.ctx.clock.now_ms()
        if self._fields and rng.random() < 0.4:
            name, field = self._fields.pop(rng.randrange(len(self._fields)))
            schema.remove_field(name, field, now_ms)
            self._world.needs.setdefault("verify", set()).add(name)
            return f"{name}.{field} is gone"
        name, field = rng.choice(OBJECTS[:4]), f"Extra{len(self._fields)}_{rng.getrandbits(16)}__c"
        self._world.needs.setdefault("verify", set()).add(name)
        schema.add_field(name, {"name": field, "type": "string", "length": 80}, now_ms)
        self._fields.append((name, field))
        editor = self._world.editor
        with self._world.org.ctx.org.transaction(FIRST_EDITOR_ID, "") as transaction:
            for record_id in rng.sample(editor.live(name), min(3, len(editor.live(name)))):
                with contextlib.suppress(OrgError):  # held by a transaction, or a converted lead
                    transaction.update(name, record_id, {field: f"value {rng.getrandbits(16)}"})
        return f"{name}.{field} came"
