"""Queries held against the schema: what is refused, in which words, and how the statement finds its rows."""

import pytest

from connector.devorg.database import OrgDatabase
from connector.devorg.errors import OrgError
from connector.devorg.objects.schema import Schema
from connector.devorg.soql.compile import Plan, compile_query, install
from connector.devorg.soql.parse import parse
from connector.devorg.soql.render import CsvWriter, double_text, records
from connector.devorg.soql.select import Leaf

REFERENCE = "Please reference your WSDL or the describe call for the appropriate names."


def mistyped(field: str, kind: str) -> str:
    return f"value of filter criterion for field '{field}' must be of type {kind} and should not be enclosed in quotes"


@pytest.fixture(scope="module")
def database() -> OrgDatabase:
    return OrgDatabase(None)


@pytest.fixture(scope="module")
def schema(database: OrgDatabase) -> Schema:
    schema = Schema(database)
    install(database.connection)
    colours = {"name": "Colours__c", "type": "multipicklist", "picklistValues": ["Red", "Green"]}
    schema.add_field("Contact", colours)
    schema.add_field("Contact", {"name": "Code__c", "length": 20, "externalId": True, "caseSensitive": True})
    return schema


def select(condition: str, name: str = "Contact") -> str:
    return f"SELECT Id FROM {name} WHERE {condition}"  # noqa: S608  # SOQL, which the org parses


def plan(schema: Schema, text: str) -> Plan:
    return compile_query(parse(text), schema, include_deleted=False)


def way(database: OrgDatabase, compiled: Plan) -> str:
    statement, parameters = compiled.statement()
    steps = database.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
    return " / ".join(step["detail"] for step in steps)


@pytest.mark.parametrize(
    ("text", "code", "pointed_at", "message"),
    [
        (
            "SELECT Idd FROM Contact",
            "INVALID_FIELD",
            "Idd",
            (
                "No such column 'Idd' on entity 'Contact'. If you are attempting to use a custom field, be sure to"
                f" append the '__c' after the custom field name. {REFERENCE}"
            ),
        ),
        (
            "SELECT Id, account.Nam FROM Contact",
            "INVALID_FIELD",
            "account.Nam",
            (
                "No such column 'Nam' on entity 'Account'. If you are attempting to use a custom field, be sure to"
                f" append the '__c' after the custom field name. {REFERENCE}"
            ),
        ),
        (
            "SELECT Id FROM Contacts",
            "INVALID_TYPE",
            "Contacts",
            (
                "sObject type 'Contacts' is not supported. If you are attempting to use a custom object, be sure to"
                f" append the '__c' after the entity name. {REFERENCE}"
            ),
        ),
        (
            "SELECT Id FROM Contact WHERE Acount.Name = 'x'",
            "INVALID_FIELD",
            "Acount.Name",
            (
                "Didn't understand relationship 'Acount' in field path. If you are attempting to use a custom"
                f" relationship, be sure to append the '__r' after the custom relationship name. {REFERENCE}"
            ),
        ),
        ("SELECT Id, Name, ID FROM Contact", "INVALID_FIELD", "ID", "duplicate field selected: ID"),
        (
            "SELECT FIELDS(STANDARD), Email FROM Contact",
            "INVALID_FIELD",
            "Email",
            "duplicate field selected: Email",
        ),
        (
            "SELECT FIELDS(ALL) FROM Contact LIMIT 201",
            "MALFORMED_QUERY",
            "FIELDS",
            "The SOQL FIELDS function must have a LIMIT of at most 200",
        ),
        (
            "SELECT Id FROM Contact WHERE Description LIKE '%x%'",
            "INVALID_FIELD",
            "Description",
            "field 'Description' can not be filtered in a query call",
        ),
        (
            "SELECT Id FROM Contact WHERE MailingAddress = null",
            "INVALID_FIELD",
            "MailingAddress",
            "field 'MailingAddress' can not be filtered in a query call",
        ),
        (
            "SELECT Id FROM Contact ORDER BY Name, MailingAddress",
            "INVALID_FIELD",
            "MailingAddress",
            "field 'MailingAddress' can not be sorted in a query call",
        ),
        (
            "SELECT Id FROM Account WHERE NumberOfEmployees > '5'",
            "INVALID_FIELD",
            "'5'",
            mistyped("NumberOfEmployees", "int"),
        ),
        (
            "SELECT Id FROM Account WHERE NumberOfEmployees = 5.5",
            "INVALID_FIELD",
            "5.5",
            mistyped("NumberOfEmployees", "int"),
        ),
        (
            "SELECT Id FROM Account WHERE AnnualRevenue IN (5, '6')",
            "INVALID_FIELD",
            "'6'",
            mistyped("AnnualRevenue", "double"),
        ),
        (
            "SELECT Id FROM Contact WHERE Name = 5",
            "INVALID_FIELD",
            "5",
            "value of filter criterion for field 'Name' must be of type string and should be enclosed in quotes",
        ),
        (
            "SELECT Id FROM Contact WHERE CreatedDate > '2026-01-01T00:00:00Z'",
            "INVALID_FIELD",
            "'2026",
            mistyped("CreatedDate", "dateTime"),
        ),
        (
            "SELECT Id FROM Contact WHERE CreatedDate > 2026-01-01",
            "INVALID_FIELD",
            "2026",
            mistyped("CreatedDate", "dateTime"),
        ),
        (
            "SELECT Id FROM Contact WHERE Birthdate > 2026-01-01T00:00:00Z",
            "INVALID_FIELD",
            "2026",
            mistyped("Birthdate", "date"),
        ),
        (
            "SELECT Id FROM Contact WHERE IsDeleted = 'true'",
            "INVALID_FIELD",
            "'true'",
            mistyped("IsDeleted", "boolean"),
        ),
        (
            "SELECT Id FROM Contact WHERE IsDeleted > FALSE",
            "INVALID_QUERY_FILTER_OPERATOR",
            "IsDeleted",
            "invalid operator on boolean field",
        ),
        (
            "SELECT Id FROM Contact WHERE AccountId LIKE '001%'",
            "INVALID_QUERY_FILTER_OPERATOR",
            "AccountId",
            "invalid operator on reference field",
        ),
        (
            "SELECT Id FROM Contact WHERE AccountId = '001x'",
            "INVALID_QUERY_FILTER_OPERATOR",
            "'001x'",
            "invalid ID field: 001x",
        ),
        (
            "SELECT Id FROM Contact WHERE LeadSource INCLUDES ('Web')",
            "INVALID_QUERY_FILTER_OPERATOR",
            "LeadSource",
            "invalid operator on picklist field",
        ),
        (
            "SELECT Id FROM Contact OFFSET 2001",
            "NUMBER_OUTSIDE_VALID_RANGE",
            "2001",
            "Maximum SOQL offset allowed is 2000",
        ),
        (
            "SELECT Name, COUNT(Id) FROM Contact",
            "MALFORMED_QUERY",
            "Name",
            "Field must be grouped or aggregated: Name",
        ),
    ],
)
def test_refusals(schema: Schema, text: str, code: str, pointed_at: str, message: str) -> None:
    """Each refusal has Salesforce's code and words, and points at the culprit."""
    with pytest.raises(OrgError) as caught:
        plan(schema, text)
    column = text.rindex(pointed_at) + 1 if pointed_at != "Idd" else 8
    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.message.endswith(f"^\nERROR at Row:1:Column:{column}\n{message}")


