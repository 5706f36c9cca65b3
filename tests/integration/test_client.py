"""`SFSync` on a real replica, beside its writer: as a script or a notebook uses it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector import Contact, SFSync
from connector.errors import ConfigError, StoreUnusable
from connector.model.change import Change, CommitInfo, Operation
from connector.model.command import Command, CommandStatus
from connector.model.ids import RecordId
from connector.model.record import StoredRecord
from connector.model.times import to_iso
from connector.settings import Settings
from connector.store import Session
from tests.events import account_spec, contact_spec, record_id
from tests.store_nouns import DAY_MS, NOW_MS, change, command, spec_of

CONTACT = contact_spec()
ACCOUNT = account_spec()
INVOICE = spec_of({"Name": "string", "Amount__c": "currency", "Paid__c": "boolean"}, "Invoice__c", "a02")
NAMES = ["Ärger", "bolt", "Bolten", None, "crank"]


def settings_for(path: Path) -> Settings:
    return Settings.model_validate(
        {"salesforce": {"instance_url": "https://acme.my.salesforce.com"}, "storage": {"path": path / "replica.db"}}
    )


def contact(number: int, **values: object) -> StoredRecord:
    return StoredRecord(
        id=record_id(number),
        values={field.name: values.get(field.name) for field in CONTACT.fields},
        version=0,
        synced_ms=NOW_MS,
        deleted_ms=None,
        modified_ms=NOW_MS - 157,
    )


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        for spec in (CONTACT, ACCOUNT, INVOICE):
            opened.run(lambda unit, spec=spec: unit.define(spec))  # type: ignore[misc]  # bound at once
        rows = [contact(n, LastName=name, AccountId=record_id(n % 2, "001")) for n, name in enumerate(NAMES)]
        opened.run(lambda unit: unit.put(CONTACT, rows))
        opened.run(lambda unit: unit.put(CONTACT, [replace(contact(9), deleted_ms=NOW_MS)]))
        invoice = StoredRecord(
            id=RecordId("a025f0000000001AAA"),
            values={"Name": "I-1", "Amount__c": 12.5, "Paid__c": False},
            version=0,
            synced_ms=NOW_MS,
            deleted_ms=None,
            modified_ms=NOW_MS,
        )
        opened.run(lambda unit: unit.put(INVOICE, [invoice]))
        while opened.run(lambda unit: unit.extend_indexes("Contact", 100)):
            pass
        yield opened


@pytest.fixture
def sync(session: Session, tmp_path: Path) -> Iterator[SFSync]:  # noqa: ARG001 - it makes the file
    with SFSync(settings_for(tmp_path)) as opened:
        yield opened


def names(found: object) -> list[str | None]:
    assert hasattr(found, "__iter__")
    return [record.last_name for record in found]


def test_all_of_them(sync: SFSync, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed models, in order, a page at a time; deleted ones are left out."""
    monkeypatch.setattr("connector.client.records.PAGE", 2)
    everybody = sync.contacts.all()
    reading = iter(everybody)
    first = next(reading)
    assert isinstance(first, Contact)
    assert (first.id, first.last_name, first.email) == (record_id(0), "Ärger", None)
    session.run(lambda unit: unit.put(CONTACT, [contact(7, LastName="late")]))
    assert names(reading) == ["bolt", "Bolten", None, "crank", "late"]
    assert len(list(everybody)) == 6
    assert names(sync.contacts.all(order_by="last_name desc", limit=3)) == ["Ärger", "late", "crank"]
    assert sync.contacts.count() == 6
    assert repr(sync.contacts) == "<Contact: 6 records>"


def test_get_by_either_form_of_id(sync: SFSync) -> None:
    """None where there is nothing; a malformed id is a mistake."""
    one = sync.contacts.get(record_id(1)[:15])
    assert one is not None
    assert one.last_name == "bolt"
    assert sync.contacts.get(record_id(9)) is None
    assert sync.contacts.get(record_id(8)) is None
    with pytest.raises(ValueError, match="record id"):
        sync.contacts.get("nonsense")


def test_search(sync: SFSync) -> None:
    """Text anywhere without regard to case, other types by equality, conditions by attribute or own name."""
    assert names(sync.contacts.search(last_name="BOLT")) == ["bolt", "Bolten"]
    assert names(sync.contacts.search(LastName="ärg")) == ["Ärger"]
    assert names(sync.contacts.search(last_name=None)) == [None]
    assert names(sync.contacts.search(last_name="o%")) == []
    where = {"or": [{"last_name": {"like": "b%"}}, {"LastName": None}]}
    assert names(sync.contacts.search(where=where, order_by="last_name")) == [None, "Bolten", "bolt"]
    assert names(sync.contacts.search("bolt", account_id=record_id(1, "001"))) == ["bolt"]
    assert sorted(filter(None, names(sync.contacts.search("bol")))) == ["Bolten", "bolt"]
    assert sync.contacts.count("ÁRGER") == 1
    assert (sync.contacts.count(last_name="bolt"), sync.contacts.count(where=where)) == (2, 3)
    first = sync.contacts.search(last_name="bolt", order_by="LastName").first()
    assert first is not None
    assert first.last_name == "Bolten"
    assert sync.contacts.search(last_name="nobody").first() is None


