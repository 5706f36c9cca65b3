"""Objects named in the settings, and fields that come, go and change while the daemon runs."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.making import MakeStack
from tests.e2e.stack import Settings, Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

INVOICE = "Invoice__c"


@pytest.fixture(scope="module")
def stack(make_stack: MakeStack) -> Stack:
    """A custom object with every field, and contacts whose fields come and go."""
    fields = ["FirstName", "LastName", "Level__c", "Nick__c"]
    settings: Settings = {
        "sync": {"objects": [INVOICE, "Contact"]},
        "objects": {INVOICE: {"fields": "all"}, "Contact": {"fields": fields}},
    }
    made = make_stack(settings, objects=(INVOICE, "Contact"))
    made.org.call("PUT", "/selected", {"selected": [INVOICE, "Contact"]})
    made.org.create(INVOICE, Name="Loaded", Amount__c=12.5, Paid__c=True)
    made.start()
    return made


@pytest.fixture(autouse=True)
def equal(stack: Stack) -> Iterator[None]:
    """After each test replica and org agree."""
    yield
    stack.until_equal()


def test_a_custom_object_with_every_field(stack: Stack) -> None:
    """Loaded, streamed and written like any other: its table has a column per readable field, typed."""
    types = column_types(stack, "invoice__c")
    fields = "Name Amount__c Due__c Paid__c Contact__c Notes__c BlackRoad_Key__c OwnerId CreatedDate LastModifiedDate"
    assert set(fields.split()) <= types.keys()
    assert (types["Amount__c"], types["Paid__c"], types["Due__c"]) == ("REAL", "INTEGER", "TEXT")
    (loaded,) = stack.replica.records(INVOICE).values()
    assert (loaded["Amount__c"], loaded["Paid__c"], loaded["Due__c"]) == (12.5, 1, None)
    contact = next(iter(stack.org.records("Contact")))
    values = {"Name": "New", "Due__c": "2027-01-31", "Contact__c": contact, "Notes__c": "two\nlines"}
    invoice = stack.org.create(INVOICE, **values)
    record = stack.until_change(invoice).json["data"]["record"]
    assert {**record, **values, "Paid__c": False, "Amount__c": None} == record
    assert record["CreatedDate"].endswith(".000Z")
    stack.org.update(INVOICE, invoice, Paid__c=True, Due__c=None)
    data = stack.until_change(invoice, "update").json["data"]
    assert {"Paid__c": True, "Due__c": None}.items() <= data["after"].items()
    stack.org.delete(INVOICE, invoice)
    stack.until_change(invoice, "delete")


def test_a_long_text_in_parts(stack: Stack) -> None:
    """A long text's small edit comes as a diff: the row holds the whole new text."""
    text = "\n".join(f"line {number} of the notes" for number in range(100))
    invoice = stack.org.create(INVOICE, Name="Long", Notes__c=text)
    stack.until_change(invoice)
    edited = text.replace("line 50 of", "line fifty of")
    stack.org.update(INVOICE, invoice, Notes__c=edited)
    assert stack.until_change(invoice, "update").json["data"]["after"]["Notes__c"] == edited


def test_commands_write_a_custom_object(stack: Stack) -> None:
    """create, upsert by its external id, and delete; booleans and dates go there and back."""
    topic = f"{ROOT}/command/{INVOICE}"
    fields = {"Name": "Commanded", "Amount__c": 99.5, "Paid__c": True, "Due__c": "2027-05-01"}
    stack.watcher.send(f"{topic}/create", {"command_id": "invoice-1", "fields": fields})
    done = stack.watcher.until(f"{ROOT}/result/invoice-1", lambda m: bool(m.json["status"] != "accepted")).json
    assert done["status"] == "succeeded", done
    data = stack.until_change(done["id"]).json["data"]
    assert fields.items() <= data["record"].items()
    assert data["command_id"] == "invoice-1"
    key = {"field": "BlackRoad_Key__c", "value": "key-7"}
    stack.watcher.send(f"{topic}/upsert", {"command_id": "invoice-2", "external_id": key, "fields": {"Name": "Keyed"}})
    done = stack.watcher.until(f"{ROOT}/result/invoice-2", lambda m: bool(m.json["status"] != "accepted")).json
    assert done["status"] == "succeeded", done
    assert stack.until_change(done["id"]).json["data"]["record"]["BlackRoad_Key__c"] == "key-7"


