"""Edits in the org, as a subscriber and a reader of the file see them."""

import re
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.org import creation
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

EDITOR, OTHER_EDITOR = "0055f000007SvcUAAS", "0055f000007SvcVAAS"
ISO = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")


def test_a_create_is_one_cloud_event(stack: Stack) -> None:
    """Every member of section 2: no `before`, `after` equals the record, what is empty is null."""
    version = stack.replica.last_version()
    done = stack.org.call("POST", "/changes", {"changes": [creation("Contact", FirstName="Jane", LastName="Doe")]})
    contact = done["results"][0]["id"]
    message = stack.until_change(contact, "create")
    record = {
        "Id": contact,
        "FirstName": "Jane",
        "LastName": "Doe",
        "Name": "Jane Doe",
        "Email": None,
        "Phone": None,
        "AccountId": None,
        "OwnerId": EDITOR,
    }
    event = message.json
    assert event == {
        "specversion": "1.0",
        "id": f"lucidia/{version + 1}",
        "source": f"/lucidia/salesforce/{stack.told['org_id']}",
        "type": "blackroad.salesforce.record.create",
        "subject": f"Contact/{contact}",
        "time": event["time"],
        "datacontenttype": "application/json",
        "dataschema": "urn:blackroad:salesforce:change:1",
        "data": {
            "object": "Contact",
            "id": contact,
            "operation": "create",
            "version": version + 1,
            "changed": ["FirstName", "LastName", "Name", "OwnerId"],
            "before": None,
            "after": record,
            "record": record,
            "origin": "stream",
            "command_id": None,
            "commit": commit_of(stack, contact),
        },
    }
    assert ISO.fullmatch(event["time"])
    assert event["data"]["commit"]["transaction"] == done["transaction"]
    assert message.topic == f"{ROOT}/change/Contact/create/{contact}"
    assert (message.qos, message.retain) == (1, False)
    assert message.content_type == "application/cloudevents+json"


def test_an_update_tells_what_changed(stack: Stack) -> None:
    """An update's `before` and `after` hold the changed fields only; the record holds every synced one."""
    contact = stack.org.create("Contact", LastName="Update", Phone="1")
    stack.org.change(
        {"op": "update", "object": "Contact", "id": contact, "values": {"Phone": "2", "Title": "not synced"}},
        user=OTHER_EDITOR,
    )
    data = stack.until_change(contact, "update").json["data"]
    assert (data["changed"], data["before"], data["after"]) == (["Phone"], {"Phone": "1"}, {"Phone": "2"})
    assert data["record"]["Phone"] == "2"
    assert data["record"]["LastName"] == "Update"
    assert data["commit"]["user"] == OTHER_EDITOR


def test_a_field_set_to_null_is_null(stack: Stack) -> None:
    """An emptied field is null in message and row, and a field that was not mentioned is left alone."""
    contact = stack.org.create("Contact", LastName="Null", Phone="1", Email="null@example.com")
    stack.org.update("Contact", contact, Phone=None)
    data = stack.until_change(contact, "update").json["data"]
    assert (data["changed"], data["before"], data["after"]) == (["Phone"], {"Phone": "1"}, {"Phone": None})
    assert (data["record"]["Phone"], data["record"]["Email"]) == (None, "null@example.com")
    row = stack.replica.record("Contact", contact)
    assert row is not None
    assert (row["Phone"], row["Email"]) == (None, "null@example.com")


def test_part_of_a_compound_name_moves_the_name(stack: Stack) -> None:
    """The event brings `Name.FirstName` alone; the row gets `FirstName` and the `Name` that REST would show."""
    for name in ("Contact", "Lead"):
        person = stack.org.create(name, FirstName="Ada", LastName="Compound")
        stack.org.update(name, person, FirstName="Grace")
        data = stack.until_change(person, "update").json["data"]
        assert data["after"] == {"FirstName": "Grace", "Name": "Grace Compound"}
        assert data["before"] == {"FirstName": "Ada", "Name": "Ada Compound"}
        stack.org.update(name, person, FirstName=None)
        data = stack.until_change(person, "update", count=2).json["data"]
        assert data["after"] == {"FirstName": None, "Name": "Compound"}


