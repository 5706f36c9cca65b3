"""The reference's full examples of change events, from the transactions that they tell of."""

from typing import Any

import pytest

from connector.devorg.commits import Commit
from connector.devorg.events.changes import EventOptions, render
from connector.devorg.objects.schema import Schema
from tests.devorg.commits import OTHER_USER, USER, Row, changed, commit, row

MARA = "0035f00002KmQ7aAAF"
BROWSER_ORIGIN = "com/salesforce/api/soap/66.0;client=SfdcInternalAPI/"
ACCOUNTS = ("0015f00002RtZ1xAAF", "0015f00002RtZ2yAAF", "0015f00002RtZ3zAAF")


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema()


def one(of: Commit, schema: Schema) -> Row:
    """The only event of a commit, with its members in their order."""
    (payload,) = render(of, schema, EventOptions())
    return payload


def test_create(schema: Schema) -> None:
    """Everything non-empty, names and addresses nested, in the documented order; system fields; no changed fields."""
    after = row(
        AccountId=ACCOUNTS[0],
        Salutation="Dr.",
        FirstName="Mara",
        LastName="Lindqvist",
        Name="Dr. Mara Lindqvist",
        MailingStreet="1 Quay Rd",
        MailingCity="Bergen",
        MailingState=None,
        MailingPostalCode="5003",
        MailingCountry="Norway",
        MailingLatitude=None,
        Phone="+47 555 0101",
        Email="mara@example.com",
        LeadSource="Web",
        IsEmailBounced=False,
        LastActivityDate="2026-01-01",
        MasterRecordId=None,
        CleanStatus="Pending",
    )
    payload = one(
        commit(changed("CREATE", "Contact", MARA, after), origin="com/salesforce/api/rest/66.0;client=sfsync"), schema
    )
    expected = {
        "ChangeEventHeader": {
            "entityName": "Contact",
            "recordIds": [MARA],
            "changeType": "CREATE",
            "changeOrigin": "com/salesforce/api/rest/66.0;client=sfsync",
            "transactionKey": "00057fee-4c3e-f459-02dd-21250b729601",
            "sequenceNumber": 1,
            "commitTimestamp": 1767268800000,
            "commitNumber": 4711000206994,
            "commitUser": USER,
            "changedFields": [],
        },
        "AccountId": ACCOUNTS[0],
        "Name": {"Salutation": "Dr.", "FirstName": "Mara", "LastName": "Lindqvist"},
        "MailingAddress": {"Street": "1 Quay Rd", "City": "Bergen", "PostalCode": "5003", "Country": "Norway"},
        "Phone": "+47 555 0101",
        "Email": "mara@example.com",
        "LeadSource": "Web",
        "OwnerId": USER,
        "CreatedDate": "2026-01-01T12:00:00.000Z",
        "CreatedById": USER,
        "LastModifiedDate": "2026-01-01T12:00:00.000Z",
        "LastModifiedById": USER,
        "CleanStatus": "Pending",
    }
    assert payload == expected
    assert list(payload) == list(expected)
    assert list(payload["ChangeEventHeader"]) == list(expected["ChangeEventHeader"])
    assert list(payload["Name"]) == ["Salutation", "FirstName", "LastName"]


def test_update_of_one_name_component(schema: Schema) -> None:
    """Only the changed component; LastModifiedById is left out where the modifier is the same as before."""
    before = row(FirstName="Mara", LastName="Lindqvist", Name="Mara Lindqvist")
    after = row("2026-01-01T12:00:05.000Z", FirstName="Maren", LastName="Lindqvist", Name="Maren Lindqvist")
    payload = one(
        commit(
            changed("UPDATE", "Contact", MARA, after, before),
            at="2026-01-01T12:00:05.400Z",
            origin=BROWSER_ORIGIN,
            transaction_key="000fcb28-e1ec-a229-1aa5-148c01a8c3f5",
            commit_number=4711000208015,
        ),
        schema,
    )
    assert payload == {
        "ChangeEventHeader": {
            "entityName": "Contact",
            "recordIds": [MARA],
            "changeType": "UPDATE",
            "changeOrigin": BROWSER_ORIGIN,
            "transactionKey": "000fcb28-e1ec-a229-1aa5-148c01a8c3f5",
            "sequenceNumber": 1,
            "commitTimestamp": 1767268805000,
            "commitNumber": 4711000208015,
            "commitUser": USER,
            "changedFields": ["LastModifiedDate", "Name.FirstName"],
        },
        "Name": {"FirstName": "Maren"},
        "LastModifiedDate": "2026-01-01T12:00:05.000Z",
    }


