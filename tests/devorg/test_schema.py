"""Objects and fields: as recorded, and as changed at run time."""

import re
from importlib import resources

import orjson
import pytest

from connector.devorg.clock import http_date, http_date_ms, rest_datetime, stamp, stamp_ms
from connector.devorg.database import OrgDatabase
from connector.devorg.errors import OrgError
from connector.devorg.ids import IdFactory, is_id, to_18
from connector.devorg.objects.schema import RECORDED_OBJECTS, Schema
from tests.devorg.books import Books


def test_recorded_describes_are_served_unchanged() -> None:
    """What was recorded from a real org is what is served."""
    folder = resources.files("connector.devorg.objects") / "describe"
    for name in RECORDED_OBJECTS:
        assert Schema().describe(name) == orjson.loads((folder / f"{name}.json").read_bytes())


def test_names_are_found_in_any_case() -> None:
    """As the real API does."""
    schema = Schema()
    contact = schema.get("cONTACT")
    assert contact is not None
    field = contact.field("lastname")
    assert field is not None
    assert (contact.name, field.name, schema.get("Nonsense")) == ("Contact", "LastName", None)
    with pytest.raises(OrgError, match="NOT_FOUND"):
        schema.require("Nonsense")


def test_compound_parts() -> None:
    """Parts lose the compound's prefix; an account's name is no compound."""
    schema = Schema()
    lead, contact = schema.require("Lead"), schema.require("Contact")
    assert lead.parts("Address")["City"].name == "City"
    assert contact.parts("MailingAddress")["City"].name == "MailingCity"
    assert set(contact.parts("Name")) == {"LastName", "FirstName", "Salutation"}
    assert schema.require("Account").parts("Name") == {}
    schema.add_field("Account", {"name": "Place__c", "type": "location"})
    for part in ("Latitude", "Longitude"):
        name = f"Place__{part}__s"
        schema.add_field("Account", {"name": name, "type": "double", "compoundFieldName": "Place__c"})
    assert set(schema.require("Account").parts("Place__c")) == {"Latitude", "Longitude"}


def test_event_schema_ids_change_with_the_fields() -> None:
    """22 URL-safe characters, one per shape of the object."""
    schema = Schema()
    seen = {schema.event_schema_id(name) for name in schema.names()}
    before = schema.event_schema_id("Contact")
    schema.add_field("Contact", {"name": "Key__c"})
    seen.add(schema.event_schema_id("Contact"))
    assert len(seen) == len(schema.names()) + 1
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", text) for text in seen)
    schema.remove_field("Contact", "Key__c")
    assert schema.event_schema_id("Contact") == before


def test_fields_come_and_go_with_their_values() -> None:
    """A field added, retyped and removed: values are kept where the new type can hold them."""
    books = Books()
    books.schema.add_field("Contact", {"name": "Level__c", "type": "string", "length": 20})
    ids = [books.create("Contact", LastName="A", Level__c=level) for level in ("12", "high", None)]
    books.schema.change_field("Contact", "Level__c", type="double", scale=1)
    levels = [(books.org.get("Contact", record_id) or {})["Level__c"] for record_id in ids]
    assert levels == [12.0, None, None]
    books.schema.change_field("Contact", "Level__c", label="Level")
    assert books.schema.require("Contact").fields["Level__c"].scale == 1
    books.schema.remove_field("Contact", "Level__c")
    assert "Level__c" not in (books.org.get("Contact", ids[0]) or {})
    books.database.close()


def test_changes_that_are_refused() -> None:
    """System fields stay; names and types have to be ones the org knows."""
    schema = Schema(OrgDatabase())
    for wrong in ({"name": ""}, {"name": "1__c"}, {"name": 'a"b__c'}, {"name": "A__c", "type": "nonsense"}):
        with pytest.raises(ValueError, match=r"not an API name|no such field type"):
            schema.add_field("Contact", wrong)
    with pytest.raises(ValueError, match="already"):
        schema.add_field("Contact", {"name": "lastname"})
    with pytest.raises(ValueError, match="system field"):
        schema.remove_field("Contact", "SystemModstamp")
    with pytest.raises(ValueError, match="no field"):
        schema.change_field("Contact", "Nonsense")
    for wrong in ({"name": "Invoice__c", "keyPrefix": "a05"}, {"name": "New__c", "keyPrefix": "a00"}):
        with pytest.raises(ValueError, match="already"):
            schema.add_object(wrong)


def test_what_follows_from_a_few_members() -> None:
    """External ids are look-ups, long texts cannot be filtered, look-ups have a relationship name."""
    invoice = Schema().require("Invoice__c")
    key, notes, contact = (invoice.fields[n] for n in ("BlackRoad_Key__c", "Notes__c", "Contact__c"))
    assert (key.id_lookup, key.unique, key.raw["byteLength"]) == (True, True, 384)
    assert (notes.filterable, notes.sortable, notes.length) == (False, False, 32768)
    assert (contact.relationship_name, contact.reference_to) == ("Contact__r", ("Contact",))
    assert invoice.fields["Paid__c"].defaulted_on_create
    assert set(invoice.raw["fields"][0]) == set(Schema().describe("Contact")["fields"][0])


def test_ids() -> None:
    """Published examples of the suffix, and ids that count up without meeting."""
    assert to_18("0015f00002JUWMV") == "0015f00002JUWMVAA5"
    assert to_18("00Q5f000005bwLF") == "00Q5f000005bwLFEAY"
    assert to_18("0" * 15) == "000000000000000AAA"
    assert [is_id(text) for text in ("0" * 15, "0" * 18, "0" * 14, 7, "00-5f00002JUWMV")] == [
        True,
        False,
        False,
        False,
        False,
    ]
    factory = IdFactory({"003": 62})
    made = [factory.make("003") for _ in range(3)]
    assert made[0] == "0035f0000000010AAA"
    assert len(set(made)) == len(made)
    assert all(map(is_id, made))


def test_forms_of_an_instant() -> None:
    """Stored, REST and HTTP forms, all at a resolution of one second."""
    text = stamp(1_767_268_805_999)
    assert text == "2026-01-01T12:00:05.000Z"
    assert rest_datetime(text) == "2026-01-01T12:00:05.000+0000"
    assert stamp_ms(rest_datetime(text)) == stamp_ms(text) == 1_767_268_805_000
    assert http_date_ms(http_date(1_767_268_805_999)) == 1_767_268_805_000
    assert http_date(1_767_268_805_999) == "Thu, 01 Jan 2026 12:00:05 GMT"