def test_a_namespace_of_the_object_or_its_alias_is_no_relationship(schema: Schema) -> None:
    """`Contact.Name` and `c.Name` are the contact's own name."""
    own = plan(schema, "SELECT Name FROM Contact")
    assert plan(schema, "SELECT contact.NAME FROM Contact").statement() == own.statement()
    assert plan(schema, "SELECT c.Name FROM Contact c").statement() == own.statement()


def test_filters_reach_the_indexes(database: OrgDatabase, schema: Schema) -> None:
    """Polling by SystemModstamp, look-ups by external id, id and parent do not read the whole table."""
    since = "SystemModstamp >= 2026-01-01T00:00:00Z"
    polled = way(database, plan(schema, select(f"{since} ORDER BY SystemModstamp, Id LIMIT 2000")))
    assert "record_contact.modstamp" in polled
    assert "TEMP B-TREE" not in polled
    for condition in ("BlackRoad_Key__c = 'K1'", "BlackRoad_Key__c IN ('K1', 'k2')", "Contact__c = '003000000000001'"):
        assert "SEARCH t0 USING" in way(database, plan(schema, select(condition, "Invoice__c")))
    assert "SEARCH t0 USING" in way(
        database, plan(schema, "SELECT Id FROM Contact WHERE Id IN ('003000000000001', '003000000000002')")
    )


def test_long_lists_and_many_conditions(database: OrgDatabase, schema: Schema) -> None:
    """Neither SQLite's bound on parameters nor that on the depth of expressions is met."""
    ids = ",".join(f"'003{number:012}'" for number in range(5_000))
    many = " OR ".join(f"Phone = '{number}'" for number in range(5_000))
    flood = ",".join("1" for _ in range(40_000))
    for text in (f"Id IN ({ids})", many, f"MailingLatitude NOT IN ({flood})"):
        statement, parameters = plan(schema, select(text)).statement()
        assert database.connection.execute(statement, parameters).fetchall() == []


def test_numbers_beyond_any_column(database: OrgDatabase, schema: Schema) -> None:
    """A literal too wide for SQLite is a number like any other."""
    for number in ("99999999999999999999999", "-1e999", "9" * 400):
        text = select(f"AnnualRevenue > {number} AND AnnualRevenue NOT IN ({number})", "Account")
        database.connection.execute(*plan(schema, f"{text} LIMIT {10**30}").statement())


def test_case_sensitive_fields(database: OrgDatabase, schema: Schema) -> None:
    """An external id declared case-sensitive is compared by case; other texts are not."""
    database.insert("record_contact", {"Id": "003000000000001AAA", "IsDeleted": 0, "Code__c": "Ab", "Title": "Ab"})

    def found(condition: str) -> int:
        statement, parameters = plan(schema, select(condition)).statement()
        return len(database.connection.execute(statement, parameters).fetchall())

    assert (found("Code__c = 'Ab'"), found("Code__c = 'AB'"), found("Code__c IN ('aB')")) == (1, 0, 0)
    assert (found("Title = 'AB'"), found("Title IN ('ab', '\u00e9')"), found("Title = '\u00e9'")) == (1, 1, 0)


