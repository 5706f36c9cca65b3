"""Rules of change events that the full examples do not show, and every switch."""

import hashlib
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.devorg.cometd.payload import as_streamed
from connector.devorg.commits import RowChange
from connector.devorg.events.changes import EventOptions, render
from connector.devorg.events.diff import text_diff
from connector.devorg.objects.schema import Schema
from tests.devorg.commits import Row, changed, commit, row

IDS = [f"0035f00002KmQ{n}AAF" for n in range(100, 200)]


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema()


def told(schema: Schema, *changes: RowChange, **options: bool | float) -> list[Row]:
    # mypy can not match keyword options with the dataclass's members one by one.
    return render(commit(*changes), schema, EventOptions(**options))  # type: ignore[arg-type]


def streamed(payload: Any, **options: bool) -> Any:
    """As a CometD subscriber gets it."""
    return orjson.loads(as_streamed(orjson.dumps(payload), EventOptions(**options)))  # type: ignore[arg-type]  # likewise


def update(before: Row, after: Row, name: str = "Contact", record_id: str = IDS[0]) -> RowChange:
    return changed("UPDATE", name, record_id, row() | after, row() | before)


def test_account_name_is_plain(schema: Schema) -> None:
    """A business account's name is a string, though describe calls it a person's name too."""
    (payload,) = told(schema, changed("CREATE", "Account", IDS[0], row(Name="Quay Works", BillingCity="Bergen")))
    assert payload["Name"] == "Quay Works"
    assert payload["BillingAddress"] == {"City": "Bergen"}


def test_lead_address_and_fiscal_period(schema: Schema) -> None:
    """A lead's address has no prefix; an opportunity's fiscal period is no compound and no part of its events."""
    (lead,) = told(schema, changed("CREATE", "Lead", IDS[0], row(LastName="Berg", City="Bergen", Company="Quay")))
    assert lead["Address"] == {"City": "Bergen"}
    assert "City" not in lead
    values = row(Name="Deal", FiscalYear=2026, Fiscal="2026 1", HasOpenActivity=True, IsWon=False, Amount=12.5)
    (deal,) = told(schema, changed("CREATE", "Opportunity", IDS[0], values))
    assert not deal.keys() & {"FiscalYear", "Fiscal", "HasOpenActivity"}
    assert (deal["IsWon"], deal["Amount"], deal["Name"]) == (False, 12.5, "Deal")


def test_update_in_the_same_second_tells_the_modification_date(schema: Schema) -> None:
    """LastModifiedDate is always there, even where it is the same as before."""
    (payload,) = told(schema, update({"Phone": "1"}, {"Phone": "2"}))
    assert payload["ChangeEventHeader"]["changedFields"] == ["Phone", "LastModifiedDate"]
    assert payload["LastModifiedDate"] == "2026-01-01T12:00:00.000Z"


def test_save_without_a_change_tells_the_modification_date_alone(schema: Schema) -> None:
    """A record saved as it was still has a new modification date."""
    (payload,) = told(schema, update({}, {"LastModifiedDate": "2026-01-01T12:00:09.000Z"}))
    assert payload["ChangeEventHeader"]["changedFields"] == ["LastModifiedDate"]


def test_only_derived_fields_changed_is_no_event(schema: Schema) -> None:
    """Last viewed or last activity is not a change of the record."""
    assert told(schema, update({"LastViewedDate": None}, {"LastViewedDate": "2026-01-01T12:00:00.000Z"})) == []


def test_different_changes_are_not_merged_and_stay_in_order(schema: Schema) -> None:
    """Equal changes merge where the first of them stood; others, another object or another second do not."""
    late = {"Phone": "1", "LastModifiedDate": "2026-01-01T12:00:01.000Z", "SystemModstamp": "2026-01-01T12:00:01.000Z"}
    payloads = told(
        schema,
        update({}, {"Phone": "1"}, record_id=IDS[0]),
        update({}, {"Phone": "2"}, record_id=IDS[1]),
        update({}, {"Phone": "1"}, record_id=IDS[2]),
        update({}, {"Phone": "1"}, name="Lead", record_id=IDS[3]),
        update({}, late, record_id=IDS[4]),
    )
    headers = [payload["ChangeEventHeader"] for payload in payloads]
    assert [header["recordIds"] for header in headers] == [[IDS[0], IDS[2]], [IDS[1]], [IDS[3]], [IDS[4]]]
    assert [header["sequenceNumber"] for header in headers] == [1, 2, 3, 4]


def test_deletes_of_two_seconds_are_two_events(schema: Schema) -> None:
    """Merging goes no further than a second."""
    later = row("2026-01-01T12:00:01.000Z")
    payloads = told(
        schema, changed("DELETE", "Contact", IDS[0], row(), row()), changed("DELETE", "Contact", IDS[1], later, row())
    )
    assert len(payloads) == 2