def test_any_object(sync: SFSync) -> None:
    """Generic records; numbers and booleans by equality."""
    (invoice,) = sync.object("Invoice__c").search(amount__c=12.5, paid__c=False)
    assert (invoice.name, invoice["Amount__c"], invoice.paid__c) == ("I-1", 12.5, False)
    assert sync.object("Invoice__c").search(paid__c=True).first() is None
    assert list(sync.accounts.all()) == []


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda sync: sync.contacts.search(nope="x"), "Contact has no synced field 'nope'"),
        (lambda sync: sync.contacts.search(where={"nope": 1}), "no synced field 'nope'"),
        (lambda sync: sync.contacts.all(order_by="nope"), "no synced field 'nope'"),
        (lambda sync: sync.contacts.count(where={"last_name": {"gt": 5}}), "LastName: expected a text"),
        (lambda sync: sync.contacts.count(where={"last_name": {"nope": 5}}), "no such operator"),
        (lambda sync: sync.leads.count(), "'Lead' is not a synced object; these are: Account, Contact, Invoice__c"),
        (lambda sync: sync.object("contact").count(), "'contact' is not a synced object"),
    ],
)
def test_mistakes_are_named(sync: SFSync, ask: object, says: str) -> None:
    """With what there is instead."""
    assert callable(ask)
    with pytest.raises(ValueError, match=says):
        ask(sync)


def test_without_a_replica(tmp_path: Path) -> None:
    """It says how to get one, and makes none."""
    with SFSync(settings_for(tmp_path)) as sync, pytest.raises(StoreUnusable, match="salesforce-sync sync"):
        sync.contacts.count()
    assert not (tmp_path / "replica.db").exists()
    with pytest.raises(ConfigError, match="no such settings file"):
        SFSync(tmp_path / "settings.toml")


def test_settings_are_found_as_the_program_finds_them(session: Session, tmp_path: Path) -> None:
    """`settings.toml` of the working directory; nothing of the rest is imported until it is used."""
    assert session
    (tmp_path / "settings.toml").write_text(
        '[salesforce]\ninstance_url = "https://acme.my.salesforce.com"\n[storage]\npath = "replica.db"\n', "utf-8"
    )
    script = (
        "import sys, connector\n"
        "assert not {m for m in sys.modules if m.startswith('connector.')}\n"
        "from connector import SFSync, Contact, Lead, Account, Opportunity\n"
        "print(SFSync().contacts.count())\n"
        "assert not {'paho', 'simple_salesforce', 'aiosfstream_ng'} & sys.modules.keys(), 'imported too much'\n"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.stdout, done.stderr) == ("5\n", "")


# --- What is under way ---------------------------------------------------------------------------------------------


def under_way(command_id: str, operation: Operation, number: int, **other: object) -> Command:
    made = command(command_id, object="Contact", operation=operation, record_id=record_id(number), base=None)
    return replace(made, **{"fields": {}, "accepted_ms": NOW_MS, **other})  # type: ignore[arg-type]  # of a command


def add(session: Session, *commands: Command) -> None:
    def work(unit: object) -> None:
        for one in commands:
            unit.add_command(one)  # type: ignore[attr-defined]  # a unit's

    session.run(work)


def test_a_pending_edit_is_visible(sync: SFSync, session: Session) -> None:
    """In order, in every read, with the command's id; a record that is being deleted is gone."""
    add(
        session,
        under_way("one", Operation.UPDATE, 1, fields={"LastName": "first", "Phone": "1"}),
        under_way("two", Operation.UPDATE, 1, fields={"LastName": "second"}),
        under_way("gone", Operation.DELETE, 2),
    )
    edited = sync.contacts.get(record_id(1))
    assert edited is not None
    assert (edited.last_name, edited.phone, edited.meta.pending) == ("second", "1", ("one", "two"))
    assert names(sync.contacts.all()) == ["Ärger", "second", None, "crank"]
    assert sync.contacts.get(record_id(2)) is None


def test_a_settled_edit_is_shown_until_its_change_has_come_back(sync: SFSync, session: Session) -> None:
    """Refused ones never were; nothing flips back in between."""
    now_ms = time.time_ns() // 1_000_000
    done = {"status": CommandStatus.SUCCEEDED, "completed_ms": now_ms, "written_ms": now_ms}
    add(
        session,
        under_way("refused", Operation.UPDATE, 0, fields={"LastName": "no"}, status=CommandStatus.FAILED),
        under_way("done", Operation.UPDATE, 1, fields={"LastName": "yes"}, **done),
        under_way("old", Operation.UPDATE, 2, fields={"LastName": "old"}, **{**done, "completed_ms": NOW_MS - 10**9}),
    )
    assert names(sync.contacts.all(limit=3)) == ["Ärger", "yes", "Bolten"]
    session.run(lambda unit: unit.echo_seen("done", 1))
    assert names(sync.contacts.all(limit=3)) == ["Ärger", "bolt", "Bolten"]


