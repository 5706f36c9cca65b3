"""The admin interface: editing as people do, and setting the scene for a test or a demonstration."""

import aiohttp
import pytest

from connector.devorg.context import UI_ORIGIN
from connector.devorg.objects.residents import FIRST_EDITOR_ID, SECOND_EDITOR_ID
from connector.devorg.server import DevOrg
from tests.devorg.conftest import Admin

LEAD = {"op": "create", "object": "Lead", "values": {"LastName": "Teral", "Company": "Teral Works"}}


async def refused(web: aiohttp.ClientSession, method: str, path: str, order: object) -> tuple[int, str, str]:
    """Status, code and message of an order that is not accepted."""
    async with web.request(method, f"/devorg{path}", json=order) as answer:
        (error,) = await answer.json()
        return answer.status, error["errorCode"], error["message"]


async def make_lead(admin: Admin) -> str:
    made = await admin("POST", "/changes", {"changes": [LEAD]})
    return str(made["results"][0]["id"])


async def test_it_tells_where_the_org_is_and_how_to_log_in(
    org: DevOrg, web: aiohttp.ClientSession, admin: Admin
) -> None:
    """What `python -m connector.devorg` prints can be asked for later, and the token in it works."""
    about = await admin("GET", "/")
    assert about["url"] == org.url
    async with web.get(
        "/services/data/v58.0/limits", headers={"Authorization": f"Bearer {about['access_token']}"}
    ) as answer:
        assert answer.status == 200


async def test_changes_are_one_transaction_by_a_person(admin: Admin) -> None:
    """All changes of an order share a transaction key, and look as if made in the org's pages."""
    lead = await make_lead(admin)
    order = {
        "changes": [
            {"op": "update", "object": "Lead", "id": lead, "values": {"Company": "Other"}},
            {"op": "create", "object": "Account", "values": {"Name": "Bodra Labs"}},
        ],
        "user": SECOND_EDITOR_ID,
    }
    made = await admin("POST", "/changes", order)
    entries = (await admin("GET", "/ledger"))["entries"]
    assert [(entry["kind"], entry["object"]) for entry in entries] == [
        ("CREATE", "Lead"),
        ("UPDATE", "Lead"),
        ("CREATE", "Account"),
    ]
    assert {entry["transaction_key"] for entry in entries[1:]} == {made["transaction"]}
    assert [entry["user_id"] for entry in entries] == [FIRST_EDITOR_ID, SECOND_EDITOR_ID, SECOND_EDITOR_ID]
    assert {entry["origin"] for entry in entries} == {UI_ORIGIN}


async def test_a_refused_change_undoes_the_whole_order(org: DevOrg, web: aiohttp.ClientSession, admin: Admin) -> None:
    """And says which one it was, with the org's own code."""
    lead = await make_lead(admin)
    changes = [
        {"op": "update", "object": "Lead", "id": lead, "values": {"Company": "Other"}},
        {"op": "create", "object": "Lead", "values": {"LastName": "Alone"}},
    ]
    status, code, message = await refused(web, "POST", "/changes", {"changes": changes})
    assert (status, code) == (400, "REQUIRED_FIELD_MISSING")
    assert message.startswith("changes[1]: ")
    record = org.ctx.org.get("Lead", lead)
    assert record is not None
    assert record["Company"] == "Teral Works"


async def test_every_operation_is_there(org: DevOrg, admin: Admin) -> None:
    """Delete, undelete, purge, merge, lead conversion and a recalculation by the org itself."""
    contacts = [{"op": "create", "object": "Contact", "values": {"LastName": name}} for name in ("Ona", "Oni", "Ono")]
    ids = [made["id"] for made in (await admin("POST", "/changes", {"changes": contacts}))["results"]]
    lead = await make_lead(admin)
    for change in (
        {"op": "merge", "object": "Contact", "id": ids[0], "losers": [ids[1]], "values": {"Title": "One"}},
        {"op": "delete", "object": "Contact", "id": ids[2]},
        {"op": "undelete", "object": "Contact", "id": ids[2]},
        {"op": "recalculate", "object": "Contact", "id": ids[2], "values": {"Title": "Counted"}},
        {"op": "convert", "id": lead, "create_opportunity": False},
    ):
        await admin("POST", "/changes", {"changes": [change]})
    left = (await admin("GET", "/records/Contact"))["records"]
    assert {record["LastName"]: record["Title"] for record in left} == {"Ona": "One", "Ono": "Counted", "Teral": None}
    await admin("POST", "/changes", {"changes": [{"op": "purge", "object": "Contact", "id": ids[2]}]})
    assert org.ctx.org.get("Contact", ids[2], include_deleted=True) is None


