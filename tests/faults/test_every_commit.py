"""SIGKILL at every commit, just before it and just after it; a full disk; a clock that jumps: nothing lost or doubled.

The daemon is forked with its waits scaled, see `tests.faults.soak`; org and broker are whole.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from connector.devorg.objects.residents import FIRST_EDITOR_ID
from connector.devorg.server import DevOrg
from connector.errors import StoreFull
from tests.broker import ProcessBroker
from tests.e2e.org import OrgAdmin
from tests.e2e.replica import ReplicaFile, differences, fold
from tests.e2e.watcher import ROOT, Watcher
from tests.faults.soak.daemon import Daemon
from tests.waiting import until

HOUR_MS = 3600 * 1000
KEY = {"name": "Key__c", "type": "string", "length": 128, "externalId": True, "unique": True, "idLookup": True}
FIELDS = ["FirstName", "LastName", "Name", "Phone", "Key__c"]
MOST_COMMITS = 60  # of one round; far more than there are
STRIDE = 3  # starts take their time: a test has every third commit
PAGE_ROWS = 2  # so that a load of five records has pages


@dataclass
class Bench:
    """A daemon that is started again when it dies, and whoever has to do with it."""

    directory: Path
    org: DevOrg
    admin: OrgAdmin
    broker: ProcessBroker
    watcher: Watcher
    made: int = 0

    def daemon(self, name: str) -> tuple[Daemon, ReplicaFile]:
        """A daemon with a replica of its own; not started yet."""
        known = self.org.ctx.credentials
        folder = self.directory / name
        settings = {
            "salesforce": {"instance_url": self.org.url, "timeout": "2s"},
            "storage": {"path": str(folder / "salesforce.db")},
            "mqtt": {"host": self.broker.host, "port": self.broker.port, "keepalive": "1s", "client_id": name},
            "sync": {"backoff_max": "300ms", "objects": ["Contact"]},
            "health": {"interval": "300ms"},
            "signals": {"batch_interval": "100ms"},
            "objects": {"Contact": {"fields": FIELDS, "external_id": "Key__c", "poll_interval": "1s"}},
        }
        secrets = {"SF_CLIENT_ID": known.client_id, "SF_CLIENT_SECRET": known.client_secret}
        return Daemon(folder, settings, secrets, {"PAGE_ROWS": PAGE_ROWS}), ReplicaFile(folder / "salesforce.db")

    def edit(self) -> str:
        """A person makes a record, edits it, and deletes another."""
        self.made += 1
        with self.org.ctx.org.transaction(FIRST_EDITOR_ID, "") as t:
            contact = t.create("Contact", {"LastName": f"Person {self.made}"})
        with self.org.ctx.org.transaction(FIRST_EDITOR_ID, "") as t:
            t.update("Contact", contact, {"Phone": f"{self.made}"})
            brief = t.create("Contact", {"LastName": "Brief"})
        with self.org.ctx.org.transaction(FIRST_EDITOR_ID, "") as t:
            t.delete("Contact", brief)
        return contact

    def command(self, operation: str, **payload: Any) -> str:
        """A service sends a command."""
        self.made += 1
        command_id = f"c-{self.made}"
        self.watcher.send(f"{ROOT}/command/Contact/{operation}", {"command_id": command_id, **payload}, wait=False)
        return command_id

    def ended(self, command_id: str) -> str | None:
        """Its final status, once it is told."""
        told = [m.json for m in self.watcher.messages(f"{ROOT}/result/{command_id}")]
        return next((str(t["status"]) for t in told if t["completed_at"]), None)

    async def equal(self, replica: ReplicaFile) -> bool:
        """The replica is the org."""
        found: list[str] = await asyncio.to_thread(differences, self.admin, replica, ("Contact",))
        return not found

    async def settled(self, replica: ReplicaFile, *, first: int = 1) -> None:
        """Replica and org are equal; the changes tell the same, in order, without a hole."""
        await until(lambda: self.equal(replica), 15)
        last = replica.last_version()

        def told() -> bool:
            return last < first or any(m.json["data"]["version"] == last for m in self._changes())

        await until(told, 15)
        folded = fold(self._changes(), first)
        for record_id, row in replica.records("Contact").items():
            record = folded.records.get(("Contact", record_id), row)
            assert (record is None) == (row["_deleted_at"] is not None)
            assert record is None or {name: row[name] for name in FIELDS} == {name: record[name] for name in FIELDS}

    async def people(self) -> dict[str, dict[str, Any]]:
        """The org's contacts."""
        found: dict[str, dict[str, Any]] = await asyncio.to_thread(self.admin.records, "Contact")
        return found

    def _changes(self) -> list[Any]:
        return self.watcher.messages(f"{ROOT}/change/#")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        org = await stack.enter_async_context(DevOrg(tmp_path / "org"))
        org.ctx.settings.connect_hold_s = 1.0
        org.ctx.schema.add_field("Contact", KEY)
        with org.ctx.org.transaction(FIRST_EDITOR_ID, "") as t:
            for number in range(5):
                t.create("Contact", {"LastName": f"Seed {number}"})
        broker = ProcessBroker(tmp_path / "broker")
        await broker.start()
        stack.push_async_callback(broker.kill)
        watcher = await asyncio.to_thread(Watcher(broker.host, broker.port).__enter__)
        stack.callback(watcher.__exit__, None, None, None)
        admin = stack.enter_context(OrgAdmin(org.url))
        yield Bench(tmp_path, org, admin, broker, watcher)


