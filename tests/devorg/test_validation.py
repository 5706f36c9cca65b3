"""Every way in which the org refuses a value, by Salesforce's code, and what it makes of those it takes."""

from collections.abc import Iterator
from typing import Any

import pytest

from connector.devorg.errors import OrgError
from connector.devorg.objects.schema import Schema
from connector.devorg.objects.validation import stored_value
from tests.devorg.books import USER, Books

CUSTOM_FIELDS = (
    {"name": "Colours__c", "type": "multipicklist", "picklistValues": ["red", "blue"], "restrictedPicklist": True},
    {"name": "Rate__c", "type": "percent", "precision": 5, "scale": 2},
    {"name": "Opens__c", "type": "time"},
    {"name": "Key__c", "type": "string", "externalId": True, "unique": True},
)


@pytest.fixture
def books() -> Iterator[Books]:
    made = Books()
    for field in CUSTOM_FIELDS:
        made.schema.add_field("Account", field)
    yield made
    made.database.close()


def refusal(books: Books, object_name: str, values: dict[str, Any]) -> OrgError:
    with books.org.transaction(USER, "") as transaction, pytest.raises(OrgError) as refused:
        transaction.create(object_name, values)
    return refused.value


@pytest.mark.parametrize(
    ("object_name", "values", "code", "message", "fields"),
    [
        ("Contact", {}, "REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", ["LastName"]),
        ("Lead", {"LastName": "  "}, "REQUIRED_FIELD_MISSING", "[LastName, Company]", ["LastName", "Company"]),
        (
            "Contact",
            {"LastName": "x" * 81},
            "STRING_TOO_LONG",
            f"Last Name: data value too large: {'x' * 81} (max length=80)",
            ["LastName"],
        ),
        (
            "Contact",
            {"LastName": "A", "Email": "nonsense"},
            "INVALID_EMAIL_ADDRESS",
            "Email: invalid email address: nonsense",
            ["Email"],
        ),
        (
            "Contact",
            {"LastName": "A", "CleanStatus": "Dirty"},
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "bad value for restricted picklist field: Dirty",
            ["CleanStatus"],
        ),
        (
            "Account",
            {"Name": "A", "Colours__c": "red;green"},
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "green",
            ["Colours__c"],
        ),
        ("Contact", {"Nick__c": 1}, "INVALID_FIELD", "No such column 'Nick__c' on sobject of type Contact", None),
        ("Contact", {"Id": "0035f0000000001AAA"}, "INVALID_FIELD", "The Id field should not be specified", None),
        (
            "Contact",
            {"LastName": "A", "Name": "A", "IsDeleted": False},
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            "Unable to create/update fields: Name, IsDeleted.",
            ["Name", "IsDeleted"],
        ),
        (
            "Contact",
            {"LastName": "A", "AccountId": "abc"},
            "MALFORMED_ID",
            "Account ID: id value of incorrect type: abc",
            ["AccountId"],
        ),
        (
            "Contact",
            {"LastName": "A", "AccountId": "0035f0000000001AAA"},
            "FIELD_INTEGRITY_EXCEPTION",
            "id value of incorrect type",
            ["AccountId"],
        ),
        (
            "Contact",
            {"LastName": "A", "AccountId": "0015f0000000001AAA"},
            "INVALID_CROSS_REFERENCE_KEY",
            "invalid cross reference id",
            [],
        ),
        (
            "Account",
            {"Name": "A", "RecordTypeId": "012000000000001AAA"},
            "INVALID_CROSS_REFERENCE_KEY",
            "Record Type ID",
            ["RecordTypeId"],
        ),
        (
            "Account",
            {"Name": "A", "AnnualRevenue": 1e18},
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Annual Revenue: value outside of valid range on numeric field",
            ["AnnualRevenue"],
        ),
        (
            "Account",
            {"Name": "A", "NumberOfEmployees": 100_000_000},
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Employees",
            ["NumberOfEmployees"],
        ),
        (
            "Account",
            {"Name": "A", "BillingLatitude": 91},
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Billing Latitude",
            ["BillingLatitude"],
        ),
        (
            "Lead",
            {"LastName": "A", "Company": "C", "IsConverted": None},
            "INVALID_TYPE_ON_FIELD_IN_RECORD",
            "null",
            ["IsConverted"],
        ),
        ("Nonsense", {}, "INVALID_TYPE", "sObject type 'Nonsense' is not supported.", None),
        ("Organization", {}, "INVALID_TYPE_FOR_OPERATION", "entity type Organization does not support create", None),
    ],
)
def test_refusals(
    books: Books, *, object_name: str, values: dict[str, Any], code: str, message: str, fields: list[str] | None
) -> None:
    """Code, text and fields are those of the real org."""
    error = refusal(books, object_name, values)
    assert (error.status, error.code, error.fields) == (400, code, fields)
    assert message in error.message


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("Phone", 5551234, "instance of phone from VALUE_NUMBER_INT value 5551234"),
        ("Phone", {"a": 1}, "instance of phone from START_OBJECT value {"),
        ("Colours__c", ["red"], "instance of multipicklist from START_ARRAY value ["),
        ("AnnualRevenue", "much", "instance of double from VALUE_STRING value much"),
        ("AnnualRevenue", True, "instance of double from VALUE_TRUE value true"),
        ("NumberOfEmployees", 1.5, "instance of int from VALUE_NUMBER_FLOAT value 1.5"),
        ("IsPartner", "yes", "instance of boolean from VALUE_STRING value yes"),
        ("Opens__c", "noon", "instance of time from VALUE_STRING value noon"),
        ("ParentId", 7, "instance of reference from VALUE_NUMBER_INT value 7"),
    ],
)
def test_json_of_a_wrong_kind(books: Books, field: str, value: Any, text: str) -> None:
    """The JSON parser refuses what a field's type cannot be read from."""
    error = refusal(books, "Account", {"Name": "A", field: value})
    assert (error.status, error.code) == (400, "JSON_PARSER_ERROR")
    assert text in error.message


