"""What health tells of a replica, and what looking costs the writer."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from connector.app import reports
from connector.app.reports import Observer
from connector.errors import StoreBusy
from connector.ports import Unit
from connector.store import Session
from connector.store.database import Database
from connector.store.readers import Readers
from tests.store_nouns import NOW_MS, WIDGET, change, record

T = TypeVar("T")


class QuickUnit:
    """A unit that answers nothing but what costs the same however much is stored."""

    def __init__(self, unit: Unit) -> None:
        self.last_version = unit.last_version


class Writer:
    """The writer's side, for whoever must not take its time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, work: Callable[[Any], T]) -> T:
        return await self._database.run(lambda unit: work(QuickUnit(unit)))


@pytest.fixture
async def observer(tmp_path: Path) -> AsyncIterator[Observer]:
    path = tmp_path / "replica.db"
    with Session(path) as session:
        session.run(lambda unit: unit.define(WIDGET))
        session.run(lambda unit: unit.put(WIDGET, [record(n) for n in range(7)] + [record(9, deleted_ms=NOW_MS)]))
        session.run(lambda unit: unit.append([change()]))
        session.run(lambda unit: unit.open_hole("Widget__c", NOW_MS, "x", NOW_MS))
    async with Database(path) as database, Readers(path, 1) as readers:
        yield Observer(
            transport="cometd",
            database=cast("Database", Writer(database)),
            readers=readers,
            org=cast("Any", org()),
            inbound=cast("Any", inbound()),
            source=None,
            refused_topics=tuple,
            parked_count=lambda: 0,
        )


def org() -> SimpleNamespace:
    budget = SimpleNamespace(snapshot=lambda: {"used": 1, "max": 2, "own": {}})
    return SimpleNamespace(budget=budget, deliveries=SimpleNamespace(snapshot=dict))


def inbound() -> SimpleNamespace:
    polled = SimpleNamespace(polled_ms=NOW_MS, untold=0, untold_last=0)
    proofs = SimpleNamespace(verified_ms={}, drift=lambda _name: 0, held={}, reread_ms={})
    return SimpleNamespace(
        catalog=SimpleNamespace(specs={"Widget__c": WIDGET}),
        poller=SimpleNamespace(states={"Widget__c": polled}),
        proofs=proofs,
        stream_state=SimpleNamespace(status="off", since_ms=None, last_event_ms=None, told=frozenset()),
    )


async def test_records_are_counted_beside_the_writer(observer: Observer) -> None:
    """Counting a million takes long enough to hold up events: the writer is asked for its turn alone."""
    seen = await observer.observe()
    assert (seen.objects["Widget__c"].records, seen.objects["Widget__c"].holes) == (7, 1)
    assert seen.queues == {"outbox": 1, "commands": 0, "quarantine": 0, "dirty": 0}
    assert seen.version == 1


async def test_a_disk_too_slow_to_count_is_a_busy_store(observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health goes on with what it saw last; it does not end the daemon."""
    monkeypatch.setattr(reports, "COUNTING_TIMEOUT_S", -1.0)
    monkeypatch.setattr("connector.store.reader._STEPS", 1)
    with pytest.raises(StoreBusy, match="counting"):
        await observer.observe()
