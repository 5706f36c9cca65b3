"""Lists of fields as bitmaps: the worked examples of the protocol reference, and what is no bitmap."""

import pytest

from connector.salesforce.pubsub_bitmaps import Field, field_names

_PERSON = ("Salutation", "FirstName", "LastName")
_ADDRESS = ("Street", "City", "State", "PostalCode", "Country", "Latitude", "Longitude", "GeocodeAccuracy")


def fields(*names: str) -> list[Field]:
    """Fields with the parts that a field of that name has."""
    compounds: dict[str, tuple[str, ...]] = {"Name": _PERSON, "Switchable": _PERSON}
    return [(name, compounds.get(name, _ADDRESS if name.endswith("Address") else ())) for name in names]


ACCOUNT = [
    ("Name", ()) if name == "Name" else (name, parts)
    for name, parts in fields(
        "ChangeEventHeader", "Name", "Type", "ParentId", "BillingAddress", "ShippingAddress", "Phone", "Fax",
        "AccountNumber", "Website", "Sic", "Industry", "AnnualRevenue", "NumberOfEmployees", "Ownership",
        "TickerSymbol", "Description", "Rating", "Site", "OwnerId", "CreatedDate", "CreatedById", "LastModifiedDate",
    )
]  # fmt: skip
CONTACT = fields(
    "ChangeEventHeader", "AccountId", "Name", "OtherAddress", "MailingAddress", "Phone", "Fax", "MobilePhone",
    "HomePhone", "OtherPhone", "AssistantPhone", "ReportsToId", "Email", "Title", "Department", "AssistantName",
    "LeadSource", "Birthdate", "Description", "OwnerId", "HasOptedOutOfEmail", "HasOptedOutOfFax", "DoNotCall",
    "CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById",
)  # fmt: skip
WITH_PERSON_ACCOUNTS = [*CONTACT[:2], ("IsPersonAccount", ()), *CONTACT[2:]]


@pytest.mark.parametrize(
    ("schema", "bitmaps", "expected"),
    [
        (ACCOUNT, ["0x400800"], ["Industry", "LastModifiedDate"]),
        (ACCOUNT, ["0x400000", "4-0x01"], ["LastModifiedDate", "BillingAddress.Street"]),
        (ACCOUNT, ["0x010000"], ["Description"]),
        (CONTACT, ["0x02000000", "2-0x02"], ["LastModifiedDate", "Name.FirstName"]),
        (CONTACT, ["0x06001020"], ["Phone", "Email", "LastModifiedDate", "LastModifiedById"]),
        (CONTACT, ["0x20"], ["Phone"]),
        (WITH_PERSON_ACCOUNTS, ["0x0C002040"], ["Phone", "Email", "LastModifiedDate", "LastModifiedById"]),
        (WITH_PERSON_ACCOUNTS, ["0x40"], ["Phone"]),
        (CONTACT, ["4-0x02"], ["MailingAddress.City"]),
        (CONTACT, ["2-0x01", "4-0x03"], ["Name.Salutation", "MailingAddress.Street", "MailingAddress.City"]),
        (CONTACT, ["4-0x02", "0x20"], ["MailingAddress.City", "Phone"]),
        (CONTACT, ["4-0xFF"], [f"MailingAddress.{part}" for part in _ADDRESS]),
        (CONTACT, ["4-0xff"], [f"MailingAddress.{part}" for part in _ADDRESS]),
        (CONTACT, ["0x10"], ["MailingAddress"]),
        (CONTACT, ["0x0000000020"], ["Phone"]),
        (CONTACT, ["0x00"], []),
        (CONTACT, [], []),
    ],
)
def test_bitmaps_are_read_against_their_schema(schema: list[Field], bitmaps: list[str], expected: list[str]) -> None:
    """Bit 0 is the header; nested parts may stand alone; a member that other orgs lack shifts the positions."""
    assert field_names(bitmaps, schema) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0x", "20", "0xG0", "-0x02", "2-", "2-0x", "x-0x02", "0x_1", "0x0\n1", "2-0x08", "99-0x01", "5-0x01",
     "0x08000000", "99999-0x01", "0x" + "F" * 5000],
)  # fmt: skip
def test_what_the_schema_does_not_have_is_refused(text: str) -> None:
    """A list that cannot be read makes the event unreadable: a field must not be taken for another, nor be missed."""
    with pytest.raises(ValueError, match="bitmap"):
        field_names([text], CONTACT)
