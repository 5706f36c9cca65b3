"""Change events as the org sends them become `ChangeEvent`s; whatever is wrong is named without values."""

import json
from typing import Any

import pytest

from connector.errors import UndecodableEvent
from connector.inbound.decode import decode, salvage, sequence_of, transaction_of
from connector.model.change import ChangeEvent, ChangeType
from connector.model.objects import object_spec
from tests.events import T0, account_spec, contact_spec, event, record_id
from tests.fakes import real_describe

CONTACT = contact_spec("MailingCity", "MailingStreet", "Birthdate", "IsEmailBounced", "Description")
ACCOUNT = account_spec("Name", "AnnualRevenue", "NumberOfEmployees", "Description", "BillingCity")
SPECS = {"Contact": CONTACT, "Account": ACCOUNT}
A, B = record_id(1), record_id(2)


def decoded(payload: Any) -> ChangeEvent:
    found = decode(payload, SPECS)
    assert found is not None
    return found


def test_create_flattens_compounds_and_empties_what_is_not_listed() -> None:
    """A CREATE stands for the whole row: nested parts under their own names, everything else empty."""
    got = decoded(
        event(
            "CREATE",
            A,
            Name={"Salutation": "Dr.", "FirstName": "Mara", "LastName": "Lindqvist"},
            MailingAddress={"Street": "1 Quay Rd", "City": "Bergen"},
            Email="mara@example.com",
        )
    )
    assert got.values == {
        "FirstName": "Mara",
        "LastName": "Lindqvist",
        "Name": "Mara Lindqvist",
        "Email": "mara@example.com",
        "MailingCity": "Bergen",
        "MailingStreet": "1 Quay Rd",
        "Phone": None,
        "AccountId": None,
        "OwnerId": None,
        "Birthdate": None,
        "Description": None,
    }
    assert not got.partial_name
    assert got.modified_ms == T0


def test_a_boolean_that_is_not_listed_is_false_where_events_have_it() -> None:
    """Booleans are never null in the org; one that no event brings is left to the poller."""
    spec = object_spec(real_describe("Lead"), ["IsUnreadByOwner", "PhotoUrl", "IsDeleted"])
    got = decode(event("CREATE", record_id(1, "00Q"), entity="Lead"), {"Lead": spec})
    assert got is not None
    assert got.values == {"IsUnreadByOwner": False}


def test_update_lists_only_what_came_and_null_clears() -> None:
    """Absent means unchanged, null means cleared (trap 8)."""
    got = decoded(event("UPDATE", A, Phone=None, Email="x@example.com"))
    assert got.values == {"Phone": None, "Email": "x@example.com"}


def test_update_of_a_name_part_asks_for_a_derived_name() -> None:
    """The event brings `Name.FirstName` alone; the display name must follow (trap 9)."""
    got = decoded(event("UPDATE", A, Name={"FirstName": "Maren"}, header={"changedFields": ["Name.FirstName"]}))
    assert got.values == {"FirstName": "Maren"}
    assert got.partial_name


def test_parts_of_a_name_that_are_not_synced_are_kept_for_the_derivation() -> None:
    """`Name` alone is synced: its parts are needed all the same."""
    only_name = object_spec(real_describe("Contact"), ["Name"])
    got = decode(event("CREATE", A, Name={"FirstName": "Ola", "LastName": "Berg"}), {"Contact": only_name})
    assert got is not None
    assert got.values["Name"] == "Ola Berg"


@pytest.mark.parametrize(
    ("fields", "header", "cleared"),
    [
        ({"MailingAddress": {"City": None}}, {"changedFields": ["MailingAddress.City"]}, {"MailingCity"}),
        ({"MailingAddress": None}, {"changedFields": ["MailingAddress.City"]}, {"MailingCity"}),
        ({"MailingCity": None}, {"changedFields": ["MailingCity"]}, {"MailingCity"}),
        ({}, {"changedFields": ["MailingAddress.City"], "nulledFields": ["MailingAddress.City"]}, {"MailingCity"}),
        ({}, {"nulledFields": ["MailingAddress"]}, {"MailingCity", "MailingStreet"}),
    ],
)
def test_a_cleared_part_of_a_compound_in_every_variant(
    fields: dict[str, Any], header: dict[str, Any], cleared: set[str]
) -> None:
    """Open point of section 11: nested null, null compound, or listed in nulledFields."""
    got = decoded(event("UPDATE", A, header=header, **fields))
    assert got.values == dict.fromkeys(cleared)


@pytest.mark.parametrize("changed", [["MailingAddress"], None])
def test_a_null_compound_that_names_no_part_is_not_guessed(changed: list[str] | None) -> None:
    """One part was cleared, or all of them: the event does not tell."""
    got = decoded(event("UPDATE", A, MailingAddress=None, header={"changedFields": changed}))
    assert got.values == {}
    assert got.unclear == {"MailingCity", "MailingStreet"}


