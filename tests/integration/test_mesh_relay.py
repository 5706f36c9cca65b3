"""From the database to a subscriber and back: relay, router and control on a real store and a real broker."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.mesh.connection import MeshConnection
from connector.mesh.envelope import Envelope
from connector.mesh.router import Router
from connector.mesh.signals import Signals, asks_for_sync
from connector.mesh.topics import Incoming, Topics
from connector.model.change import Change
from connector.model.message import Delivery, Message
from connector.serve import relay as relay_module
from connector.serve.control import Actions, Control
from connector.serve.outbox import Outbox
from connector.serve.relay import Relay
from connector.serve.retained import RetainedMessages
from connector.serve.wake import Wake
from connector.store import Database
from tests.broker import Broker
from tests.integration.test_mesh_connection import connection_for, running
from tests.mesh import Service
from tests.store_nouns import NOW_MS, WIDGET, change, record, record_id
from tests.waiting import until

TOPICS = Topics()
ENVELOPE = Envelope(TOPICS, node="test")
ENVELOPE.use_org("00D000000000001")
CHANGES = f"{TOPICS.root}/change/#"


@pytest.fixture(autouse=True)
def marked_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MARK_WITHIN_S", 0.05)


class Connector:
    """The mesh half of the daemon: connection, relay, router and control on one database."""

    def __init__(self, database: Database, mesh: MeshConnection, *, retain_records: bool = False) -> None:
        self.database = database
        self.mesh = mesh
        self.wake = Wake()
        self.synced: list[Sequence[str] | None] = []
        retained = RetainedMessages(database, ENVELOPE, lambda: [WIDGET], retain_records=retain_records)
        self.relay = Relay(
            replica=database,
            publisher=mesh,
            codec=ENVELOPE,
            signals=Signals(TOPICS, enabled=False, batch_interval_ms=5000),
            wake=self.wake,
            retain_records=retain_records,
            retained=retained.pages,
            observe_lag_ms=lambda _lag: None,
            now_ms=lambda: time.time_ns() // 1_000_000,
            rng=random.Random(1),
        )
        mesh.on_connected.append(self.relay.link_up)
        outbox = Outbox(database, self.wake)
        self.control = Control(
            TOPICS,
            Actions(
                objects=lambda: {"Widget__c"},
                sync=self._sync,
                pause=self._nothing,
                resume=self._nothing,
                status=self._status,
                command=self._command,
            ),
            send=outbox.send,
            max_payload_bytes=mesh.max_payload_bytes,
        )
        handlers = {"control": self._on_control, "signal": self._on_signal}
        self.router = Router(mesh, TOPICS, handlers, store=outbox.send, rng=random.Random(2))

    async def commit(self, *changes: Change) -> None:
        """As the appliers do: one unit, then the wake."""
        await self.database.run(lambda unit: unit.append(changes))
        self.wake.set()

    async def enqueue(self, message: Message) -> None:
        await Outbox(self.database, self.wake).send(message)

    async def published(self, version: int) -> None:
        await until(lambda: self._nothing_left(version))

    async def _nothing_left(self, version: int) -> bool:
        return await self.database.run(lambda unit: unit.last_version() == version and not unit.unpublished(1))

    async def _on_control(self, incoming: Incoming, delivery: Delivery) -> None:
        await self.control.handle(incoming.verb, delivery)

    async def _on_signal(self, _incoming: Incoming, delivery: Delivery) -> None:
        if asks_for_sync(TOPICS, delivery.payload):
            await self.control.sync_signalled()

    async def _sync(self, objects: Sequence[str] | None) -> Mapping[str, Any]:
        self.synced.append(objects)
        return {"records": 0}

    async def _nothing(self) -> None:
        pass

    async def _status(self) -> Mapping[str, Any]:
        return {"state": "ok"}

    async def _command(self, _command_id: str) -> Mapping[str, Any] | None:
        return None


@asynccontextmanager
async def connector(
    broker: Broker, path: Path, *, protocol: str = "5", retain_records: bool = False, keepalive_s: float = 30
) -> AsyncIterator[Connector]:
    async with Database(path / "replica.db") as database:
        await database.run(lambda unit: unit.define(WIDGET))
        made = Connector(database, connection_for(broker, protocol, keepalive_s), retain_records=retain_records)
        async with running(made.mesh):
            tasks = [asyncio.create_task(job()) for job in (made.relay.run, made.router.run, made.control.run)]
            try:
                yield made
            finally:
                for task in tasks:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task


def versions(service: Service) -> list[int]:
    return [orjson.loads(m.payload)["data"]["version"] for m in service.received() if "/change/" in m.topic]


def first_seen(seen: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_changes_reach_a_subscriber_in_version_order(broker: Broker, tmp_path: Path, protocol: str) -> None:
    """Thousands committed in many units, each once, in order."""
    async with Service(broker, CHANGES) as service, connector(broker, tmp_path, protocol=protocol) as made:
        for _ in range(30):
            await made.commit(*(change() for _ in range(100)))
        await made.published(3000)
        await until(lambda: len(versions(service)) >= 3000)
    assert versions(service) == list(range(1, 3001))


@pytest.mark.parametrize("forget", [False, True])
async def test_broker_killed_under_load_loses_and_reorders_nothing(
    broker: Broker, tmp_path: Path, *, forget: bool
) -> None:
    """Changes committed before, while and after it is away: all arrive, in order but for repeats."""
    async with connector(broker, tmp_path) as made:
        async with Service(broker, CHANGES) as before:
            for _ in range(20):
                await made.commit(*(change() for _ in range(100)))
            await until(lambda: len(versions(before)) > 50)
            await broker.kill()
            early = versions(before)
        await made.commit(*(change() for _ in range(500)))
        if forget:
            broker.forget()
        await broker.start()
        async with Service(broker, CHANGES) as after:
            await made.commit(change())
            await made.published(2501)
            await until(lambda: 2501 in versions(after))
            late = versions(after)
    assert early == list(range(1, len(early) + 1))
    assert first_seen(late) == list(range(late[0], 2502))


async def test_frozen_broker_holds_changes_back_and_loses_none(broker: Broker, tmp_path: Path) -> None:
    """SIGSTOP, then SIGCONT: everything arrives, in order but for repeats."""
    async with Service(broker, CHANGES) as service, connector(broker, tmp_path, keepalive_s=1) as made:
        await made.commit(change())
        await made.published(1)
        broker.freeze()
        await made.commit(*(change() for _ in range(200)))
        await until(lambda: not made.mesh.connected)
        broker.thaw()
        await made.published(201)
        await until(lambda: 201 in versions(service))
    assert first_seen(versions(service)) == list(range(1, 202))


async def test_a_restart_goes_on_where_it_was(broker: Broker, tmp_path: Path) -> None:
    """What was marked is not sent again; what was not is."""
    async with Service(broker, CHANGES) as service:
        async with connector(broker, tmp_path) as made:
            await made.commit(*(change() for _ in range(10)))
            await made.published(10)
        async with Database(tmp_path / "replica.db") as database:
            await database.run(lambda unit: unit.append([change() for _ in range(5)]))
        async with connector(broker, tmp_path) as made:
            await made.published(15)
            await until(lambda: len(versions(service)) >= 15)
    assert versions(service) == list(range(1, 16))


async def test_outbox_messages_keep_their_place_behind_changes(broker: Broker, tmp_path: Path) -> None:
    """A result enqueued after a change arrives after it."""
    async with Service(broker, CHANGES, f"{TOPICS.root}/result/#") as service:
        async with connector(broker, tmp_path) as made:
            await made.commit(change(), change())
            await made.enqueue(Message(topic=TOPICS.result("c-1"), payload=b"{}"))
            await service.wait_for(TOPICS.result("c-1"))
        kinds = [m.topic.split("/")[2] for m in service.received()]
    assert kinds == ["change", "change", "result"]


async def test_retained_topics_are_put_back_to_a_broker_that_forgot(broker: Broker, tmp_path: Path) -> None:
    """Status, open holes and, with `retain_records`, every live record."""
    async with connector(broker, tmp_path, retain_records=True) as made:
        await made.database.run(lambda unit: unit.put(WIDGET, [record(1, Name="a"), record(2, deleted_ms=NOW_MS)]))
        await made.database.run(lambda unit: unit.open_hole("Widget__c", NOW_MS, "stream lost", NOW_MS))
        await broker.kill()
        broker.forget()
        await broker.start()
        await until(lambda: made.mesh.connected)
        record_topic = TOPICS.record("Widget__c", record_id(1))
        async with Service(broker, f"{TOPICS.root}/#") as service:
            assert (await service.document(TOPICS.status))["state"] == "online"
            assert (await service.document(TOPICS.hole("Widget__c")))["state"] == "open"
            assert (await service.document(record_topic))["Name"] == "a"
            assert service.received(TOPICS.record("Widget__c", record_id(2))) == []


async def test_control_over_mqtt_5_and_3_1_1(broker: Broker, tmp_path: Path) -> None:
    """Reply address in properties or payload, or none."""
    replies_to = ("billing/#", f"{TOPICS.root}/reply/#")
    async with (
        connector(broker, tmp_path),
        Service(broker, *replies_to) as asker,
        Service(broker, mqtt5=False) as old,
    ):
        await asker.send(f"{TOPICS.root}/control/status", b"", response_topic="billing/5", correlation=b"k")
        await old.send(f"{TOPICS.root}/control/status", {"reply_to": "billing/311", "correlation": "k"})
        await old.send(f"{TOPICS.root}/control/status", b"")
        replies = [await asker.document(t) for t in ("billing/5", "billing/311", TOPICS.reply("status"))]
    assert [r["correlation"] for r in replies] == ["k", "k", None]
    assert all(r["ok"] and r["data"] == {"state": "ok"} for r in replies)


async def test_sync_by_control_and_by_signal(broker: Broker, tmp_path: Path) -> None:
    """`started`, then `done`; the Bridge's signal does the same without a reply."""
    async with connector(broker, tmp_path) as made, Service(broker, TOPICS.reply("sync")) as service:
        await service.send(f"{TOPICS.root}/control/sync", {"objects": ["Widget__c"]})
        replies = await service.wait_for(TOPICS.reply("sync"), 2)
        assert [orjson.loads(m.payload)["state"] for m in replies] == ["started", "done"]
        await service.send(TOPICS.signals_in, "🔄 OS → FND : sync")
        await until(lambda: len(made.synced) == 2)
    assert made.synced == [["Widget__c"], None]