def test_a_records_own_events_are_not_merged_past_one_another(schema: Schema) -> None:
    """Of a record that was made and deleted in one transaction the deletion comes last."""
    payloads = told(
        schema,
        changed("DELETE", "Contact", IDS[0], row(), row()),
        changed("CREATE", "Contact", IDS[1], row()),
        changed("DELETE", "Contact", IDS[1], row(), row()),
        changed("DELETE", "Contact", IDS[2], row(), row()),
    )
    headers = [payload["ChangeEventHeader"] for payload in payloads]
    assert [(header["changeType"], header["recordIds"]) for header in headers] == [
        ("DELETE", [IDS[0]]),
        ("CREATE", [IDS[1]]),
        ("DELETE", [IDS[1], IDS[2]]),
    ]


def test_merged_events_have_at_most_so_many_ids(schema: Schema) -> None:
    """A merged event does not grow without bound."""
    payloads = told(
        schema, *(changed("DELETE", "Contact", name, row(), row()) for name in IDS[:25]), max_merged_records=10
    )
    assert [len(payload["ChangeEventHeader"]["recordIds"]) for payload in payloads] == [10, 10, 5]


def test_too_large_an_event_is_a_gap(schema: Schema) -> None:
    """Above 1 MB the header alone is sent, as a gap event of the same kind."""
    big = {f"Big{n}__c": "x" * 30_000 for n in range(3)}
    for name in big:
        if schema.require("Contact").field(name) is None:
            schema.add_field("Contact", {"name": name, "type": "textarea", "length": 32_000})
    (payload,) = told(schema, changed("CREATE", "Contact", IDS[0], row(**big)), max_event_bytes=60_000)
    assert list(payload) == ["ChangeEventHeader"]
    assert payload["ChangeEventHeader"]["changeType"] == "GAP_CREATE"
    (whole,) = told(schema, changed("CREATE", "Contact", IDS[0], row(**big)))
    assert whole["ChangeEventHeader"]["changeType"] == "CREATE"


def test_overflow_counts_each_changed_field(schema: Schema) -> None:
    """An update counts once per changed field, everything else once."""
    changes = [update({}, {"Phone": str(n), "Email": "a@example.com"}, record_id=IDS[n]) for n in range(3)]
    kinds = [payload["ChangeEventHeader"]["changeType"] for payload in told(schema, *changes, overflow_changes=4)]
    assert kinds == ["UPDATE", "UPDATE", "GAP_OVERFLOW"]
    creates = [changed("CREATE", "Contact", IDS[n], row(Phone=str(n), Email="a@example.com")) for n in range(3)]
    assert len(told(schema, *creates, overflow_changes=3)) == 3


def test_large_formula_result_is_a_gap() -> None:
    """A numeric formula of more than 18 digits can not be told."""
    schema = Schema()
    schema.add_field("Contact", {"name": "Sum__c", "type": "double", "calculated": True, "calculatedFormula": "1"})
    (small,) = told(schema, changed("CREATE", "Contact", IDS[0], row(Sum__c=17)))
    (large,) = told(schema, changed("CREATE", "Contact", IDS[0], row(Sum__c=10**18)))
    assert small["Sum__c"] == 17
    assert large["ChangeEventHeader"]["changeType"] == "GAP_CREATE"
    assert told(schema, update({"Sum__c": 1}, {"Sum__c": 2})) == []
    (without,) = told(schema, changed("CREATE", "Contact", IDS[0], row(Sum__c=17)), formula_fields=False)
    assert "Sum__c" not in without


def test_geolocation_of_a_custom_object_comes_whole() -> None:
    """On a custom object one changed coordinate brings the other along."""
    schema = Schema()
    schema.add_field("Invoice__c", {"name": "Place__c", "type": "location"})
    for part in ("Latitude", "Longitude"):
        field = {"name": f"Place__{part}__s", "type": "double", "compoundFieldName": "Place__c"}
        schema.add_field("Invoice__c", field)
    before = {"Place__Latitude__s": 1.5, "Place__Longitude__s": 2.5}
    (payload,) = told(schema, update(before, before | {"Place__Latitude__s": 3.5}, name="Invoice__c"))
    assert payload["Place__c"] == {"Latitude": 3.5, "Longitude": 2.5}
    assert payload["ChangeEventHeader"]["changedFields"] == [
        "LastModifiedDate",
        "Place__c.Latitude",
        "Place__c.Longitude",
    ]


def test_booleans_are_booleans(schema: Schema) -> None:
    """Stored numbers never reach an event as 0 or 1."""
    (payload,) = told(schema, changed("CREATE", "Opportunity", IDS[0], row(Name="Deal", IsPrivate=0, IsClosed=1)))
    assert (payload["IsPrivate"], payload["IsClosed"]) == (False, True)
    assert payload["IsPrivate"] is False