def test_texts_sort_by_their_capitals(database: OrgDatabase, schema: Schema) -> None:
    """An underscore stands behind the letters, and a letter without a capital of one character stays itself."""
    names = ["a", "_", "B", "\u00df", "\u00e9", None]
    for number, name in enumerate(names):
        row = {"Id": f"00300000000001{number}AAA", "IsDeleted": 0, "Title": name, "Department": "sorted"}
        database.insert("record_contact", row)
    compiled = plan(schema, "SELECT Title FROM Contact WHERE Department = 'Sorted' ORDER BY Title")
    found = [row["Title"] for row in database.connection.execute(*compiled.statement())]
    assert found == [None, "a", "B", "_", "\u00e9", "\u00df"]


def test_relationships_nest_and_share_a_join(database: OrgDatabase, schema: Schema) -> None:
    """One join serves select list, condition and order; a missing parent is null."""
    database.insert("record_account", {"Id": "001000000000001AAA", "IsDeleted": 0, "Name": "Acme"})
    for number, account in ((2, "001000000000001AAA"), (3, None)):
        row = {"Id": f"00300000000000{number}AAA", "IsDeleted": 0, "LastName": "X", "AccountId": account}
        database.insert("record_contact", row)
    compiled = plan(
        schema,
        "SELECT Id, Account.Name, Account.Parent.Name FROM Contact WHERE LastName = 'X' AND"
        " (Account.Name = null OR Account.Name = 'ACME') ORDER BY Account.Name",
    )
    assert compiled.tables.count("JOIN") == 2
    rows = database.connection.execute(*compiled.statement()).fetchall()
    assert compiled.selection is not None
    base = "/services/data/v58.0/sobjects"
    assert list(records(compiled.selection, rows, "58.0")) == [
        {
            "attributes": {"type": "Contact", "url": f"{base}/Contact/003000000000003AAA"},
            "Id": "003000000000003AAA",
            "Account": None,
        },
        {
            "attributes": {"type": "Contact", "url": f"{base}/Contact/003000000000002AAA"},
            "Id": "003000000000002AAA",
            "Account": {
                "attributes": {"type": "Account", "url": f"{base}/Account/001000000000001AAA"},
                "Name": "Acme",
                "Parent": None,
            },
        },
    ]


def test_multipicklists(database: OrgDatabase, schema: Schema) -> None:
    """INCLUDES asks for one group of values all of which are there; EXCLUDES is its opposite."""
    values = {4: "Red", 5: "Red;Green", 6: None}
    for number, colours in values.items():
        row = {"Id": f"00300000000000{number}AAA", "IsDeleted": 0, "LastName": "M", "Colours__c": colours}
        database.insert("record_contact", row)

    def found(condition: str) -> list[int]:
        text = select(f"LastName = 'M' AND Colours__c {condition}")
        return [int(row[0][14]) for row in database.connection.execute(*plan(schema, text).statement())]

    assert found("INCLUDES ('red')") == [4, 5]
    assert found("INCLUDES ('Green;Red')") == [5]
    assert found("INCLUDES ('Blue', 'Green')") == [5]
    assert found("EXCLUDES ('Green')") == [4, 6]
    assert found("= 'Red;Green'") == [5]
    assert found("= null") == [6]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0"),
        (1000.0, "1000.0"),
        (-12.5, "-12.5"),
        (9999999.0, "9999999.0"),
        (10000000.0, "1.0E7"),
        (350000000.0, "3.5E8"),
        (-1234567890.12, "-1.23456789012E9"),
        (0.001, "0.001"),
        (0.00012, "1.2E-4"),
        (37.775123456789012, "37.77512345678901"),
    ],
)
def test_numbers_as_java_writes_them(number: float, text: str) -> None:
    """Bulk results have decimal or scientific text, and no digit is lost."""
    assert double_text(number) == text
    assert float(text) == number


def test_csv_quoting() -> None:
    """Every value is quoted, quotes are doubled, line breaks stay, null and empty look the same."""
    leaves = [Leaf("Name", "text", 0), Leaf("IsDeleted", "boolean", 1), Leaf("Amount", "double", 2)]
    writer = CsvWriter(leaves, ",", "\n")
    assert writer.header() == b'"Name","IsDeleted","Amount"\n'
    assert writer.lines([('a "b", c\r\nd', 1, 2.5), (None, 0, None), ("", 0, 1e7)]) == [
        b'"a ""b"", c\r\nd","true","2.5"\n',
        b'"","false",""\n',
        b'"","false","1.0E7"\n',
    ]
    piped = CsvWriter(leaves[:1], "|", "\r\n")
    assert piped.lines([("a|b",), ("\u00e9",)]) == [b'"a|b"\r\n', '"\u00e9"\r\n'.encode()]