async def test_what_cannot_be_accepted_is_rejected(broker: Broker, tmp_path: Path) -> None:
    """Retained before we came, retained while we are here, malformed topics, forbidden reply addresses."""
    async with Service(broker, TOPICS.rejected) as service:
        await service.send(f"{TOPICS.root}/control/pause", b"{}", retain=True)
        async with connector(broker, tmp_path):
            await service.wait_for(TOPICS.rejected, 1)
            await service.send(f"{TOPICS.root}/control/resume", b"{}", retain=True)
            await service.send(f"{TOPICS.root}/query", b"{}")
            await service.send(f"{TOPICS.root}/query/Contact/get", b"{}")
            await service.send(f"{TOPICS.root}/control/status", b"", response_topic=TOPICS.signals_out)
            await service.wait_for(TOPICS.rejected, 5)
        reasons = {(orjson.loads(m.payload)["topic"], orjson.loads(m.payload)["reason"]) for m in service.received()}
    assert reasons == {
        (f"{TOPICS.root}/control/pause", "a retained message is never acted on"),
        (f"{TOPICS.root}/control/resume", "a retained message is never acted on"),
        (f"{TOPICS.root}/query", "the topic is not one of the interface"),
        (f"{TOPICS.root}/query/Contact/get", "nothing here takes a query"),
        (f"{TOPICS.root}/control/status", "the reply address is inside blackroad/signals"),
    }


async def test_a_retained_message_is_reported_once_per_session(broker: Broker, tmp_path: Path) -> None:
    """Renewed subscriptions do not bring it again."""
    async with Service(broker, TOPICS.rejected, TOPICS.reply("status")) as service:
        await service.send(f"{TOPICS.root}/control/pause", b"{}", retain=True)
        for visit in (1, 2):
            async with connector(broker, tmp_path):
                await service.wait_for(TOPICS.rejected, 1)
                await service.send(f"{TOPICS.root}/control/status", b"")
                await service.wait_for(TOPICS.reply("status"), visit)
        assert len(service.received(TOPICS.rejected)) == 1
