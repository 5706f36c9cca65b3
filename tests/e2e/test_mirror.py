"""`salesforce-sync mirror`: a copy of the replica on another node, from the mesh alone."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from connector.client import SFSync
from connector.errors import StoreUnusable
from connector.model.documents import MirrorDocument
from tests.e2e.load import People
from tests.e2e.making import MakeStack
from tests.e2e.mirrors import MirrorNode, mirror_at
from tests.e2e.stack import SEED, Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT


@pytest.fixture
def mirror(stack: Stack, tmp_path: Path) -> Iterator[MirrorNode]:
    with mirror_at(tmp_path, stack.broker) as node:
        node.until_equal(stack)
        yield node


def test_a_copy_of_everything(stack: Stack, mirror: MirrorNode) -> None:
    """Records, creations, edits, deletions and returns; the log as it was published; without a login."""
    assert mirror.file.value("SELECT count(*) FROM contact_live") > 0
    made = stack.org.create("Contact", LastName="Mirrored", Phone="1")
    gone = next(iter(stack.org.records("Lead")))
    stack.org.update("Contact", made, Phone="2")
    stack.org.delete("Lead", gone)
    stack.settled()
    mirror.until_equal(stack)
    assert mirror.file.record("Lead", gone)["_deleted_at"] is not None  # type: ignore[index]  # it is there
    stack.org.undelete("Lead", gone)
    stack.settled()
    mirror.until_equal(stack)
    assert mirror.file.record("Contact", made)["Phone"] == "2"  # type: ignore[index]  # it is there
    told = stack.watcher.until(f"{ROOT}/mirror/far", lambda m: m.json["state"] == "live").json
    MirrorDocument.model_validate(told)


def test_readers_work_on_it(stack: Stack, mirror: MirrorNode) -> None:
    """The command line, Python and text search; writes are refused, and so is a daemon."""
    someone, values = next(iter(stack.org.records("Contact").items()))
    settings = str(mirror.process.settings)
    command = [sys.executable, "-m", "connector", "--settings", settings]
    got = subprocess.run([*command, "get", "contact", someone, "--json"], capture_output=True, check=True, timeout=30)  # noqa: S603 - our own program
    assert json.loads(got.stdout)["LastName"] == values["LastName"]
    with SFSync(settings) as sync:
        until(lambda: _searchable(sync))
        assert someone in [c.id for c in sync.contacts.search(str(values["Email"]))]
        assert sync.contacts.count() == len(stack.org.records("Contact"))
        with pytest.raises(StoreUnusable, match="mirror"):
            sync.contacts.update(someone, phone="1")
    mirror.stop()
    refused = subprocess.run(  # noqa: S603 - our own program
        [*command, "daemon"],
        capture_output=True,
        check=False,
        timeout=30,
        text=True,
        env={**stack.secrets(), "SALESFORCE_SYNC_SALESFORCE__INSTANCE_URL": stack.told["url"]},
    )
    assert refused.returncode == 2, refused.stderr
    assert "mirror" in refused.stderr


def _searchable(sync: SFSync) -> bool:
    try:
        return sync.contacts.count("x") >= 0
    except Exception:  # noqa: BLE001 - the index is made after the copy
        return False


def test_a_connectors_own_file_is_not_touched(stack: Stack, tmp_path: Path) -> None:
    """A mirror that is pointed at the file of a stopped daemon refuses."""
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(stack.replica.path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    node = MirrorNode(tmp_path, stack.broker, storage={"path": str(copy)})
    node.process.launch()
    assert node.process.wait() == 2
    assert "connector's own replica" in node.process.text()


@pytest.mark.timeout(120)
def test_killed_and_restarted_under_load(make_stack: MakeStack, tmp_path: Path) -> None:
    """SIGKILL at any time, in the first copy too: equal at the end, record by record."""
    stack = make_stack(seed={**SEED, "contacts": 4000})
    stack.start()
    with People(stack.told["url"], seed=5), mirror_at(tmp_path, stack.broker, "killed") as mirror:
        for listed in (500, 1500, 4000, 4001, 4002):
            until(lambda more=listed: _copied(mirror) >= more)  # type: ignore[misc]  # bound at once
            mirror.process.kill()
            mirror.start()
    with mirror_at(tmp_path, stack.broker, "killed") as mirror:
        stack.settled()
        mirror.until_equal(stack)
        assert not mirror.process.events("mirror.begun_anew")  # it went on where it was


def _copied(mirror: MirrorNode) -> int:
    """How many contacts there are so far, and how many changes after them."""
    with contextlib.suppress(sqlite3.OperationalError):
        return int(mirror.file.value("SELECT min(4000, count(*)) + (SELECT count(*) FROM change) / 50 FROM contact"))
    return 0


@pytest.mark.timeout(120)
def test_what_was_missed_is_asked_for(stack: Stack, mirror: MirrorNode) -> None:
    """A mirror that stood still, a broker without memory, a connector that was away."""
    someone = next(iter(stack.org.records("Contact")))
    mirror.process.freeze()
    for number in range(30):
        stack.org.update("Contact", someone, Phone=str(number))
    stack.settled()
    stack.kill_broker(forgetful=True)
    mirror.process.thaw()
    stack.org.update("Contact", someone, Phone="without a broker")
    stack.until_equal()
    stack.start_broker()
    mirror.until_equal(stack)
    assert stack.daemon.stop() == 0
    stack.org.update("Contact", someone, Phone="while the connector was away")
    stack.start()
    stack.until_equal()
    mirror.until_equal(stack)
    assert len(mirror.process.events("mirror.begun_anew")) == 1


def test_nobody_is_believed(make_stack: MakeStack, tmp_path: Path) -> None:
    """What is no change, or one ahead of its time: the versions between are asked for, and nothing else is taken."""
    stack = make_stack()
    stack.start()
    someone = next(iter(stack.org.records("Contact")))
    with mirror_at(tmp_path, stack.broker) as mirror:
        mirror.until_equal(stack)
        stack.org.update("Contact", someone, Phone="real")
        event = stack.until_change(someone).json
        topic = f"{ROOT}/change/Contact/update/{someone}"
        ahead = {**event, "data": {**event["data"], "version": event["data"]["version"] + 5}}
        for forged in ("not JSON", "[]", {**event, "data": {"version": 2}}, ahead):
            stack.watcher.send(topic, forged)
        stack.watcher.send(f"{ROOT}/reply/salesforce-sync-mirror-far", "[1]")
        stack.watcher.send(f"{ROOT}/reply/salesforce-sync-mirror-far", {"ok": True, "correlation": "1"})
        mirror.process.until_logged("mirror.changes_missed")
        assert len(mirror.process.events("mirror.change_unreadable")) == 3
        assert mirror.process.events("mirror.reply_unreadable")
        stack.org.update("Contact", someone, Phone="after")
        stack.until_equal()
        mirror.until_equal(stack)


def test_a_log_that_no_longer_reaches_back(make_stack: MakeStack, tmp_path: Path) -> None:
    """`snapshot_required`: everything is copied again, and what was deleted meanwhile is deleted."""
    stack = make_stack()
    stack.start()
    with mirror_at(tmp_path, stack.broker) as mirror:
        mirror.until_equal(stack)
    gone, changed = list(stack.org.records("Contact"))[:2]
    stack.org.update("Contact", changed, Phone="555")
    stack.org.delete("Contact", gone)
    stack.settled()
    assert stack.daemon.stop() == 0
    with closing(sqlite3.connect(stack.replica.path)) as database, database:
        database.execute("DELETE FROM change_log")
    stack.start()
    with mirror_at(tmp_path, stack.broker) as mirror:
        mirror.until_equal(stack)
        (anew,) = mirror.process.events("mirror.begun_anew")
        assert anew["reason"] == "snapshot_required"
        assert mirror.file.record("Contact", gone)["_deleted_at"] is not None  # type: ignore[index]  # it is there


@pytest.mark.parametrize("how", ["new_replica", "went_back"])
def test_another_database_behind_the_topics(make_stack: MakeStack, tmp_path: Path, how: str) -> None:
    """One that was made anew, or put back from a backup and gone on: versions begin again, and everything is copied."""
    stack = make_stack({"sync": {"lookback": "30m"}})
    stack.start()
    with mirror_at(tmp_path / "far", stack.broker) as mirror:
        contacts = list(stack.org.records("Contact"))
        for number in range(5):
            stack.org.update("Contact", contacts[0], Phone=str(number))
        stack.settled()
        mirror.until_equal(stack)
        backup = tmp_path / "backup.db"
        with closing(sqlite3.connect(stack.replica.path)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
        for number in range(5):
            stack.org.update("Contact", contacts[1], Phone=str(number))
        stack.settled()
        mirror.until_equal(stack)
        mirror.process.kill()
        stack.daemon.kill()
        for suffix in ("", "-wal", "-shm"):
            stack.replica.path.with_name(stack.replica.path.name + suffix).unlink(missing_ok=True)
        if how == "went_back":
            backup.rename(stack.replica.path)
            # By stream it would learn the same again, and all would be well; by query it learns something else.
            with closing(sqlite3.connect(stack.replica.path)) as database, database:
                database.execute("DELETE FROM cursor WHERE name LIKE 'stream%'")
        stack.org.delete("Contact", contacts[2])
        stack.org.update("Contact", contacts[3], Phone="new")
        stack.start()
        for number in range(12):
            stack.org.update("Contact", contacts[4], Phone=str(number))
        stack.until_equal()
        mirror.start()
        mirror.until_equal(stack)
        assert [e["reason"] for e in mirror.process.events("mirror.begun_anew")] == [how]
        assert mirror.file.record("Contact", contacts[2])["_deleted_at"] is not None  # type: ignore[index]  # it is there


def test_a_field_that_comes(make_stack: MakeStack, tmp_path: Path) -> None:
    """The connector reads the object again, and so does the mirror: the new column has everybody's values."""
    stack = make_stack({"objects": {"Contact": {"fields": "all"}}})
    stack.start()
    with mirror_at(tmp_path, stack.broker) as mirror:
        mirror.until_equal(stack)
        someone, other = list(stack.org.records("Contact"))[:2]
        field = {"name": "Level__c", "type": "string", "length": 20}
        stack.org.call("POST", "/fields", {"object": "Contact", "field": field})
        stack.org.update("Contact", someone, Level__c="gold")
        until(lambda: "Level__c" in (stack.replica.record("Contact", other) or {}))
        stack.settled()
        mirror.until_equal(stack)
        assert mirror.file.record("Contact", someone)["Level__c"] == "gold"  # type: ignore[index]  # it is there