def test_a_field_that_comes_is_taken_over(stack: Stack) -> None:
    """A new field shows in the next event: described again, column added, old rows read; nothing in quarantine."""
    field = {"name": "Region__c", "type": "string", "length": 40}
    field_order(stack, "POST", INVOICE, field)
    invoice = stack.org.create(INVOICE, Name="R", Region__c="North")
    assert stack.until_change(invoice).json["data"]["record"]["Region__c"] == "North"
    assert column_types(stack, "invoice__c")["Region__c"] == "TEXT"
    assert stack.replica.value("SELECT count(*) FROM quarantine") == 0


def test_a_named_field_that_comes_later_is_taken_over(stack: Stack) -> None:
    """The settings name a field that the org does not have yet: synced without it, and with it once it is there."""
    assert "Level__c" not in column_types(stack, "contact")
    field_order(stack, "POST", "Contact", {"name": "Level__c", "type": "double", "precision": 5})
    contact = stack.org.create("Contact", LastName="Level", Level__c=3)
    until(lambda: column_types(stack, "contact").get("Level__c") == "REAL")
    stack.until_equal()
    assert stack.until_change(contact).json["data"]["record"]["Level__c"] == 3


def test_a_field_that_goes_is_dropped(stack: Stack) -> None:
    """Its column goes with the next description, and what is left goes on."""
    field_order(stack, "DELETE", INVOICE, {"name": "Notes__c"})
    describe_again(stack)
    until(lambda: "Notes__c" not in column_types(stack, "invoice__c"))
    invoice = stack.org.create(INVOICE, Name="Without")
    assert "Notes__c" not in stack.until_change(invoice).json["data"]["record"]


def rereads(stack: Stack) -> int:
    """How often the invoices have been read again."""
    return sum(e["object"] == INVOICE and e["kind"] == "reread" for e in stack.daemon.events("load.finished"))


def test_a_field_that_is_retyped_is_read_again(stack: Stack) -> None:
    """Text becomes a number: the column changes its type, old values are those that the org shows now."""
    first = rereads(stack)
    field_order(stack, "POST", INVOICE, {"name": "Score__c", "type": "string", "length": 20})
    values = {"Name": "Scored", "Score__c": "41"}
    invoice = stack.org.create(INVOICE, **values)
    stack.until_change(invoice)
    until(lambda: column_types(stack, "invoice__c").get("Score__c") == "TEXT")
    field = {"name": "Score__c", "type": "double", "precision": 10, "scale": 2}
    until(lambda: rereads(stack) > first)
    before = rereads(stack)
    field_order(stack, "PATCH", INVOICE, field)
    describe_again(stack)
    until(lambda: column_types(stack, "invoice__c").get("Score__c") == "REAL")
    until(lambda: rereads(stack) > before)  # what it finds of the field is no change
    stack.until_equal()
    stack.org.update(INVOICE, invoice, Score__c=42.5)
    assert stack.until_change(invoice, "update").json["data"]["after"]["Score__c"] == 42.5


def test_fields_that_changed_while_it_was_down(stack: Stack) -> None:
    """What came and went meanwhile is taken over at the start, with the values that the rows lack."""
    assert stack.daemon.stop() == 0
    field_order(stack, "POST", "Contact", {"name": "Nick__c", "type": "string", "length": 40})
    contact = next(iter(stack.org.records("Contact")))
    stack.org.change({"op": "recalculate", "object": "Contact", "id": contact, "values": {"Nick__c": "Nicky"}})
    stack.start()
    until(lambda: column_types(stack, "contact").get("Nick__c") == "TEXT")
    stack.until_equal()
    row = stack.replica.record("Contact", contact)
    assert row is not None
    assert row["Nick__c"] == "Nicky"


def field_order(stack: Stack, method: str, name: str, field: dict[str, Any]) -> None:
    """Add (POST), change (PATCH) or remove (DELETE) a field of an object."""
    stack.org.call(method, "/fields", {"object": name, "field": field})


def describe_again(stack: Stack) -> None:
    """Have the daemon read the descriptions, as it does by itself twice a day and when the org refuses a query."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    stack.watcher.until(f"{ROOT}/reply/sync", lambda m: bool(m.json.get("state") != "started"), since=since)


def column_types(stack: Stack, table: str) -> dict[str, str]:
    """Column -> declared type."""
    with stack.replica.opened() as file:
        rows: list[sqlite3.Row] = file.execute(f'PRAGMA table_info("{table}")').fetchall()
        return {row["name"]: row["type"] for row in rows}
