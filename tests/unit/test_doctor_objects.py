"""What doctor says of an object, of the API's use, of a clock and of what a channel carries: the pure parts."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from connector.doctor.findings import Finding, reason
from connector.doctor.objects import object_findings
from connector.doctor.org import api_findings, clock
from connector.errors import LinkDown, OrgRefused
from connector.model.command import OrgProblem
from connector.salesforce.selection import Channel, developer_name, event_name
from connector.settings import LimitSettings, ObjectSettings
from tests.fakes import real_describe


def wanted(**settings: Any) -> ObjectSettings:
    return ObjectSettings.model_validate({"fields": ("FirstName", "LastName", "Name", "Email"), **settings})


def contact(change: Callable[[dict[str, Any]], dict[str, Any]] = lambda f: f, **members: Any) -> dict[str, Any]:
    """The recorded description of Contact, with an external id field, each field changed."""
    raw = real_describe("Contact")
    email = next(f for f in raw["fields"] if f["name"] == "Email")
    key = {**email, "name": "Key__c", "type": "string", "externalId": True, "unique": True}
    return {**raw, "fields": [change(f) for f in [*raw["fields"], key]], **members}


def only(finding: list[Finding]) -> Finding:
    [one] = finding
    return one


def test_an_object_that_fits_is_one_good_finding() -> None:
    """With everything set that can be."""
    settings = wanted(external_id="Key__c", writable_fields=("Email", "Key__c"), owner={"Email": "org"})
    assert only(object_findings("Contact", settings, contact())).state == "ok"
    assert only(object_findings("Contact", wanted(fields="all"), contact())).state == "ok"


@pytest.mark.parametrize(
    ("settings", "describe", "state", "named"),
    [
        ({"fields": ("Nope__c", "Email", "Gone__c")}, contact(), "fail", "Nope__c, Gone__c"),
        ({}, contact(queryable=False), "fail", "query"),
        ({"external_id": "Nope__c"}, contact(), "fail", "Nope__c"),
        ({"external_id": "Email"}, contact(), "fail", "no external id"),
        ({"external_id": "Key__c"}, contact(lambda f: {**f, "unique": False}), "warn", "not unique"),
        ({"external_id": "Key__c"}, contact(lambda f: {**f, "createable": False}), "fail", "set it"),
        ({"writable_fields": ("Phone",)}, contact(), "fail", "Phone is not synced"),
        ({"writable_fields": ("Name",)}, contact(), "fail", "write Name"),
        ({}, contact(createable=False), "warn", "create, upsert"),
        ({}, contact(deletable=False), "warn", "delete"),
        ({"owner": {"Phone": "mesh"}}, contact(), "warn", "Phone"),
    ],
)
def test_what_does_not_fit_is_named_with_what_to_do(
    settings: Mapping[str, Any], describe: Mapping[str, Any], state: str, named: str
) -> None:
    """One finding per fault; none that all is well beside it."""
    finding = only(object_findings("Contact", wanted(**settings), describe))
    assert (finding.check, finding.state) == ("objects", state)
    assert named in finding.message
    assert finding.mend


def test_an_object_that_commands_may_not_write_needs_no_rights() -> None:
    """`writable = false` asks for reading alone."""
    closed = contact(createable=False, updateable=False, deletable=False)
    assert only(object_findings("Contact", wanted(writable=False), closed)).state == "ok"


@pytest.mark.parametrize("describe", [{}, {"fields": None}, {"fields": [{}], "name": "Contact"}, {"fields": [3]}])
def test_a_description_of_another_shape_is_a_finding(describe: Mapping[str, Any]) -> None:
    """Nothing the org answers makes doctor fall over."""
    assert only(object_findings("Contact", wanted(), describe)).state == "fail"


def test_another_spelling_is_told() -> None:
    """The org finds `contact`, too, but its events and ids say Contact."""
    assert "the org spells it Contact" in only(object_findings("contact", wanted(), contact())).message


def limits(api: Any = None, events: Any = None) -> dict[str, Any]:
    return {"DailyApiRequests": api, "DailyDeliveredPlatformEvents": events, "Other": {"Max": 1}}


def used(used: int, most: int) -> dict[str, int]:
    return {"Max": most, "Remaining": most - used}


@pytest.mark.parametrize(
    ("document", "own", "states", "named"),
    [
        (limits(used(10, 15000), used(3, 10000)), 10, ["ok"], "10 of the org's 15,000"),
        (limits(used(12000, 15000)), 10, ["warn"], "12,000 of 15,000 of the org's API requests"),
        (limits(used(15000, 15000)), 10, ["fail"], "15,000 of 15,000"),
        (limits(used(10, 15000), used(8000, 10000)), 10, ["warn"], "8,000 of 10,000 of the org's delivered events"),
        (limits(used(10, 15000), used(10000, 10000)), 10, ["warn"], "10,000 of 10,000"),
        (limits(used(10, 15000)), 800, ["warn"], "800 of 1,000 of limits.daily_api_calls"),
        (limits(used(10, 15000)), 1000, ["fail"], "1,000 of 1,000"),
        (limits(used(15000, 15000)), 1000, ["fail", "fail"], ""),
        ({}, 10, [], ""),
        (limits("x", {"Max": 0, "Remaining": 0}), 10, [], ""),
    ],
)
def test_headroom_is_told_for_requests_events_and_our_own_ceiling(
    document: Mapping[str, Any], own: int, states: list[str], named: str
) -> None:
    """Warns from the mark on; spent events only warn, for the poller takes over."""
    settings = LimitSettings.model_validate({"daily_api_calls": 1000, "warn_at": 0.8})
    found = api_findings(document, {"own": {"verify": own - 1, "load": 1}}, settings)
    assert [finding.state for finding in found] == states
    assert all(finding.mend for finding in found if finding.state != "ok")
    assert named in (found[0].message if found else "")


@pytest.mark.parametrize(("skew_s", "state", "side"), [(0, "ok", ""), (-30, "ok", ""), (31, "warn", "behind")])
def test_a_clock_may_be_30_seconds_off(skew_s: int, state: str, side: str) -> None:
    """The org's `Date` is in whole seconds and some time on the way."""
    assert clock(skew_s).state == state
    assert side in clock(skew_s).message
    assert "3,600 s ahead of" in clock(-3600).message