def test_update_with_a_null_by_another_user(schema: Schema) -> None:
    """An emptied field is there as null; the modifier is told because it is another one."""
    before = row(Phone="+47 555 0101", Email="mara@example.com")
    after = row("2026-01-01T12:01:10.000Z", OTHER_USER, Phone=None, Email="maren@example.com")
    payload = one(
        commit(changed("UPDATE", "Contact", MARA, after, before), at="2026-01-01T12:01:10.000Z", user_id=OTHER_USER),
        schema,
    )
    header = payload.pop("ChangeEventHeader")
    assert header["changedFields"] == ["Phone", "Email", "LastModifiedDate", "LastModifiedById"]
    assert header["commitUser"] == OTHER_USER
    assert header["commitTimestamp"] == 1767268870000
    assert list(payload.items()) == [
        ("Phone", None),
        ("Email", "maren@example.com"),
        ("LastModifiedDate", "2026-01-01T12:01:10.000Z"),
        ("LastModifiedById", OTHER_USER),
    ]


def test_merged_update_of_three_accounts(schema: Schema) -> None:
    """The same change of several records is one event with all ids."""
    before = row(Name="any", Industry=None)
    changes = [
        changed(
            "UPDATE",
            "Account",
            name,
            row("2026-01-01T12:03:20.000Z", Name=name, Industry="Apparel"),
            before | {"Name": name},
        )
        for name in ACCOUNTS
    ]
    payload = one(commit(*changes, at="2026-01-01T12:03:20.000Z"), schema)
    header = payload.pop("ChangeEventHeader")
    assert header["recordIds"] == list(ACCOUNTS)
    assert header["changedFields"] == ["Industry", "LastModifiedDate"]
    assert header["commitTimestamp"] == 1767269000000
    assert payload == {"Industry": "Apparel", "LastModifiedDate": "2026-01-01T12:03:20.000Z"}


def test_delete_is_a_header_with_all_ids(schema: Schema) -> None:
    """A bulk delete is merged, has no body and no changed fields."""
    ids = ["0035f00002KmQ7bAAF", "0035f00002KmQ7cAAF"]
    changes = [changed("DELETE", "Contact", name, row(LastName=name), row(LastName=name)) for name in ids]
    payload = one(commit(*changes, at="2026-01-01T12:04:20.000Z"), schema)
    assert list(payload) == ["ChangeEventHeader"]
    header = payload["ChangeEventHeader"]
    assert (header["changeType"], header["recordIds"], header["changedFields"]) == ("DELETE", ids, [])


def test_undelete_brings_back_everything(schema: Schema) -> None:
    """An undelete looks like a create: every non-empty field, and the original creation."""
    after = row(
        "2026-01-01T12:05:20.000Z",
        CreatedDate="2025-11-03T08:15:00.000Z",
        FirstName="Ola",
        LastName="Berg",
        Email="ola@example.com",
        Phone=None,
        CleanStatus="Pending",
    )
    payload = one(commit(changed("UNDELETE", "Contact", MARA, after, after)), schema)
    header = payload.pop("ChangeEventHeader")
    assert (header["changeType"], header["changedFields"]) == ("UNDELETE", [])
    assert payload == {
        "Name": {"FirstName": "Ola", "LastName": "Berg"},
        "Email": "ola@example.com",
        "OwnerId": USER,
        "CreatedDate": "2025-11-03T08:15:00.000Z",
        "CreatedById": USER,
        "LastModifiedDate": "2026-01-01T12:05:20.000Z",
        "LastModifiedById": USER,
        "CleanStatus": "Pending",
    }