@pytest.mark.parametrize("value", ["2026-02-30", "01.02.2026", "2026-1-1", "2026-01-01T00:00:00Z", 20260101])
def test_dates_that_are_none(books: Books, value: Any) -> None:
    """Only `YYYY-MM-DD` of a day that exists."""
    assert refusal(books, "Contact", {"LastName": "A", "Birthdate": value}).code == "JSON_PARSER_ERROR"


@pytest.mark.parametrize("value", ["2026-01-01", "2026-01-01 12:00:00", "2026-01-01T25:00:00Z", 7])
def test_date_times_that_are_none(books: Books, value: Any) -> None:
    """Only ISO 8601 with an offset or `Z`."""
    assert refusal(books, "Contact", {"LastName": "A", "EmailBouncedDate": value}).code == "JSON_PARSER_ERROR"


@pytest.mark.parametrize(
    ("object_name", "field", "value", "stored"),
    [
        ("Contact", "LastName", " \t A B \n", "A B"),
        ("Contact", "Phone", "   ", None),
        ("Contact", "Salutation", "Captain", "Captain"),
        ("Contact", "AccountId", "0015f0000000001", "0015f0000000001AAA"),
        ("Contact", "EmailBouncedDate", "2026-01-01T13:00:00.999+01:00", "2026-01-01T12:00:00.000Z"),
        ("Contact", "EmailBouncedDate", "2026-01-01T12:00:00+0000", "2026-01-01T12:00:00.000Z"),
        ("Contact", "MailingLatitude", 59.9138688000000001, 59.9138688),
        ("Opportunity", "Amount", 10.005, 10.01),
        ("Opportunity", "Amount", "12.5", 12.5),
        ("Opportunity", "IsPrivate", "true", True),
        ("Account", "NumberOfEmployees", 12.0, 12),
        ("Account", "Colours__c", " red ; blue;", "red;blue"),
        ("Account", "Opens__c", "08:30:00Z", "08:30:00.000Z"),
        ("Account", "AnnualRevenue", 0.5, 1.0),
    ],
)
def test_what_is_made_of_a_value(books: Books, *, object_name: str, field: str, value: Any, stored: Any) -> None:
    """Text is trimmed, empty becomes null, numbers are rounded, ids grow to 18, date-times lose fractions."""
    found = books.schema.require(object_name).field(field)
    assert found is not None
    assert stored_value(found, value) == stored