def test_a_null_name_stands_for_its_cleared_parts() -> None:
    """A person always has a Name: null is the form of a cleared part."""
    named = decoded(event("UPDATE", A, Name=None, header={"changedFields": ["Name.FirstName"]}))
    assert named.values == {"FirstName": None}
    assert named.partial_name
    unnamed = decoded(event("UPDATE", A, Name=None, header={"changedFields": None}))
    assert unnamed.values == {}
    assert unnamed.unclear == {"FirstName", "LastName"}


def test_with_nulled_fields_a_null_compound_is_no_change() -> None:
    """Pub/Sub style: what is not listed has not changed."""
    got = decoded(event("UPDATE", A, MailingAddress=None, Phone=None, header={"nulledFields": ["Phone"]}))
    assert got.values == {"Phone": None}
    assert not got.unclear


def test_with_nulled_fields_a_null_that_is_not_listed_is_no_change() -> None:
    """Pub/Sub style: every field is there, unchanged ones as null."""
    got = decoded(
        event("UPDATE", A, Phone=None, Email=None, header={"changedFields": ["Phone"], "nulledFields": ["Phone"]})
    )
    assert got.values == {"Phone": None}


@pytest.mark.parametrize("member", ["changedFields", "transactionKey", "commitNumber", "changeOrigin", "commitUser"])
def test_optional_header_members_may_be_absent(member: str) -> None:
    """Open point of section 11: `changedFields` may not be there on CometD."""
    payload = event("UPDATE", A, Phone="1")
    del payload["ChangeEventHeader"][member]
    assert decoded(payload).values == {"Phone": "1"}


@pytest.mark.parametrize(
    ("value", "wire"), [("2026-01-02", "2026-01-02"), (1767312000000, "2026-01-02"), (None, None), ("", None)]
)
def test_dates_as_text_or_epoch(value: object, wire: object) -> None:
    """Open point of section 11: date fields on CometD."""
    assert decoded(event("UPDATE", A, Birthdate=value)).values == {"Birthdate": wire}


@pytest.mark.parametrize("stamp", ["2026-11-22T17:26:40.000Z", "2026-11-22T17:26:40.000+0000", T0])
def test_last_modified_as_text_or_epoch(stamp: object) -> None:
    assert decoded(event("UPDATE", A, at_ms=T0 + 5700, LastModifiedDate=stamp, Phone="1")).modified_ms == T0


def test_without_last_modified_the_commit_second_counts() -> None:
    """Lead conversion may come without LastModifiedDate."""
    assert decoded(event("UPDATE", A, at_ms=T0 + 1999, LastModifiedDate=..., Phone="1")).modified_ms == T0 + 1000


def test_numbers_take_their_column_type() -> None:
    got = decoded(event("UPDATE", record_id(1, "001"), entity="Account", AnnualRevenue=1000, NumberOfEmployees=12.0))
    assert got.values == {"AnnualRevenue": 1000.0, "NumberOfEmployees": 12}
    assert [type(v) for v in got.values.values()] == [float, int]


def test_several_records_keep_their_order_once() -> None:
    assert decoded(event("DELETE", B, A, B)).record_ids == (B, A)


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("GAP_OVERFLOW", ("000000000000000AAA",)),
        ("UPDATE", ("003*",)),
        ("GAP_UPDATE", ("003*",)),
        ("GAP_OVERFLOW", (A,)),
    ],
)
def test_overflow_and_wildcards_concern_the_whole_object(kind: str, ids: tuple[str, ...]) -> None:
    got = decoded(event(kind, *ids))
    assert got.whole_object
    assert got.record_ids == ()


def test_gap_events_have_ids_and_no_values() -> None:
    got = decoded(event("GAP_UPDATE", A, B, header={"changeOrigin": "", "transactionKey": "0KqT4000000007W"}))
    assert got.is_gap
    assert got.record_ids == (A, B)
    assert got.values == {}


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({"Description": {"diff": "--- \n+++ 00\n"}}, {}),
        ({"Description": "--- \n+++ 00\n"}, {"diffFields": ["Description"]}),
    ],
)
def test_diffs_nested_or_listed(fields: dict[str, Any], header: dict[str, Any]) -> None:
    """CometD nests a diff, Pub/Sub lists the field (trap 10)."""
    got = decoded(event("UPDATE", A, header=header, **fields))
    assert got.diffs == {"Description": "--- \n+++ 00\n"}
    assert "Description" not in got.values


def test_unselected_entities_are_none() -> None:
    assert decode(event("CREATE", record_id(1, "500"), entity="Case", Subject="x"), SPECS) is None


def test_fields_that_are_described_but_not_synced_are_left_out() -> None:
    got = decoded(event("UPDATE", A, Title="Boss", MailingAddress={"Country": "Norway"}, Phone="1"))
    assert got.values == {"Phone": "1"}
    assert not got.unknown_fields


def test_unknown_fields_are_told() -> None:
    got = decoded(event("UPDATE", A, New__c="x", Name={"MiddleName": "Q"}, Phone="1", Place__c={"Latitude": 1.0}))
    assert got.unknown_fields == {"New__c", "Name.MiddleName", "Place__c.Latitude"}
    assert got.values == {"Phone": "1"}