@asynccontextmanager
async def kept(daemon: Daemon) -> AsyncIterator[None]:
    """Start it, and again whenever it dies; end it at last."""
    daemon.start()
    keeper = asyncio.create_task(daemon.keep_up())
    try:
        yield
    finally:
        keeper.cancel()
        daemon.kill()


async def swept(daemon: Daemon, after: bool, round_of: Callable[[int], Any]) -> int:
    """Rounds in which the daemon is killed at its first, second, ... commit, until a round has none that late."""
    for number in range(1, MOST_COMMITS):
        died = len(daemon.exits)
        daemon.pull("dies_after", int(after))
        daemon.pull("dies_in", number)
        await round_of(number)
        if len(daemon.exits) == died:
            daemon.pull("dies_in", 0)
            return number - 1
    raise AssertionError(f"a round has more than {MOST_COMMITS} commits")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_every_commit_of_a_days_work(bench: Bench, *, after: bool) -> None:
    """Edits by people and commands by a service: events, changes, results, marks, whatever is committed for them."""
    daemon, replica = bench.daemon("worker")
    commands: list[str] = []
    async with kept(daemon):
        await until(lambda: replica.loaded(["Contact"]))

        async def round_of(number: int) -> None:
            contact = bench.edit()
            values = {"fields": {"LastName": f"Service {number}"}}
            sent = [bench.command("create", **values), bench.command("update", id=contact, fields={"FirstName": "A"})]
            commands.extend(sent)
            await until(lambda: all(bench.ended(command) for command in sent), 15)
            await until(lambda: bench.equal(replica), 15)

        points = await swept(daemon, after, round_of)
        await bench.settled(replica)
    assert points >= 8
    assert daemon.unexpected() == []
    assert {bench.ended(command) for command in commands} == {"succeeded"}
    names = [row["LastName"] for row in (await bench.people()).values()]
    assert all(names.count(f"Service {number}") == 1 for number in range(1, points + 2))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, STRIDE + 1))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_every_commit_of_a_first_start(bench: Bench, first: int, *, after: bool) -> None:
    """The org's id, descriptions, every page of the load, the first poll: the next start goes on, and tells nothing."""
    for number in range(first, MOST_COMMITS, STRIDE):
        daemon, replica = bench.daemon(f"starter-{number}")
        daemon.pull("dies_after", int(after))
        daemon.pull("dies_in", number)
        async with kept(daemon):
            await until(lambda: bool(daemon.exits) or replica.loaded(["Contact"]), 15)  # noqa: B023 - used at once
            await until(lambda: replica.loaded(["Contact"]), 15)  # noqa: B023 - likewise
            await until(lambda: bench.equal(replica), 15)  # noqa: B023 - likewise
        assert replica.last_version() == 0
        if not daemon.exits:
            break
    assert number > 8