async def test_a_held_transaction_is_invisible_until_it_is_committed(org: DevOrg, admin: Admin) -> None:
    """Its stamps are those of the write, its visibility that of the commit."""
    made = await admin("POST", "/changes", {"changes": [LEAD], "hold": True})
    lead, key = made["results"][0]["id"], made["transaction"]
    assert org.ctx.org.get("Lead", lead) is None
    assert (await admin("GET", "/transactions"))["held"] == [key]
    await admin("POST", "/time", {"advance_s": 60})
    await admin("POST", f"/transactions/{key}/commit")
    record = org.ctx.org.get("Lead", lead)
    assert record is not None
    assert record["SystemModstamp"] < (await admin("GET", "/time"))["now"]
    made = await admin("POST", "/changes", {"changes": [LEAD], "hold": True})
    await admin("POST", f"/transactions/{made['transaction']}/rollback")
    assert org.ctx.org.get("Lead", made["results"][0]["id"]) is None


async def test_a_dump_shows_every_record_in_pages(admin: Admin) -> None:
    """Deleted ones on request, in id order, without a doubled or a missing one."""
    await admin("POST", "/changes", {"changes": [LEAD] * 5})
    seen, after = [], ""
    while after is not None:
        page = await admin("GET", f"/records/Lead?limit=2&after={after}")
        seen += [record["Id"] for record in page["records"]]
        after = page["next"]
    assert seen == sorted(set(seen))
    assert len(seen) == 5
    await admin("POST", "/changes", {"changes": [{"op": "delete", "object": "Lead", "id": seen[0]}]})
    assert len((await admin("GET", "/records/Lead"))["records"]) == 4
    assert len((await admin("GET", "/records/Lead?deleted=1"))["records"]) == 5


async def test_time_is_advanced(admin: Admin) -> None:
    """The org's clock jumps, and the answers' Date with it."""
    before = await admin("GET", "/time")
    after = await admin("POST", "/time", {"advance_s": 3600})
    assert 3_600_000 <= after["now_ms"] - before["now_ms"] < 3_660_000
    assert after["offset_ms"] == 3_600_000


async def test_settings_change_all_or_none(org: DevOrg, web: aiohttp.ClientSession, admin: Admin) -> None:
    """Every mistake is named; event switches are settings as well."""
    order = {"api_limit": "many", "token_life": 1, "connect_hold_s": 0.5, "changed_fields": 1}
    status, code, message = await refused(web, "PATCH", "/settings", order)
    assert (status, code) == (400, "INVALID_SETTING")
    assert [problem.partition(":")[0] for problem in message.split("; ")] == [
        "api_limit",
        "token_life",
        "changed_fields",
    ]
    assert org.ctx.settings.connect_hold_s == 110
    now = await admin("PATCH", "/settings", {"connect_hold_s": 0.5, "changed_fields": False, "disabled_flows": ["x"]})
    assert (now["connect_hold_s"], now["changed_fields"], now["disabled_flows"]) == (0.5, False, ["x"])
    assert org.ctx.bus.options.changed_fields is False


async def test_fields_come_and_go(admin: Admin, api: aiohttp.ClientSession) -> None:
    """A field added, retyped and removed shows in the describe at once."""

    async def described() -> dict[str, str]:
        async with api.get("/services/data/v58.0/sobjects/Lead/describe") as answer:
            return {field["name"]: field["type"] for field in (await answer.json())["fields"]}

    field = {"name": "Region__c", "type": "string", "length": 40}
    await admin("POST", "/fields", {"object": "Lead", "field": field})
    assert (await described())["Region__c"] == "string"
    await admin("PATCH", "/fields", {"object": "Lead", "field": {"name": "Region__c", "type": "double"}})
    assert (await described())["Region__c"] == "double"
    await admin("DELETE", "/fields", {"object": "Lead", "field": {"name": "Region__c"}})
    assert "Region__c" not in await described()


async def test_objects_are_added_and_selected(web: aiohttp.ClientSession, admin: Admin) -> None:
    """For Change Data Capture; an unknown one can not be."""
    await admin("POST", "/objects", {"name": "Visit__c", "keyPrefix": "a77", "fields": [{"name": "Place__c"}]})
    assert (await admin("PUT", "/selected", {"selected": ["Visit__c", "Lead"]}))["selected"] == ["Lead", "Visit__c"]
    assert (await refused(web, "PUT", "/selected", {"selected": ["Nothing__c"]}))[0] == 404


