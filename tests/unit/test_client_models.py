"""Records as Python objects: attributes, what was changed, what cannot be set."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from connector import Account, Contact, Lead, Opportunity, Record
from connector.client.models import Row, changed_in, mark_sent, record_of
from connector.client.names import Names, attribute

FIELDS = ("FirstName", "LastName", "AccountId", "Custom_Field__c", "CustomField__c", "Sent", "Meta__c")
ROW = Row("0035f00002KmQ7aAAF", dict.fromkeys(FIELDS, "x"), 7, "2026-11-22T17:26:39.000Z", 9, ("c-1",))


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("FirstName", "first_name"),
        ("AccountId", "account_id"),
        ("AnnualRevenue", "revenue"),
        ("annual_revenue", "revenue"),
        ("StageName", "stage"),
        ("CloseDate", "close_date"),
        ("Custom_Field__c", "custom_field__c"),
        ("CustomField__c", "custom_field__c"),
        ("ns__Field__c", "ns__field__c"),
        ("HTMLBody", "html_body"),
        ("NumberOfEmployees", "number_of_employees"),
        ("Line2__c", "line2__c"),
        ("first_name", "first_name"),
    ],
)
def test_attributes_are_field_names_in_snake_case(field: str, name: str) -> None:
    """With the two short forms; an attribute is its own."""
    assert attribute(field) == name


def test_names_go_both_ways() -> None:
    """By attribute or by the org's own name; of two fields with one attribute each can be reached."""
    names = Names("Contact", FIELDS)
    assert [names.field(names.attribute(field)) for field in FIELDS] == list(FIELDS)
    assert (names.field("first_name"), names.field("FirstName"), names.field("id")) == ("FirstName", "FirstName", "Id")
    assert names.attribute("CustomField__c") == "CustomField__c"
    with pytest.raises(ValueError, match="Contact has no synced field 'nope'; it has id, first_name"):
        names.field("nope")


def test_conditions_take_attributes() -> None:
    """At every depth; values are left alone."""
    names = Names("Contact", FIELDS)
    document = {"first_name": "first_name", "or": [{"LastName": None}, {"not": {"account_id": {"in": ["last_name"]}}}]}
    assert names.where(document) == {
        "FirstName": "first_name",
        "or": [{"LastName": None}, {"not": {"AccountId": {"in": ["last_name"]}}}],
    }
    with pytest.raises(ValueError, match="nope"):
        names.where({"and": [{"nope": 1}]})


def test_a_record_that_was_read() -> None:
    """Attributes, items, what else is known of it; a field that the object does not have is named."""
    contact = record_of(Contact, ROW, Names("Contact", FIELDS))
    assert (contact.id, contact.first_name, contact["FirstName"], contact["Id"]) == (ROW.id, "x", "x", ROW.id)
    assert (contact.custom_field__c, contact["CustomField__c"], contact.sent) == ("x", "x", "x")
    assert (contact.meta.version, contact.meta.seen_version, contact.meta.pending) == (7, 9, ("c-1",))
    with pytest.raises(AttributeError, match="no synced field 'email'"):
        _ = contact.email  # declared, and not synced here: nobody knows whether it is empty
    assert contact.to_dict() == dict(contact) == {"id": ROW.id, **{k: "x" for k in contact.to_dict() if k != "id"}}
    with pytest.raises(AttributeError, match="no synced field 'phon'"):
        _ = contact.phon
    with pytest.raises(KeyError, match="Phon"):
        _ = contact["Phon"]
    with pytest.raises(AttributeError, match="no synced field 'phon'"):
        contact.phon = "1"
    with pytest.raises(AttributeError, match="id cannot be set"):
        contact.id = "x"  # type: ignore[misc]  # what is tested
    assert "first_name" in dir(contact)
    assert repr(contact).startswith("Contact(id='0035f00002KmQ7aAAF', first_name='x'")


def test_what_was_changed_is_sent_once() -> None:
    """An assignment of the same value is none."""
    contact = record_of(Contact, ROW, Names("Contact", FIELDS))
    assert changed_in(contact) == {}
    contact.first_name = "y"
    contact["LastName"] = "x"
    contact["CustomField__c"] = None
    assert changed_in(contact) == {"first_name": "y", "CustomField__c": None}
    mark_sent(contact, "c-2")
    assert (changed_in(contact), contact.first_name) == ({}, "y")
    assert (contact.meta.pending, contact.meta.seen_version) == (("c-1", "c-2"), None)


def test_a_new_record() -> None:
    """Only what was given is there to be sent; short and long forms are one field."""
    jane = Contact(first_name="Jane", last_name="Doe", email="jane@example.com")
    assert changed_in(jane) == {"first_name": "Jane", "last_name": "Doe", "email": "jane@example.com"}
    assert (jane.id, jane.phone, jane.meta.version) == (None, None, 0)
    assert changed_in(Account(revenue=1.5)) == {"revenue": 1.5}
    deal = Opportunity(name="D", stage="New")
    deal.stage_name = "Won"
    assert (deal.stage, deal["StageName"]) == ("Won", "Won")
    invoice = Record(Amount__c=5, number_of_items__c=2)
    assert (invoice.amount__c, changed_in(invoice)) == (5, {"amount__c": 5, "number_of_items__c": 2})
    with pytest.raises(AttributeError, match="Record has no 'nope'"):
        _ = invoice.nope


def test_dates_are_text_as_in_messages() -> None:
    """Python's own are taken; a date-time without a zone means nothing."""
    deal = Opportunity(close_date="2026-01-31")
    deal["Seen__c"] = datetime(2026, 11, 22, 18, 26, 39, 157_000, tzinfo=timezone(timedelta(hours=1)))
    deal["Due__c"] = date(2026, 2, 1)
    assert (deal["Seen__c"], deal["Due__c"]) == ("2026-11-22T17:26:39.157Z", "2026-02-01")
    with pytest.raises(ValueError, match="zone"):
        deal["Seen__c"] = datetime(2026, 11, 22)  # noqa: DTZ001 - what is tested
    deal["Seen__c"] = datetime(2026, 11, 22, tzinfo=UTC)
    assert deal["Seen__c"] == "2026-11-22T00:00:00.000Z"


def test_records_are_equal_by_what_they_hold() -> None:
    """And of one kind."""
    names = Names("Contact", FIELDS)
    one, other = record_of(Contact, ROW, names), record_of(Contact, ROW, names)
    assert one == other
    other.first_name = "y"
    assert one != other
    assert Lead(last_name="Doe") != Contact(last_name="Doe")