def test_a_required_field_cannot_be_emptied(books: Books) -> None:
    """Null is as good as missing, on update for the fields that are sent."""
    record_id = books.create("Contact", LastName="A")
    with books.org.transaction(USER, "") as transaction:
        with pytest.raises(OrgError, match="REQUIRED_FIELD_MISSING"):
            transaction.update("Contact", record_id, {"LastName": ""})
        transaction.update("Contact", record_id, {"FirstName": "B"})


def test_fields_for_one_operation_only(books: Books) -> None:
    """Some may be created but not updated, some the other way round."""
    contact = books.create("Contact", LastName="A")
    values = {"Name": "O", "StageName": "Prospecting", "CloseDate": "2026-01-01", "ContactId": contact}
    opportunity = books.create("Opportunity", **values)
    with books.org.transaction(USER, "") as transaction, pytest.raises(OrgError) as refused:
        transaction.update("Opportunity", opportunity, {"ContactId": None})
    assert refused.value.fields == ["ContactId"]
    assert refusal(books, "Account", {"Name": "A", "IsPartner": True}).fields == ["IsPartner"]


def test_unique_fields(books: Books) -> None:
    """A value in use, whatever its case, is DUPLICATE_VALUE; that of a deleted record is free again."""
    first = books.create("Account", Name="A", Key__c="k1")
    error = refusal(books, "Account", {"Name": "B", "Key__c": "K1"})
    assert (error.code, error.fields) == ("DUPLICATE_VALUE", [])
    assert error.message == f"duplicate value found: Key__c duplicates value on record with id: {first[:15]}"
    with books.org.transaction(USER, "") as transaction:
        transaction.update("Account", first, {"Key__c": "k1"})
        transaction.delete("Account", first)
    books.create("Account", Name="B", Key__c="k1")


def test_references_to_deleted_records(books: Books) -> None:
    """A parent in the recycle bin cannot be pointed at."""
    account = books.create("Account", Name="A")
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Account", account)
    assert refusal(books, "Contact", {"LastName": "A", "AccountId": account}).code == "ENTITY_IS_DELETED"


def test_validation_rules(books: Books) -> None:
    """An ordered rule refuses with its own message and field, until it is cleared."""
    order = {
        "object": "Opportunity",
        "when": {"field": "Amount", "test": "above", "value": 1000},
        "message": "Too much",
        "field": "Amount",
    }
    books.org.rules.order("validation", order)
    values = {"Name": "O", "StageName": "Prospecting", "CloseDate": "2026-01-01", "Amount": 1001}
    error = refusal(books, "Opportunity", values)
    assert (error.code, error.message, error.fields) == (
        "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "Too much",
        ["Amount"],
    )
    books.org.rules.clear()
    books.create("Opportunity", **values)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("nonsense", {}),
        ("validation", {"object": "Contact"}),
        ("validation", {"object": "Contact", "message": "m", "when": {"field": "Phone", "test": "nonsense"}}),
        ("duplicate", {"object": "Contact"}),
    ],
)
def test_orders_that_are_not_understood(books: Books, kind: str, body: dict[str, Any]) -> None:
    """The administrator is told at once."""
    with pytest.raises(ValueError, match=r"."):
        books.org.rules.order(kind, body)


def test_unrestricted_picklists_take_any_text() -> None:
    """StageName, Status, Industry and the like are not restricted by default."""
    schema = Schema()
    for object_name, field in (("Opportunity", "StageName"), ("Lead", "Status"), ("Account", "Industry")):
        found = schema.require(object_name).field(field)
        assert found is not None
        assert stored_value(found, "Whatever") == "Whatever"