def test_a_delete_and_its_undoing(stack: Stack) -> None:
    """delete: `before` is the record, `after` is null; undelete: the whole record; the row stays throughout."""
    contact = stack.org.create("Contact", LastName="Phoenix", Phone="1")
    created = stack.until_change(contact, "create").json["data"]
    stack.org.delete("Contact", contact)
    gone = stack.until_change(contact, "delete").json["data"]
    assert (gone["changed"], gone["after"], gone["record"]) == ([], None, None)
    assert gone["before"] == created["record"]
    row = stack.replica.record("Contact", contact)
    assert row is not None
    assert ISO.fullmatch(row["_deleted_at"])
    assert row["_version"] == gone["version"]
    assert not stack.replica.rows("SELECT 1 FROM contact_live WHERE Id = ?", contact)
    stack.org.undelete("Contact", contact)
    back = stack.until_change(contact, "undelete").json["data"]
    assert (back["before"], back["after"], back["record"]) == (None, created["record"], created["record"])
    assert back["changed"] == created["changed"]
    until(lambda: stack.replica.rows("SELECT 1 FROM contact_live WHERE Id = ?", contact))


def test_one_event_of_several_records(stack: Stack) -> None:
    """The org merges equal changes into one event; each record gets a change, all of the same transaction."""
    contacts = stack.org.change(*(creation("Contact", LastName=f"Merged {n}") for n in range(5)))
    stack.org.change(*({"op": "update", "object": "Contact", "id": c, "values": {"Phone": "5"}} for c in contacts))
    changes = [stack.until_change(c, "update").json["data"] for c in contacts]
    assert {c["commit"]["transaction"] for c in changes} == {changes[0]["commit"]["transaction"]}
    assert {(c["before"]["Phone"], c["after"]["Phone"]) for c in changes} == {(None, "5")}
    assert stack.compare() == []


def test_a_change_of_what_is_not_synced_is_no_change(stack: Stack) -> None:
    """Nothing is published for a field that is not synced, nor for a value written anew."""
    contact = stack.org.create("Contact", LastName="Quiet", Phone="1")
    stack.until_change(contact)
    stack.org.update("Contact", contact, Title="Unseen")
    stack.org.update("Contact", contact, Phone="1")
    stack.org.update("Contact", contact, Phone="2")
    stack.until_change(contact, "update")
    assert len([c for c in stack.changes() if c["id"] == contact]) == 2


def test_numbers_and_dates_keep_their_types(stack: Stack) -> None:
    """Numbers are JSON numbers and SQLite numbers; dates are `YYYY-MM-DD`."""
    deal = stack.org.create("Opportunity", Name="Typed", Amount=1234.5, CloseDate="2027-02-28")
    record = stack.until_change(deal).json["data"]["record"]
    assert (record["Amount"], record["CloseDate"]) == (1234.5, "2027-02-28")
    row = stack.replica.record("Opportunity", deal)
    assert row is not None
    assert (row["Amount"], row["CloseDate"], row["StageName"]) == (1234.5, "2027-02-28", "Prospecting")
    assert stack.replica.value("SELECT typeof(Amount) FROM opportunity WHERE Id = ?", deal) == "real"


def test_cascades_merges_and_conversions_end_equal(stack: Stack) -> None:
    """A deleted account takes its contacts along, a merge re-parents, a lead becomes three records: all in step."""
    account, other = stack.org.create("Account"), stack.org.create("Account")
    contact = stack.org.create("Contact", AccountId=account)
    kept = stack.org.create("Contact", AccountId=other)
    lead = stack.org.create("Lead", FirstName="Con", LastName="Verted")
    stack.org.change({"op": "merge", "object": "Account", "id": other, "losers": [account]})
    stack.org.change({"op": "convert", "id": lead, "create_opportunity": True})
    stack.org.delete("Account", other)
    for child in (contact, kept):
        stack.until_change(child, "delete")
    stack.settled()


def test_latency_is_that_of_a_push(stack: Stack) -> None:
    """An edit reaches a subscriber well before any poll could: the stream brings it."""
    contact = stack.org.create("Contact", LastName="Fast")
    began = time.monotonic()
    stack.until_change(contact)
    assert time.monotonic() - began < 2


def test_the_log_is_public_and_without_holes(stack: Stack) -> None:
    """Table `change` is what was published: columns as promised, versions without holes, each with its time."""
    rows = stack.replica.rows("SELECT * FROM change ORDER BY version")
    promised = "version object id operation changed before after origin command_id committed_at applied_at published_at"
    assert set(promised.split()) <= rows[0].keys()
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    folded = stack.settled()
    assert [row["id"] for row in rows] == [folded.data[row["version"]]["id"] for row in rows]
    until(lambda: not stack.replica.rows("SELECT 1 FROM change WHERE published_at IS NULL"))