def test_event_and_developer_names_are_the_documented_ones() -> None:
    """A custom object's event keeps two underscores, a membership's name never has them."""
    assert event_name("Account") == "AccountChangeEvent"
    assert event_name("Invoice__c") == "Invoice__ChangeEvent"
    assert event_name("acme__Invoice__c") == "acme__Invoice__ChangeEvent"
    assert developer_name("ChangeEvents", "Invoice__ChangeEvent") == "ChangeEvents_Invoice_ChangeEvent"
    assert developer_name("Sales__chn", "AccountChangeEvent") == "Sales_chn_AccountChangeEvent"


@pytest.mark.parametrize(
    ("path", "name", "carried"),
    [
        ("/data/ChangeEvents", "ChangeEvents", ["Account", "Invoice__c"]),
        ("/data/Sales__chn", "Sales__chn", ["Account", "Invoice__c"]),
        ("/data/AccountChangeEvent", "ChangeEvents", ["Account"]),
        ("/data/Invoice__ChangeEvent", "ChangeEvents", ["Invoice__c"]),
    ],
)
def test_a_channel_of_one_object_carries_no_other(path: str, name: str, carried: list[str]) -> None:
    """It depends on what is selected in the standard channel."""
    channel = Channel(path)
    assert channel.name == name
    assert [obj for obj in ("Account", "Invoice__c") if channel.carries(obj)] == carried


def test_a_refusal_is_told_in_the_orgs_words() -> None:
    """Code and message; without any, the status."""
    problem = OrgProblem(code="INSUFFICIENT_ACCESS", message="no right", fields=[])
    assert reason(OrgRefused(403, (problem, {**problem, "message": ""}))) == (
        "INSUFFICIENT_ACCESS: no right; INSUFFICIENT_ACCESS"
    )
    assert reason(OrgRefused(404, ())).startswith("HTTP 404")
    assert reason(LinkDown("gone")) == "gone"