def test_a_record_that_was_just_made_is_found_by_its_id(sync: SFSync, session: Session) -> None:
    """Its change has not come back yet; what the command did not set is not known."""
    done = {"status": CommandStatus.SUCCEEDED, "completed_ms": time.time_ns() // 1_000_000}
    add(
        session,
        under_way("made", Operation.CREATE, 77, fields={"LastName": "New"}, **done),
        under_way("edited", Operation.UPDATE, 77, fields={"Phone": "1"}),
    )
    made = sync.contacts.get(record_id(77))
    assert made is not None
    assert (made.last_name, made.phone, made.email, made.meta.version) == ("New", "1", None, 0)
    add(session, under_way("gone", Operation.DELETE, 77))
    assert sync.contacts.get(record_id(77)) is None


# --- History --------------------------------------------------------------------------------------------------------


def edit(number: int, at_ms: int, before: str | None, after: str | None) -> Change:
    row = {**dict.fromkeys(f.name for f in CONTACT.fields), "LastName": after}
    return change(
        object="Contact",
        id=record_id(number),
        changed=("LastName",),
        before={"LastName": before},
        after={"LastName": after},
        record=row,
        commit=CommitInfo(at_ms, user="0055f000007NnAbAAK"),
    )


def test_who_changed_what_and_when(sync: SFSync, session: Session) -> None:
    """Newest first, by attribute; and the record as it stood at a time."""
    session.run(lambda unit: unit.append([edit(1, NOW_MS, "a", "b"), edit(2, NOW_MS, "", "x")]))
    session.run(lambda unit: unit.append([edit(1, NOW_MS + 10_000, "b", "bolt")]))
    history = sync.contacts.history(record_id(1)[:15])
    assert [(r.version, r.operation, r.user, r.before, r.after) for r in history] == [
        (3, "update", "0055f000007NnAbAAK", {"last_name": "b"}, {"last_name": "bolt"}),
        (1, "update", "0055f000007NnAbAAK", {"last_name": "a"}, {"last_name": "b"}),
    ]
    assert (len(history), history[0].changed, history[0].at) == (2, ("last_name",), "2026-11-22T17:26:50.157Z")
    then = [history.at(to_iso(NOW_MS + after_ms)) for after_ms in (-1, 0, 9_999, 10_000)]
    assert [one.last_name for one in then if one is not None] == ["a", "b", "b", "bolt"]
    assert history.at(datetime(2026, 11, 22, 17, 26, 45, tzinfo=UTC)) == then[1]
    assert isinstance(then[0], Contact)
    assert len(sync.contacts.history(record_id(1), limit=1)) == 1
    with pytest.raises(ValueError, match="reaches back to 2026-11-22T17:26:50"):
        sync.contacts.history(record_id(1), limit=1).at(to_iso(NOW_MS))
    for wrong in ("yesterday", "2026-11-22"):
        with pytest.raises(ValueError, match="ISO 8601"):
            history.at(wrong)


def test_a_record_without_changes(sync: SFSync, session: Session) -> None:
    """As it was loaded; of one that was never there nothing is known."""
    assert len(sync.contacts.history(record_id(1))) == 0
    loaded = sync.contacts.history(record_id(1)).at("2026-01-01T00:00:00Z")
    assert loaded is not None
    assert loaded.last_name == "bolt"
    assert sync.contacts.history(record_id(88)).at("2026-01-01T00:00:00Z") is None
    session.run(lambda unit: unit.append([edit(2, NOW_MS, "", "x"), edit(2, NOW_MS, "x", "y")]))
    session.run(lambda unit: unit.mark_published(2, NOW_MS))
    session.run(lambda unit: unit.trim(NOW_MS + 100 * DAY_MS, DAY_MS, DAY_MS, 100))
    with pytest.raises(ValueError, match="reaches back to"):
        sync.contacts.history(record_id(1)).at("2026-01-01T00:00:00Z")


def test_sql_for_what_else_one_wants_to_know(sync: SFSync) -> None:
    """Rows as dictionaries, bound values; nothing can be written."""
    rows = sync.sql("SELECT LastName, count(*) AS n FROM contact_live WHERE LastName LIKE ? GROUP BY 1", ["bolt%"])
    assert rows == [{"LastName": "Bolten", "n": 1}, {"LastName": "bolt", "n": 1}]
    assert sync.sql("SELECT 1 AS one WHERE :x = 2", {"x": 1}) == []
    for wrong in ("SELECT nope FROM contact", "SELECT ?", "nonsense"):
        with pytest.raises(ValueError, match=r"nope|binding|syntax"):
            sync.sql(wrong)
    with pytest.raises(StoreUnusable, match="read-only"):
        sync.sql("DELETE FROM contact")
    assert sync.contacts.count() == 5


async def test_in_a_notebook(sync: SFSync) -> None:
    """A notebook's cell runs inside an event loop: nothing here starts one of its own."""
    assert sync.contacts.count() == len(NAMES)
    assert [c.last_name for c in sync.contacts.search("bolt", order_by="last_name")] == ["Bolten", "bolt"]
    assert "Bolten" in repr(sync.contacts.search(last_name="Bolten").first())