def test_the_tables_are_those_of_the_contract(stack: Stack) -> None:
    """Names, columns and types of section 7, in a file that any SQLite reads while the daemon runs."""
    with stack.replica.opened() as file:
        assert file.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert file.execute("PRAGMA user_version").fetchone()[0] >= 1
        assert file.execute("PRAGMA application_id").fetchone()[0] != 0
        own = {"_version": "INTEGER", "_synced_at": "TEXT", "_deleted_at": "TEXT", "_modstamp": "TEXT"}
        texts = dict.fromkeys(("Id", "FirstName", "LastName", "Name", "Email", "Phone", "AccountId", "OwnerId"), "TEXT")
        assert columns(file, "contact") == {**texts, **own}
        texts = dict.fromkeys(("Id", "Name", "Industry", "OwnerId"), "TEXT")
        assert columns(file, "account") == {**texts, "AnnualRevenue": "REAL", **own}
        assert {"command_id", "status", "attempts", "errors"} <= columns(file, "command").keys()
        assert {"name", "value"} <= columns(file, "cursor").keys()
        assert set(columns(file, "api_usage")) == {"hour", "purpose", "calls"}
        kept = {"id", "object", "replay_id", "error", "event", "quarantined_at", "settled_at"}
        assert kept <= columns(file, "quarantine").keys()
        hole = {"object", "from", "to", "reason", "opened_at", "closed_at", "corrected"}
        assert hole <= columns(file, "hole").keys()
        key = [row["name"] for row in file.execute("PRAGMA table_info(contact)") if row["pk"]]
        assert key == ["Id"]
        stamps = file.execute("SELECT _synced_at, _modstamp FROM contact").fetchall()
    assert all(ISO.fullmatch(stamp) for row in stamps for stamp in row)


def test_updates_are_signalled_in_batches(stack: Stack) -> None:
    """`records_updated, count=N`: at most one per interval, and together they count every change."""
    since = stack.watcher.mark()
    for _ in range(3):
        stack.org.change(*(creation("Lead") for _ in range(4)))
    until(lambda: sum(s["data"]["count"] for s in stack.watcher.signals("records_updated", since)) >= 12)
    signals = stack.watcher.signals("records_updated", since)
    for signal in signals:
        assert signal["text"] == f"📊 FND → OS : records_updated, count={signal['data']['count']}"
    moments = [datetime.fromisoformat(s["ts"]).timestamp() for s in signals]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(moments))


def test_a_burst_arrives_in_order(stack: Stack) -> None:
    """Hundreds of edits of a few records in a row: no version is missing, each record ends as it is in the org."""
    contacts = stack.org.change(*(creation("Contact") for _ in range(5)))
    for number in range(60):
        stack.org.change(
            *({"op": "update", "object": "Contact", "id": c, "values": {"Phone": f"{number}"}} for c in contacts)
        )
    folded = stack.settled()
    phones = [
        d["after"]["Phone"] for d in folded.data.values() if d["id"] == contacts[0] and d["operation"] == "update"
    ]
    assert phones == [str(number) for number in range(60)]


def test_logs_hold_no_values_and_no_secrets(stack: Stack) -> None:
    """Ids and counts only: what people typed and what opens the org is nowhere in the log."""
    marker = "Xyzzy-Private-4711"
    contact = stack.org.create("Contact", LastName=marker, Email="private-4711@example.com")
    stack.until_change(contact)
    text = stack.daemon.log.read_text(encoding="utf-8")
    for told in (marker, "private-4711@example.com", stack.told["client_secret"], stack.told["access_token"]):
        assert told not in text
    assert "Traceback" not in text
    assert "DevOrgAccessToken" not in text


@pytest.fixture(autouse=True)
def agreed(stack: Stack) -> Iterator[None]:
    """After each test replica, org and published changes agree."""
    yield
    stack.settled()


def columns(file: sqlite3.Connection, table: str) -> dict[str, str]:
    """Column -> declared type."""
    return {row["name"]: row["type"] for row in file.execute(f"PRAGMA table_info({table})")}


def commit_of(stack: Stack, record_id: str) -> dict[str, Any]:
    """What the org's own ledger says of a record's newest commit."""
    entry = [e for e in stack.org.call("GET", "/ledger", limit="5000")["entries"] if e["id"] == record_id][-1]
    return {
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(entry["commit_ms"] // 1000)),
        "number": entry["commit_number"],
        "user": entry["user_id"],
        "transaction": entry["transaction_key"],
        "sequence": 1,
    }
