"""Tooling API: what is selected for Change Data Capture, asked and changed as an administrator's scripts do."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.devorg.objects.residents import FIRST_EDITOR_ID
from connector.devorg.server import DevOrg
from tests.devorg.clients import called, salesforce
from tests.devorg.conftest import Admin

TOOLING = "/services/data/v58.0/tooling"
MEMBERS = f"{TOOLING}/sobjects/PlatformEventChannelMember"
DEFAULTS = ["Account", "Contact", "Lead", "Opportunity"]


def order(event: str, channel: str = "ChangeEvents", full_name: str = "") -> dict[str, Any]:
    """The documented body of a create."""
    name = full_name or f"{channel}_{event}".replace("__", "_")
    return {"FullName": name, "Metadata": {"eventChannel": channel, "selectedEntity": event}}


async def asked(api: aiohttp.ClientSession, soql: str) -> Any:
    async with api.get(f"{TOOLING}/query", params={"q": soql}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def refused(api: aiohttp.ClientSession, body: Any) -> tuple[int, str, str]:
    """Status, code and message of a create that must be refused."""
    async with api.post(MEMBERS, json=body) as answer:
        [error] = await answer.json()
        return answer.status, error["errorCode"], error["message"]


async def test_a_public_client_reads_and_changes_the_selection(org: DevOrg) -> None:
    """simple-salesforce's way into the Tooling API; what it selects has events."""
    soql = (
        "SELECT Id, DeveloperName, EventChannel, SelectedEntity FROM PlatformEventChannelMember ORDER BY DeveloperName"
    )
    with salesforce(org) as client:
        before = await called(client.toolingexecute, "query/", params={"q": soql})
        made = await called(
            client.toolingexecute,
            "sobjects/PlatformEventChannelMember",
            "POST",
            order("Invoice__ChangeEvent"),
        )
    assert (before["totalSize"], before["done"], before["entityTypeName"]) == (4, True, "PlatformEventChannelMember")
    first = before["records"][0]
    assert first["attributes"]["url"].endswith(f"/tooling/sobjects/PlatformEventChannelMember/{first['Id']}")
    assert [(r["DeveloperName"], r["EventChannel"], r["SelectedEntity"]) for r in before["records"]] == [
        (f"ChangeEvents_{name}ChangeEvent", "ChangeEvents", f"{name}ChangeEvent") for name in DEFAULTS
    ]
    assert made["success"] is True
    assert made["id"].startswith("0v8")
    assert org.ctx.schema.selected == {*DEFAULTS, "Invoice__c"}
    position = org.ctx.bus.latest_id()
    with org.ctx.org.transaction(FIRST_EDITOR_ID, "") as transaction:
        transaction.create("Invoice__c", {"Amount__c": 12})
    assert org.ctx.bus.latest_id() > position


async def test_custom_objects_and_channels_are_told_by_id(api: aiohttp.ClientSession, admin: Admin) -> None:
    """A client has to go by the developer name, which never holds two underscores in a row."""
    await admin("PUT", "/selected", {"selected": ["Invoice__c"]})
    await admin("PUT", "/channels/Sales__chn", {"objects": ["Lead"], "enriched": {"Lead": ["Company"]}})
    body = await asked(api, "SELECT DeveloperName, EventChannel, SelectedEntity FROM PlatformEventChannelMember")
    rows = {row["DeveloperName"]: row for row in body["records"]}
    assert rows.keys() == {"ChangeEvents_Invoice_ChangeEvent", "Sales_chn_LeadChangeEvent"}
    assert rows["ChangeEvents_Invoice_ChangeEvent"]["SelectedEntity"].startswith("01I")
    assert rows["Sales_chn_LeadChangeEvent"]["EventChannel"].startswith("0YL")


async def test_queries_take_conditions_and_counts(api: aiohttp.ClientSession) -> None:
    """As with any object; the documented way to count what is selected."""
    body = await asked(
        api, "SELECT Id FROM PlatformEventChannelMember WHERE SelectedEntity = 'LeadChangeEvent' AND IsDeleted = false"
    )
    assert body["totalSize"] == 1
    counted = await asked(api, "SELECT COUNT_DISTINCT(SelectedEntity) n FROM PlatformEventChannelMember")
    assert counted["records"][0]["n"] == 4
    assert (await asked(api, "SELECT COUNT() FROM PlatformEventChannelMember"))["totalSize"] == 4
    for soql, code in (
        ("SELECT Nope FROM PlatformEventChannelMember", "INVALID_FIELD"),
        ("SELECT Id FROM Contact", "INVALID_TYPE"),
        ("SELECT", "MALFORMED_QUERY"),
    ):
        async with api.get(f"{TOOLING}/query/", params={"q": soql}) as answer:
            assert (answer.status, (await answer.json())[0]["errorCode"]) == (400, code)