def test_overflow_is_one_event_per_entity_behind_the_others(schema: Schema) -> None:
    """What goes beyond the limit is told by entity, numbered behind the normal events."""
    changes = [
        changed("UPDATE", "Account", f"0015f00002RtZ{n:02}AAF", row(Industry=f"Kind {n}"), row()) for n in range(8)
    ]
    changes.append(changed("CREATE", "Contact", MARA, row(LastName="Berg")))
    payloads = render(commit(*changes), schema, EventOptions(overflow_changes=5))
    headers: list[Row] = [payload["ChangeEventHeader"] for payload in payloads]
    assert [header["changeType"] for header in headers] == ["UPDATE"] * 5 + ["GAP_OVERFLOW"] * 2
    assert [header["sequenceNumber"] for header in headers] == list(range(1, 8))
    assert headers[5] | {"entityName": "Contact", "sequenceNumber": 7} == headers[6]
    assert headers[5]["recordIds"] == ["000000000000000AAA"]
    assert headers[5]["changeOrigin"] == "com/salesforce/api/rest/66.0"
    assert list(payloads[5]) == ["ChangeEventHeader"]


def test_long_text_as_a_diff(schema: Schema) -> None:
    """The documented diff of one line of twenty, with the real SHA-256 of the result."""
    lines = [f"Row {n:02} " + 60 * "x" for n in range(1, 21)]
    old = "\n".join(lines)
    new = "\n".join([*lines[:6], "Row 07 revised", *lines[7:]])
    assert (len(old), len(new)) == (1359, 1306)
    payload = one(
        commit(
            changed(
                "UPDATE", "Account", ACCOUNTS[0], row("2026-01-01T12:13:20.000Z", Description=new), row(Description=old)
            )
        ),
        schema,
    )
    assert payload["ChangeEventHeader"]["changedFields"] == ["Description", "LastModifiedDate"]
    assert payload["Description"] == {
        "diff": "--- \n+++ b5990093d1042607fdb931a8f7c16cf54760eb00617ca72e6896b5be264aeeb3\n@@ -7,1 +7,1 @@\n"
        "-Row 07 " + 60 * "x" + "\n+Row 07 revised"
    }


def test_lead_conversion_is_a_sequence_that_ends_with_the_lead(schema: Schema) -> None:
    """Account, contact and opportunity are made, then the lead names them: four numbers in one transaction."""
    account, opportunity, lead = ACCOUNTS[0], "0065f00000VwX9yAAF", "00Q5f000006PpLmEAK"
    open_lead = row(LastName="Berg", Company="Quay", Status="Working - Contacted", IsConverted=False)
    told: dict[str, Any] = {
        "Status": "Closed - Converted",
        "IsConverted": True,
        "ConvertedDate": "2026-01-01",
        "ConvertedAccountId": account,
        "ConvertedContactId": MARA,
        "ConvertedOpportunityId": opportunity,
    }
    closed_lead = open_lead | row("2026-01-01T12:15:01.000Z") | told
    whole = commit(
        changed("CREATE", "Account", account, row(Name="Quay")),
        changed("CREATE", "Contact", MARA, row(LastName="Berg", AccountId=account)),
        changed("CREATE", "Opportunity", opportunity, row(Name="Quay", StageName="Prospecting", AccountId=account)),
        changed("UPDATE", "Lead", lead, closed_lead, open_lead),
        at="2026-01-01T12:15:01.000Z",
        origin=BROWSER_ORIGIN,
    )
    payloads = render(whole, schema, EventOptions())
    headers = [payload["ChangeEventHeader"] for payload in payloads]
    assert [(header["entityName"], header["sequenceNumber"]) for header in headers] == [
        ("Account", 1),
        ("Contact", 2),
        ("Opportunity", 3),
        ("Lead", 4),
    ]
    assert len({header["transactionKey"] for header in headers}) == 1
    assert headers[3]["changedFields"] == [*told, "LastModifiedDate"]
    del payloads[3]["ChangeEventHeader"]
    assert payloads[3] == told | {"LastModifiedDate": "2026-01-01T12:15:01.000Z"}

    options = EventOptions(conversion_modified_date=False)
    bare = render(whole, schema, options)[3]
    assert bare["ChangeEventHeader"]["changedFields"] == list(told)
    assert "LastModifiedDate" not in bare