def test_event_uuid_is_no_field() -> None:
    """Open point of section 11: EventUuid and EventApiName may be there."""
    got = decoded(event("UPDATE", A, Phone="1", EventUuid="x", EventApiName="ContactChangeEvent"))
    assert not got.unknown_fields


def test_system_modstamp_follows_last_modified() -> None:
    """It is in no event; a column of it would otherwise stay behind until the next poll."""
    spec = {"Contact": contact_spec("SystemModstamp", "LastModifiedDate")}
    got = decode(event("UPDATE", A, Phone="1"), spec)
    assert got is not None
    assert got.values["SystemModstamp"] == got.values["LastModifiedDate"] == "2026-11-22T17:26:40.000Z"


SECRET = "s3cret-value"
BROKEN: list[tuple[str, Any]] = [
    ("not an object", [1]),
    ("not an object", None),
    ("ChangeEventHeader", {}),
    ("ChangeEventHeader", {"ChangeEventHeader": SECRET}),
    ("entityName", event("UPDATE", A, header={"entityName": 7})),
    ("recordIds", event("UPDATE", header={"recordIds": []})),
    ("recordIds", event("UPDATE", header={"recordIds": SECRET})),
    ("recordIds", event("UPDATE", SECRET)),
    ("another object", event("UPDATE", record_id(1, "001"))),
    ("changeType", event("SNAPSHOT", A)),
    ("commitTimestamp", event("UPDATE", A, header={"commitTimestamp": SECRET})),
    ("commitTimestamp", event("UPDATE", A, header={"commitTimestamp": 10**30})),
    ("commitNumber", event("UPDATE", A, header={"commitNumber": 2**70})),
    ("changedFields", event("UPDATE", A, header={"changedFields": [1]})),
    ("LastModifiedDate", event("UPDATE", A, LastModifiedDate=SECRET)),
    ("Birthdate", event("UPDATE", A, Birthdate=SECRET)),
    ("IsEmailBounced", event("UPDATE", A, IsEmailBounced=SECRET)),
    ("Phone", event("UPDATE", A, Phone=[SECRET])),
    ("Phone", event("UPDATE", A, Phone={"x": SECRET})),
    ("Name.FirstName", event("UPDATE", A, Name={"FirstName": {"x": SECRET}})),
    ("Description", event("UPDATE", A, Description={"diff": 1})),
    ("Phone", event("UPDATE", A, header={"changedFields": ["Phone"]})),
]


@pytest.mark.parametrize(("names", "payload"), BROKEN)
def test_what_is_wrong_is_named_without_values(names: str, payload: Any) -> None:
    with pytest.raises(UndecodableEvent) as caught:
        decode(payload, SPECS)
    assert names in str(caught.value)
    assert SECRET not in str(caught.value)


def test_salvage_reads_what_it_can() -> None:
    """For an event that cannot be decoded: whose records to read instead."""
    assert salvage(event("SNAPSHOT", A, B)) == ("Contact", (A, B))
    assert salvage(event("UPDATE", A, "junk")) == ("Contact", ())
    assert salvage({"ChangeEventHeader": {"entityName": 7, "recordIds": 3}}) == (None, ())
    assert salvage("x") == (None, ())


def test_transaction_and_sequence_are_read_leniently() -> None:
    payload = event("UPDATE", A, transaction="t-1", sequence=4)
    assert (transaction_of(payload), sequence_of(payload)) == ("t-1", 4)
    assert (transaction_of(7), sequence_of({"ChangeEventHeader": {"sequenceNumber": True}})) == (None, None)


def test_the_documented_example_is_decoded() -> None:
    """The create example of section 3.11, word by word."""
    payload = json.loads(
        '{"ChangeEventHeader":{"entityName":"Contact","recordIds":["0035f00002KmQ7aAAF"],"changeType":"CREATE",'
        '"changeOrigin":"com/salesforce/api/rest/66.0;client=sfsync",'
        '"transactionKey":"00057fee-4c3e-f459-02dd-21250b729601","sequenceNumber":1,"commitTimestamp":1767268800000,'
        '"commitNumber":4711000206994,"commitUser":"0055f000007NnAbAAK","changedFields":[]},'
        '"AccountId":"0015f00002RtZ1xAAF","Name":{"Salutation":"Dr.","FirstName":"Mara","LastName":"Lindqvist"},'
        '"MailingAddress":{"Street":"1 Quay Rd","City":"Bergen","PostalCode":"5003","Country":"Norway"},'
        '"Phone":"+47 555 0101","Email":"mara@example.com","LeadSource":"Web","OwnerId":"0055f000007NnAbAAK",'
        '"CreatedDate":"2026-01-01T12:00:00.000Z","CreatedById":"0055f000007NnAbAAK",'
        '"LastModifiedDate":"2026-01-01T12:00:00.000Z","LastModifiedById":"0055f000007NnAbAAK",'
        '"CleanStatus":"Pending"}'
    )
    got = decoded(payload)
    assert got.change_type is ChangeType.CREATE
    assert got.values["Name"] == "Mara Lindqvist"
    assert got.values["MailingCity"] == "Bergen"
    assert got.commit.number == 4711000206994
    assert got.commit.user == "0055f000007NnAbAAK"
    assert not got.unknown_fields