async def test_events_are_put_on_the_bus(org: DevOrg, web: aiohttp.ClientSession, admin: Admin) -> None:
    """Gap, overflow and wildcard by kind, undecodable ones as they stand; ids increase."""
    orders: list[dict[str, object]] = [
        {"object": "Contact", "kind": "GAP_UPDATE", "ids": ["0035f00002KmQ7aAAF"]},
        {"object": "Contact", "kind": "GAP_OVERFLOW"},
        {"object": "Contact", "kind": "UPDATE", "ids": ["003*"]},
        {"object": "Contact", "payload": {"nonsense": [1, None]}},
    ]
    ids = [(await admin("POST", "/events", order))["replay_id"] for order in orders]
    assert ids == sorted(set(ids))
    assert org.ctx.bus.latest_id() == ids[-1]
    assert org.ctx.bus.valid(ids[0])
    assert (await refused(web, "POST", "/events", {"object": "Contact"}))[0] == 400
    await admin("POST", "/replay/expire")
    assert not org.ctx.bus.valid(ids[0])


async def test_counters_are_shown_and_set(admin: Admin, api: aiohttp.ClientSession) -> None:
    """API calls by path; a use near the limit can be pretended."""
    async with api.get("/services/data/v58.0/sobjects/Lead/describe") as answer:
        assert answer.status == 200
    usage = await admin("GET", "/usage")
    assert usage["api"] == 1
    assert usage["calls"] == {"GET /sobjects/{object}/describe": 1}
    assert (await admin("POST", "/usage", {"api": 14_999}))["api"] == 14_999


async def test_tokens_are_expired(admin: Admin, api: aiohttp.ClientSession) -> None:
    """Access tokens, and refresh tokens on request; a new login works again."""
    assert await admin("POST", "/tokens/expire", {"refresh": True}) == {"access": 1, "refresh": 1}
    async with api.get("/services/data/v58.0/limits") as answer:
        assert answer.status == 401
        assert await answer.json() == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]


async def test_rules_are_ordered_and_cleared(web: aiohttp.ClientSession, admin: Admin) -> None:
    """A validation rule refuses what it is told to refuse, until it is taken away."""
    when = {"field": "Company", "value": "Teral Works"}
    members = {"object": "Lead", "when": when, "message": "not them", "field": "Company"}
    await admin("POST", "/rules", {"kind": "validation", "members": members})
    status, code, _ = await refused(web, "POST", "/changes", {"changes": [LEAD]})
    assert (status, code) == (400, "FIELD_CUSTOM_VALIDATION_EXCEPTION")
    assert len((await admin("GET", "/rules"))["validation"]) == 1
    await admin("DELETE", "/rules")
    await make_lead(admin)


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("/changes", {}),
        ("/changes", {"changes": {}}),
        ("/changes", {"changes": ["x"]}),
        ("/changes", {"changes": [{"op": "upend"}]}),
        ("/changes", {"changes": [{"op": "update", "object": "Lead", "id": 3, "values": {}}]}),
        ("/changes", {"changes": [], "user": "nobody"}),
        ("/changes", {"changes": [], "extra": 1}),
        ("/changes", ["x"]),
        ("/time", {"advance_s": True}),
        ("/time", {"advance_s": 1e300}),
        ("/seed", {"accounts": -1}),
        ("/fields", {"object": "Lead", "field": {"name": "no name"}}),
        ("/fields", {"object": "Lead", "field": {"name": "Size__c", "length": "long"}}),
        ("/fields", {"object": "Lead", "field": {"name": "Kind__c", "type": "picklist", "picklistValues": [3]}}),
        ("/objects", {"name": "Visit__c", "keyPrefix": "a77", "fields": [1]}),
        ("/rules", {"kind": "whim", "members": {}}),
        ("/faults", {"kind": "rest", "colour": "red"}),
    ],
)
async def test_a_wrong_order_is_a_clear_error(web: aiohttp.ClientSession, path: str, order: object) -> None:
    """400 with a message, never a failure of the server."""
    status, _, message = await refused(web, "POST", path, order)
    assert status == 400
    assert message


async def test_a_page_in_a_browser_can_not_give_orders(web: aiohttp.ClientSession) -> None:
    """No foreign host name, no form post, no cross-origin request reaches it."""
    async with web.get("/devorg/", headers={"Host": "rebound.example"}) as answer:
        assert answer.status == 403
    async with web.post("/devorg/time", data="advance_s=1") as answer:
        assert answer.status == 415
    async with web.get("/devorg/", headers={"Origin": "http://elsewhere.example"}) as answer:
        assert answer.status == 415