async def test_a_disk_that_runs_full_while_it_runs(bench: Bench) -> None:
    """It ends with what to do and says `offline`; started again and again it harms nothing, and goes on with room."""
    daemon, replica = bench.daemon("full")
    async with kept(daemon):
        await until(lambda: replica.loaded(["Contact"]))
        contact = bench.edit()
        await until(lambda: bench.equal(replica), 15)
        daemon.pull("disk_full", 1)
        for number in range(40):
            with bench.org.ctx.org.transaction(FIRST_EDITOR_ID, "") as t:
                t.create("Contact", {"LastName": f"Much {number}", "FirstName": "x" * 40, "Phone": "0" * 40})
        sent = [bench.command("create", fields={"LastName": f"Service {number}"}) for number in range(10)]
        sent.append(bench.command("update", id=contact, fields={"FirstName": "A"}))
        await until(lambda: len(daemon.exits) >= 2, 20)
        assert all(StoreFull.__name__ in end.words and "make room" in end.words for end in daemon.exits)
        states = [m.json["state"] for m in bench.watcher.messages(f"{ROOT}/status")]
        assert "offline" in states
        daemon.pull("disk_full", 0)
        await until(lambda: all(bench.ended(command) == "succeeded" for command in sent), 20)
        await bench.settled(replica)
    names = [row["LastName"] for row in (await bench.people()).values()]
    assert all(names.count(f"Service {number}") == 1 for number in range(10))
    assert replica.value("PRAGMA integrity_check") == "ok"


async def test_a_database_that_somebody_keeps_locked(bench: Bench) -> None:
    """An open transaction of another program, for longer than is waited: health says so, and it goes on afterwards."""
    daemon, replica = bench.daemon("locked")
    async with kept(daemon):
        await until(lambda: replica.loaded(["Contact"]))
        contact = bench.edit()
        await until(lambda: bench.equal(replica), 15)
        other = apsw.Connection(str(replica.path))
        other.set_busy_timeout(5000)
        other.execute("BEGIN IMMEDIATE")
        since = bench.watcher.mark()
        bench.edit()
        sent = bench.command("update", id=contact, fields={"FirstName": "A"})

        def degraded() -> bool:
            return "degraded" in {m.json["state"] for m in bench.watcher.messages(f"{ROOT}/health", since) if m.payload}

        await until(degraded, 15)
        assert bench.ended(sent) is None
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: bench.ended(sent) == "succeeded", 15)
        await bench.settled(replica)
    assert daemon.exits == []


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_clock_that_is_set_while_it_runs(bench: Bench, hours: int) -> None:
    """Forward and back: edits, commands, polls, health and signals go on as before, and nothing waits for hours."""
    daemon, replica = bench.daemon("clock")
    async with kept(daemon):
        await until(lambda: replica.loaded(["Contact"]))
        for offset in (hours, 0):
            daemon.pull("clock_ms", offset * HOUR_MS)
            since = bench.watcher.mark()
            contact = bench.edit()
            sent = [
                bench.command("update", id=contact, fields={"FirstName": "A"}),
                bench.command("create", fields={"LastName": f"Service {offset}"}),
            ]
            await until(lambda: all(bench.ended(command) == "succeeded" for command in sent), 10)  # noqa: B023 - at once
            await until(lambda: bench.equal(replica), 10)
            heard = {m.topic for m in bench.watcher.messages(since=since)}
            assert f"{ROOT}/change/Contact/update/{contact}" in heard

            def goes_on(since: int = since) -> bool:
                signals = [
                    json.loads(m.payload)["signal"] for m in bench.watcher.messages("blackroad/signals/#", since)
                ]
                healths = bench.watcher.messages(f"{ROOT}/health", since)
                return len(healths) >= 3 and {"records_updated", "sync_complete"} <= set(signals)

            await until(goes_on, 10)
            [state] = {m.json["state"] for m in bench.watcher.messages(f"{ROOT}/health", since)[-1:]}
            assert state == "ok"
        await bench.settled(replica)
    assert daemon.exits == []


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_clock_that_is_set_while_it_is_down(bench: Bench, hours: int) -> None:
    """The same over a restart: positions and marks are of the org's clock; no stored time is waited for."""
    daemon, replica = bench.daemon("clock")
    async with kept(daemon):
        await until(lambda: replica.loaded(["Contact"]))
        first = bench.command("create", fields={"LastName": "Service before"})
        await until(lambda: bench.ended(first) == "succeeded", 10)
        assert await daemon.stop() == 0
        daemon.pull("clock_ms", hours * HOUR_MS)
        contact = bench.edit()
        sent = [
            bench.command("update", id=contact, fields={"FirstName": "A"}),
            bench.command("create", fields={"LastName": "S"}),
        ]
        daemon.start()
        await until(lambda: all(bench.ended(command) == "succeeded" for command in sent), 15)
        await bench.settled(replica)