async def test_a_member_is_read_and_deleted_by_id(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """`FullName` and `Metadata` come with the row; a deleted one is not selected any more."""
    body = await asked(api, "SELECT Id FROM PlatformEventChannelMember WHERE SelectedEntity = 'ContactChangeEvent'")
    url = f"{MEMBERS}/{body['records'][0]['Id']}"
    async with api.get(url) as answer:
        row = await answer.json()
    assert row["FullName"] == "ChangeEvents_ContactChangeEvent"
    assert row["Metadata"] == {
        "eventChannel": "ChangeEvents",
        "selectedEntity": "ContactChangeEvent",
        "enrichedFields": [],
        "filterExpression": None,
    }
    async with api.delete(url) as answer:
        assert answer.status == 204
    assert "Contact" not in org.ctx.schema.selected
    for other in (url, f"{MEMBERS}/nonsense"):
        async with api.get(other) as answer:
            assert answer.status == 404


async def test_a_channel_of_the_orgs_own_gains_and_loses_members(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Its members are its own; those of the standard channel stay."""
    org.ctx.bus.define_channel("Sales__chn", ["Lead"], {"Lead": ["Company"]})
    async with api.post(MEMBERS, json=order("ContactChangeEvent", "Sales__chn")) as answer:
        made = await answer.json()
    assert org.ctx.bus.custom_channels == {"Sales__chn": {"Lead": ["Company"], "Contact": []}}
    async with api.delete(f"{MEMBERS}/{made['id']}") as answer:
        assert answer.status == 204
    assert org.ctx.bus.custom_channels == {"Sales__chn": {"Lead": ["Company"]}}
    assert org.ctx.schema.selected == set(DEFAULTS)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ([], "JSON_PARSER_ERROR", "JSON object"),
        ({}, "REQUIRED_FIELD_MISSING", "FullName, eventChannel, selectedEntity"),
        ({"FullName": "a", "Metadata": 3}, "REQUIRED_FIELD_MISSING", "eventChannel, selectedEntity"),
        ({**order("InvoiceChangeEvent"), "Nope": 1}, "INVALID_FIELD", "Nope"),
        (order("LeadChangeEvent"), "DUPLICATE_DEVELOPER_NAME", "already"),
        (order("Lead"), "FIELD_INTEGRITY_EXCEPTION", "invalid event"),
        (order("leadchangeevent"), "FIELD_INTEGRITY_EXCEPTION", "invalid event"),
        (order("ChangeEvents"), "FIELD_INTEGRITY_EXCEPTION", "invalid event"),
        (order("UserChangeEvent", "Nope__chn"), "FIELD_INTEGRITY_EXCEPTION", "channel"),
        (order("UserChangeEvent", "/data/ChangeEvents", "x_y"), "FIELD_INTEGRITY_EXCEPTION", "channel"),
        (order("Invoice__ChangeEvent", full_name="ChangeEvents_Invoice__ChangeEvent"), "", "namespace"),
        (order("UserChangeEvent", full_name="1x"), "INVALID_FULL_NAME", "1x"),
    ],
)
async def test_a_wrong_order_selects_nothing(
    org: DevOrg, api: aiohttp.ClientSession, body: Any, code: str, message: str
) -> None:
    """Each refusal says what is wrong with it."""
    status, told, text = await refused(api, body)
    assert status == 400
    assert code in told
    assert message in text
    assert org.ctx.schema.selected == set(DEFAULTS)


async def test_the_sixth_object_is_refused(api: aiohttp.ClientSession) -> None:
    """Five objects in all channels together are what an org may select without the add-on licence."""
    async with api.post(MEMBERS, json=order("Invoice__ChangeEvent")) as answer:
        assert answer.status == 201
    assert (await refused(api, order("UserChangeEvent")))[1] == "LIMIT_EXCEEDED"


async def test_the_selection_outlives_a_restart(tmp_path: Path) -> None:
    """Ids too."""
    ids: list[list[str]] = []
    for _ in range(2):
        headers = {}
        async with DevOrg(tmp_path) as org:
            headers["Authorization"] = f"Bearer {org.ctx.tokens.default_access_token}"
            async with aiohttp.ClientSession(org.url, headers=headers) as api:
                if not ids:
                    async with api.post(MEMBERS, json=order("Invoice__ChangeEvent")) as answer:
                        assert answer.status == 201
                body = await asked(api, "SELECT Id FROM PlatformEventChannelMember ORDER BY Id")
                ids.append([row["Id"] for row in body["records"]])
    assert len(ids[0]) == 5
    assert ids[0] == ids[1]


async def test_a_login_is_needed(web: aiohttp.ClientSession) -> None:
    """And the call is counted like any other."""
    async with web.get(f"{TOOLING}/query", params={"q": "SELECT Id FROM PlatformEventChannelMember"}) as answer:
        assert answer.status == 401
