"""What of a command is refused before it costs an API call, and with which words."""

import json
from importlib.resources import files
from typing import Any

import pytest

from connector.errors import CommandRejected
from connector.model.change import Operation
from connector.model.objects import ObjectSpec, object_spec
from connector.outbound.payload import CommandPayload, parse_payload, validate_payload
from connector.outbound.rules import WriteRules
from connector.outbound.soql import literal
from connector.outbound.validate import ValidWrite, validate_write, wire_value

ALL_OPERATIONS = frozenset({"create", "update", "upsert", "delete"})
RULES = WriteRules(writable=True, fields=frozenset(), operations=ALL_OPERATIONS, external_id="")
PREFIXES = {"001": "Account", "003": "Contact"}
CONTACT_ID = "0035f00002KmQ7aAAF"


def spec(name: str, *fields: str) -> ObjectSpec:
    raw = files("connector.devorg.objects").joinpath(f"describe/{name}.json").read_text("utf-8")
    return object_spec(json.loads(raw), fields or "all")


CONTACT = spec("Contact")


def checked(operation: Operation, payload: dict[str, Any], rules: WriteRules = RULES) -> ValidWrite:
    return validate_write(operation, validate_payload(payload), CONTACT, rules, PREFIXES)


def problems(operation: Operation, payload: dict[str, Any], rules: WriteRules = RULES) -> list[str]:
    with pytest.raises(CommandRejected) as caught:
        checked(operation, payload, rules)
    return list(caught.value.problems)


def test_a_good_update_is_normalised() -> None:
    """15-character ids become 18, text is trimmed as the org trims it, empty text is null."""
    fields = {"Phone": " 555 ", "Title": "", "AccountId": "0015f00002JUWMV", "DoNotCall": True}
    known = {name: value for name, value in fields.items() if name in CONTACT.by_name}
    write = checked(Operation.UPDATE, {"id": CONTACT_ID[:15], "fields": known})
    assert write.record_id == CONTACT_ID
    assert write.fields["Phone"] == "555"
    assert write.fields["Title"] is None
    assert write.fields["AccountId"] == "0015f00002JUWMVAA5"


def test_every_wrong_field_is_named() -> None:
    """One line each, and none of them repeats a value."""
    found = problems(
        Operation.UPDATE,
        {
            "id": "0015f00002JUWMV",
            "fields": {
                "Nope": 1,
                "Phone": 5,
                "Email": "none",
                "LastName": None,
                "FirstName": "x" * 41,
                "AccountId": CONTACT_ID,
                "Name": "secret",
            },
        },
    )
    assert found == [
        "id: begins with 001, but ids of Contact begin with 003",
        "fields.Nope: Contact has no such field",
        "fields.Phone: expected text",
        "fields.Email: expected an email address",
        "fields.LastName: null is not allowed",
        "fields.FirstName: 41 characters; at most 40 are taken",
        "fields.AccountId: an id of Contact, expected one of Account",
        "fields.Name: the org does not let us change it",
    ]


def test_create_needs_its_required_fields_and_no_id() -> None:
    """Required on create: createable, not nillable, no default."""
    found = problems(Operation.CREATE, {"id": CONTACT_ID, "fields": {"FirstName": "Jo"}})
    assert found == ["id: not allowed in create", "fields.LastName: missing; Contact needs it"]


def test_restricted_picklists_only_take_their_values() -> None:
    """Unrestricted ones take any text, as the org does."""
    assert problems(Operation.UPDATE, {"id": CONTACT_ID, "fields": {"CleanStatus": "Shiny"}}) == [
        "fields.CleanStatus: not a value of this picklist"
    ]
    assert checked(Operation.UPDATE, {"id": CONTACT_ID, "fields": {"LeadSource": "Anywhere"}}).fields


def test_settings_limit_what_commands_may_do() -> None:
    """Object, operation and field, each with the setting that says so."""
    update = {"id": CONTACT_ID, "fields": {"Phone": "1"}}
    closed = WriteRules(writable=False, fields=frozenset(), operations=ALL_OPERATIONS, external_id="")
    assert "objects.Contact.writable" in problems(Operation.UPDATE, update, closed)[0]
    no_update = WriteRules(writable=True, fields=frozenset(), operations=frozenset({"create"}), external_id="")
    assert "objects.Contact.operations" in problems(Operation.UPDATE, update, no_update)[0]
    email_only = WriteRules(writable=True, fields=frozenset({"Email"}), operations=ALL_OPERATIONS, external_id="")
    assert "objects.Contact.writable_fields" in problems(Operation.UPDATE, update, email_only)[0]


def test_a_field_that_is_not_synced_is_not_written() -> None:
    """What the replica does not hold cannot be compared."""
    few = spec("Contact", "LastName", "Phone")
    payload = CommandPayload(id=CONTACT_ID, fields={"Email": "a@b.example"})
    with pytest.raises(CommandRejected, match=r"fields\.Email: not synced"):
        validate_write(Operation.UPDATE, payload, few, RULES, PREFIXES)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"{", "not JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"a": "' + b"x" * 300 + b'"}', "at most 200 are taken"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 150, "not JSON"),
    ],
)
def test_hostile_payloads_are_refused(payload: bytes, problem: str) -> None:
    """Neither crash nor half a command."""
    with pytest.raises(CommandRejected, match=problem):
        parse_payload(payload, 200)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("command_id", "a/b"),
        ("command_id", "x" * 129),
        ("command_id", ""),
        ("command_id", 7),
        ("fields", ["a"]),
        ("base", {"version": -1}),
        ("base", {"version": 1, "last_modified": "2026-01-01T00:00:00Z"}),
        ("base", {"last_modified": "yesterday"}),
        ("expires_at", "2026-01-01"),
        ("on_conflict", "win"),
        ("surprise", 1),
    ],
)
def test_members_of_the_wrong_shape_are_named(member: str, value: object) -> None:
    """The problem begins with the member's name."""
    with pytest.raises(CommandRejected) as caught:
        validate_payload({member: value})
    assert caught.value.problems[0].startswith(member)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 1e30, True, "7", 10**400])
def test_numbers_outside_a_field_are_refused(number: object) -> None:
    """JSON can hold numbers that no field can."""
    with pytest.raises(ValueError, match=r"expected|digits|outside"):
        wire_value(spec("Opportunity").described["Amount"], number, {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [("it's", r"'it\'s'"), ("a\\b", r"'a\\b'"), ("x\ny", r"'x\ny'"), (None, "null"), ("", "''")],
)
def test_literals_are_escaped(value: object, expected: str) -> None:
    """A value never ends its own quotes. Source: SOQL and SOSL Reference, "Quoted String Escape Sequences"."""
    assert literal(CONTACT.described["LastName"], value) == expected