def test_switches(schema: Schema) -> None:
    """Each open point of the documents can be turned the other way."""
    change = update(
        {"MailingCity": "Bergen", "FirstName": "Mara", "LastName": "Berg"},
        {"MailingCity": None, "FirstName": "Maren", "LastName": "Berg"},
    )
    (default,) = told(schema, change)
    assert default["MailingAddress"] == {"City": None}
    assert default["Name"] == {"FirstName": "Maren"}
    (lifted,) = told(schema, change, nested_nulls=False)
    assert lifted == default  # what the Pub/Sub API always tells
    lifted = streamed(default, nested_nulls=False)
    assert lifted["MailingAddress"] is None
    assert lifted["Name"] == default["Name"]
    assert "MailingAddress.City" in lifted["ChangeEventHeader"]["changedFields"]
    (whole,) = told(schema, change, partial_names=False)
    assert whole["Name"] == {"Salutation": None, "FirstName": "Maren", "LastName": "Berg"}
    assert "Name.LastName" not in whole["ChangeEventHeader"]["changedFields"]
    without = streamed(default, changed_fields=False)
    assert "changedFields" not in without["ChangeEventHeader"]
    assert streamed(["no", "event"], nested_nulls=False) == ["no", "event"]
    (birthday,) = told(schema, update({}, {"Birthdate": "1990-02-03"}))
    assert birthday["Birthdate"] == "1990-02-03"
    (as_epoch,) = told(schema, update({}, {"Birthdate": "1990-02-03"}), text_dates=False)
    assert as_epoch["Birthdate"] == 634003200000
    exact = render(commit(change, at="2026-01-01T12:00:00.123Z"), schema, EventOptions(whole_second_commits=False))
    assert exact[0]["ChangeEventHeader"]["commitTimestamp"] == 1767268800123


def test_lookup_cleared_by_a_delete_may_be_silent(schema: Schema) -> None:
    """The children of a deleted account are told of, unless the switch says that they are not."""
    account = "0015f00002RtZ1xAAF"
    changes = (
        changed("DELETE", "Account", account, row(Name="Quay"), row(Name="Quay")),
        update({"AccountId": account}, {"AccountId": None}),
        update({"AccountId": account}, {"AccountId": None, "Phone": "1"}, record_id=IDS[1]),
    )
    assert [len(told(schema, *changes, cleared_lookup_events=on)) for on in (True, False)] == [3, 2]


def test_numbers_count_objects_that_are_not_selected(schema: Schema) -> None:
    """What the bus leaves out later leaves a hole in the sequence."""
    payloads = told(
        schema,
        update({}, {"Phone": "1"}),
        changed("CREATE", "User", IDS[1], row()),
        update({}, {"Phone": "2"}, record_id=IDS[2]),
    )
    assert [payload["ChangeEventHeader"]["sequenceNumber"] for payload in payloads] == [1, 2, 3]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("a\n" * 600, "b\n" * 400, id="shorter than 1,000"),
        pytest.param("a\n" * 600, "a\n" * 601 + "b" * 700, id="length differs by more than half"),
        pytest.param(
            "\n".join(f"old {n} {'x' * 40}" for n in range(30)),
            "\n".join(f"new {n} {'x' * 40}" for n in range(30)),
            id="more than a quarter of the lines",
        ),
        pytest.param("x" * 1200, "y" * 1200, id="one long line: the diff is longer than the value"),
    ],
)
def test_rules_against_a_diff(old: str, new: str) -> None:
    """Each of the four rules alone is enough to send the whole value."""
    assert text_diff(old, new) is None


def applied(old: str, diff: str, newline: str) -> str:
    """The new value, rebuilt as the guide describes."""
    lines, result, position = re.split(r"\r\n|\n|\r", old), list[str](), 0
    hunks = re.split(r"^@@ -(\d+),(\d+) \+\d+,\d+ @@$\n?", diff, flags=re.MULTILINE)
    for start, count, body in zip(hunks[1::3], hunks[2::3], hunks[3::3], strict=True):
        first = int(start) - 1 if int(count) else int(start)
        result += lines[position:first]
        result += [line[1:] for line in body.rstrip("\n").split("\n") if line.startswith("+")]
        position = first + int(count)
    return newline.join(result + lines[position:])


@given(
    st.lists(st.text("abc +-@ä€", max_size=30), min_size=40, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.sampled_from(["drop", "add", "change"])), max_size=5),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_diff_rebuilds_the_value(lines: list[str], edits: list[tuple[int, str]], newline: str) -> None:
    """Applied to the old value, the diff gives exactly the new one, and its hash says so."""
    old = [f"{n:03} {'-' * 30} {line}" for n, line in enumerate(lines)]
    new = list(old)
    for position, what in edits:
        at = position % len(new)
        match what:
            case "drop":
                del new[at]
            case "add":
                new.insert(at, "+ added")
            case _:
                new[at] = "- changed"
    before, after = newline.join(old), newline.join(new)
    diff = text_diff(before, after)
    if diff is not None:
        assert diff.startswith(f"--- \n+++ {hashlib.sha256(after.encode()).hexdigest()}")
        assert applied(before, diff, newline) == after
