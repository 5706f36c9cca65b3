"""What goes wrong: each fault by the name that plans call it, and how all of it ends."""

import asyncio
import contextlib
import json
import random
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.events.changes import OVERFLOW_ID, event_header
from connector.devorg.objects.residents import FIRST_EDITOR_ID
from tests.e2e.watcher import ROOT
from tests.faults.soak import orders
from tests.faults.soak.fields import OBJECTS
from tests.faults.soak.world import World

_HOUR_S = 3600
# Nobody sets a clock forward and back again during one call.
_CLOCK_GAP_S = 1.0


class Upheaval:
    """Makes a plan's steps happen; what they begin, `end` ends.

    Args:
        world: Where.
        rng: Of what is left over at the end.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._later: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._broker_free = asyncio.Lock()
        self._daemon_free = asyncio.Lock()
        self._org_free = asyncio.Lock()
        self._held: list[str] = []
        self._fields: list[tuple[str, str]] = []
        self._reset = False
        self._controls = 0
        self._clock_set_s = 0.0

    async def step(self, kind: str, rng: random.Random) -> None:
        """One step; its line goes into the trace."""
        line = getattr(self, f"_{kind}")(rng)
        self._world.note(f"{kind}: {line}")

    async def end(self, rng: random.Random) -> None:
        """Everything works again."""
        world, context = self._world, self._world.org.ctx
        context.faults.clear()
        context.settings.stream_stalled = False
        context.settings.stream_delay_s = 0.0
        while self._later:
            await asyncio.wait(self._later)
        if self._broken is not None:
            raise self._broken
        context.faults.clear()
        for key in self._held:
            context.org.release(key)
            world.note(f"released {key[:8]}")
        world.wire.restore()
        if rng.random() < 0.5:
            world.daemon.pull("clock_ms", 0)
        world.daemon.pull("dies_in", 0)
        world.ledger.at_next_create = None
        self._say("control/resume")
        context.bus.wake()
        world.daemon.start()

    # Edits

    def _edit(self, rng: random.Random) -> str:
        return self._edited(rng)

    def _edits(self, rng: random.Random) -> str:
        return " | ".join(self._edited(rng) for _ in range(rng.randint(2, 5)))

    def _bulk(self, rng: random.Random) -> str:
        return self._edited(rng, most=rng.choice((4, 10, 40)))

    def _silent(self, rng: random.Random) -> str:
        return self._edited(rng, most=2, announce=False)

    def _hold(self, rng: random.Random) -> str:
        return self._edited(rng, most=4, hold=True)

    def _release(self, rng: random.Random) -> str:
        if not self._held:
            return "nothing held"
        key = self._held.pop(rng.randrange(len(self._held)))
        self._world.org.ctx.org.release(key)
        return key[:8]

    def _abandon(self, rng: random.Random) -> str:
        if not self._held:
            return "nothing held"
        key = self._held.pop(rng.randrange(len(self._held)))
        self._world.org.ctx.org.abandon(key)
        return key[:8]

    def _edited(self, rng: random.Random, **how: Any) -> str:
        done = self._world.editor.edit(rng, **how)
        for verb, names in done.needs.items():
            self._world.needs.setdefault(verb, set()).update(names)
        if done.held is not None:
            self._held.append(done.held)
        return done.line

    # The service

    def _command(self, rng: random.Random) -> str:
        return self._world.service.command(rng)

    def _malformed(self, rng: random.Random) -> str:
        return self._world.service.malformed(rng)

    def _repeat(self, rng: random.Random) -> str:
        return self._world.service.repeat(rng)

    def _control(self, rng: random.Random) -> str:
        verb = rng.choice(("status", "status", "sync", "verify"))
        self._say(f"control/{verb}")
        return verb

    def _pause(self, rng: random.Random) -> str:
        self._say("control/pause")
        self._soon(rng.uniform(0.05, 0.5), self._resume)
        return ""

    async def _resume(self) -> None:
        self._say("control/resume")

    def _say(self, topic: str) -> None:
        self._controls += 1
        body = {"reply_to": "soak/controls", "correlation": f"c{self._controls}"}
        self._world.watcher.send(f"{ROOT}/{topic}", body, wait=False)

    # The daemon

    def _kill(self, rng: random.Random) -> str:
        self._world.daemon.kill()
        self._soon(rng.choice((0.0, 0.05, 0.3)), self._begin)
        return ""

    def _terminate(self, _rng: random.Random) -> str:
        self._soon(0.0, self._restart)
        return ""

    async def _begin(self) -> None:
        async with self._daemon_free:
            self._world.daemon.start()
            self._world.note("daemon started")

    async def _restart(self) -> None:
        async with self._daemon_free:
            code = await self._world.daemon.stop()
            self._world.note(f"daemon stopped with {code}")
            self._world.daemon.start()

    def _clock(self, rng: random.Random) -> str:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._clock_set_s < _CLOCK_GAP_S:
            return "was set a moment ago"
        self._clock_set_s = now_s
        offset_ms = rng.choice((0, 1, -1, 3, -3, 7)) * rng.choice((_HOUR_S, 7)) * 1000
        self._world.daemon.pull("clock_ms", offset_ms)
        return f"{offset_ms / 1000:+} s"

    def _dies(self, rng: random.Random) -> str:
        """SIGKILL just before or just after one of the next commits."""
        commits, after = rng.randint(1, 12), rng.random() < 0.5
        self._world.daemon.pull("dies_after", after)
        self._world.daemon.pull("dies_in", commits)
        return f"{'after' if after else 'before'} commit {commits}"

    def _dies_writing(self, rng: random.Random) -> str:
        """SIGKILL before the answer to its next create is stored, or just after."""
        after = rng.random() < 0.2
        self._world.daemon.pull("dies_after", after)
        self._world.ledger.at_next_create = lambda: self._world.daemon.pull("dies_in", 1)
        return "after" if after else "before"

    def _disk_full(self, rng: random.Random) -> str:
        self._world.daemon.pull("disk_full", 1)
        self._soon(rng.uniform(0.05, 0.6), self._room_again)
        return ""

    async def _room_again(self) -> None:
        self._world.daemon.pull("disk_full", 0)

    def _locked(self, rng: random.Random) -> str:
        self._soon(0.0, lambda: self._keep_locked(rng.uniform(0.05, 0.7)))
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

    # The mesh

    def _broker(self, rng: random.Random) -> str:
        orderly = rng.random() < 0.5
        self._world.forgetful |= not orderly
        self._soon(0.0, lambda: self._renewed_broker(rng.uniform(0.0, 0.4), orderly=orderly, forget=False))
        return "stopped" if orderly else "killed"

    def _broker_forgets(self, rng: random.Random) -> str:
        self._world.forgetful = True
        self._soon(0.0, lambda: self._renewed_broker(rng.uniform(0.0, 0.3), orderly=False, forget=True))
        return ""

    async def _renewed_broker(self, seconds: float, *, orderly: bool, forget: bool) -> None:
        broker = self._world.broker
        self._world.restarted_broker = True
        async with self._broker_free:
            await (broker.stop() if orderly else broker.kill())
            if forget:
                broker.forget()
            await asyncio.sleep(seconds)
            await broker.start()

    def _broker_freezes(self, rng: random.Random) -> str:
        self._soon(0.0, lambda: self._frozen_broker(rng.uniform(0.05, 0.6)))
        return ""

    async def _frozen_broker(self, seconds: float) -> None:
        async with self._broker_free:
            self._world.broker.freeze()
            await asyncio.sleep(seconds)
            self._world.broker.thaw()

    def _wire_cut(self, _rng: random.Random) -> str:
        self._world.wire.cut()
        return ""

    def _wire_silent(self, rng: random.Random) -> str:
        self._world.wire.silence()
        self._soon(rng.choice((0.1, 0.5, 2.2)), self._restored_wire)
        return ""

    def _wire_slow(self, rng: random.Random) -> str:
        self._world.wire.delay_s = rng.choice((0.01, 0.05))
        self._soon(0.5, self._restored_wire)
        return ""

    async def _restored_wire(self) -> None:
        self._world.wire.restore()

    # The org's answers

    def _rest(self, rng: random.Random) -> str:
        kind = "bulk" if rng.random() < 0.15 else "rest"
        path = rng.choice(("", "", "", "/query", "/composite", "/sobjects", "/describe"))
        return self._ordered(rng, {"kind": kind, "path": path, **rng.choice(orders.REST), "count": rng.randint(1, 3)})

    def _rest_lost(self, rng: random.Random) -> str:
        where = {"kind": "rest", "method": rng.choice(orders.WRITES), "path": "/sobjects/|/composite/"}
        return self._ordered(rng, {**where, **rng.choice(orders.LOST), "count": rng.randint(1, 4)})

    def _oauth(self, rng: random.Random) -> str:
        self._world.org.ctx.tokens.expire("access")
        return self._ordered(rng, {"kind": "oauth", **rng.choice(orders.OAUTH), "count": rng.randint(1, 3)})

    def _stream(self, rng: random.Random) -> str:
        return self._ordered(rng, {**rng.choice(orders.STREAM), "count": rng.randint(1, 2)})

    def _stream_http(self, rng: random.Random) -> str:
        return self._ordered(rng, {"kind": "cometd", **rng.choice(orders.STREAM_HTTP), "count": rng.randint(1, 2)})

    def _deliver(self, rng: random.Random) -> str:
        return self._ordered(rng, {"kind": "cometd:deliver", **rng.choice(orders.DELIVER)})

    def _ordered(self, rng: random.Random, order: dict[str, Any]) -> str:
        order = {**order, "skip": rng.choice((0, 0, 0, 1, 3))}
        self._world.org.ctx.faults.add(**order)
        return json.dumps({name: value for name, value in order.items() if value})

    def _tokens(self, _rng: random.Random) -> str:
        return f"{self._world.org.ctx.tokens.expire('access')} expired"

    def _connections(self, rng: random.Random) -> str:
        prefix = rng.choice(("", "/cometd/", "/services/data"))
        return f"{self._world.org.drop_connections(prefix)} dropped {prefix}"

    def _org_down(self, rng: random.Random) -> str:
        self._soon(0.0, lambda: self._hung_up(rng.uniform(0.05, 0.8)))
        return ""

    async def _hung_up(self, seconds: float) -> None:
        async with self._org_free:
            await self._world.org.hang_up()
            await asyncio.sleep(seconds)
            await self._world.org.listen()

    # The org's stream, clock and schema

    def _replay(self, rng: random.Random) -> str:
        context = self._world.org.ctx
        self._world.events_lost = True
        self._soon(rng.uniform(0.0, 0.2), self._dropped_stream)
        match rng.randrange(3):
            case 0 if not self._reset:
                self._reset = True  # of two in a row the ids of the first could mean something in the second
                context.bus.reset()
                return "reset"
            case 1:
                return self._ordered(rng, {"kind": "cometd:subscribe", "invalid_replay_id": True})
            case _:
                context.bus.expire_all()
                return "all expired"

    async def _dropped_stream(self) -> None:
        self._world.org.drop_connections("/cometd/")

    def _events(self, rng: random.Random) -> str:
        name = rng.choice(OBJECTS)
        kind = rng.choice(("GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE", "GAP_OVERFLOW", "UPDATE"))
        ids = self._world.editor.ids(name)
        bus = self._world.org.ctx.bus
        if kind in ("GAP_OVERFLOW", "UPDATE") and self._world.position() is not None:
            self._world.whole.add(name)
        if kind == "GAP_OVERFLOW":
            bus.emit_without_body(name, kind, (OVERFLOW_ID,))
        elif kind == "UPDATE":
            prefix = self._world.org.ctx.schema.require(name).key_prefix
            bus.emit_without_body(name, kind, (f"{prefix}*",))
        elif ids:
            bus.emit_without_body(name, kind, rng.sample(ids, min(len(ids), rng.randint(1, 4))))
        return f"{kind} {name}"

    def _overflow(self, rng: random.Random) -> str:
        self._world.org.ctx.event_options.overflow_changes = rng.choice((3, 8, 100_000))
        return self._edited(rng, most=20)

    def _undecodable(self, rng: random.Random) -> str:
        name = rng.choice(OBJECTS)
        ids = self._world.editor.live(name)
        garbage = rng.choice(orders.GARBAGE)
        header = event_header(
            entity=name,
            record_ids=rng.sample(ids, 1) if ids else [],
            change_type="UPDATE",
            transaction_key=f"garbage-{rng.getrandbits(32)}",
            commit_ms=self._world.org.ctx.clock.now_ms(),
            commit_number=1,
            user_id=FIRST_EDITOR_ID,
        )
        payload: Any = {**garbage, "ChangeEventHeader": {**header, **garbage.get("ChangeEventHeader", {})}}
        if rng.random() < 0.2:
            payload = rng.choice(([], "text", {}, None, {"ChangeEventHeader": None}))
        self._world.org.ctx.bus.emit(payload, entity=name)
        return f"{name} {json.dumps(payload)[:200]}"

    def _stall(self, rng: random.Random) -> str:
        settings = self._world.org.ctx.settings
        if rng.random() < 0.5:
            settings.stream_delay_s = rng.choice((0.1, 0.5))
            return f"delayed by {settings.stream_delay_s}"
        settings.stream_stalled = True
        self._soon(rng.uniform(0.1, 1.0), self._flowing)
        return "stalled"

    async def _flowing(self) -> None:
        self._world.org.ctx.settings.stream_stalled = False
        self._world.org.ctx.bus.wake()

    def _org_clock(self, rng: random.Random) -> str:
        seconds = rng.choice((1, 1, 2, 5, 61, -3, _HOUR_S, 3 * _HOUR_S, 25 * _HOUR_S, 4 * 24 * _HOUR_S))
        if self._held and abs(seconds) > _HOUR_S // 60:
            return "stays: a transaction is open"  # none of the org's lasts that long
        self._world.events_lost |= seconds > 24 * _HOUR_S  # the retention window is three days
        self._world.clock_went_back |= seconds < 0
        self._world.org.ctx.org.advance(seconds)
        self._world.org.ctx.bus.wake()
        return f"{seconds:+} s"

    def _schema(self, rng: random.Random) -> str:
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

    def _soon(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work()

        task = asyncio.create_task(wait())
        self._later.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._later.discard(task)
        self._broken = self._broken or task.exception()
