"""sObject Collections and the composite resource over REST."""

from typing import Any

import aiohttp
import pytest

from connector.devorg.clock import http_date
from connector.devorg.records.rules import Rules
from connector.devorg.server import DevOrg

BASE = "/services/data/v66.0"
URL = f"{BASE}/composite/sobjects"
KEY = {"name": "BlackRoad_Key__c", "type": "string", "length": 80, "externalId": True, "unique": True}


def contact(**values: Any) -> dict[str, Any]:
    return {"attributes": {"type": "Contact"}, **values}


async def call(api: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    async with api.request(method, url, json=body) as answer:
        return answer.status, await answer.json()


async def made(api: aiohttp.ClientSession, count: int) -> list[str]:
    records = [contact(LastName=f"C{number}") for number in range(count)]
    _, items = await call(api, "POST", URL, {"records": records})
    return [item["id"] for item in items]


async def test_partial_failure_touches_only_its_own_record(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """200 with one outcome per record, in order; what is good is written."""
    records = [contact(LastName="A"), contact(FirstName="B"), contact(LastName="C", Email="nonsense")]
    status, items = await call(api, "POST", URL, {"records": records})
    assert (status, [item["success"] for item in items]) == (200, [True, False, False])
    assert items[1] == {
        "success": False,
        "errors": [
            {
                "statusCode": "REQUIRED_FIELD_MISSING",
                "message": "Required fields are missing: [LastName]",
                "fields": ["LastName"],
            }
        ],
    }
    assert items[2]["errors"][0]["statusCode"] == "INVALID_EMAIL_ADDRESS"
    assert org.ctx.org.get("Contact", items[0]["id"]) is not None
    (entry,) = org.ctx.org.ledger.entries()
    assert (entry.id, entry.kind, entry.origin) == (items[0]["id"], "CREATE", "com/salesforce/api/rest/66.0")


async def test_all_or_none_rolls_back(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """The innocent carry ALL_OR_NONE_OPERATION_ROLLED_BACK and keep an id that names nothing."""
    records = [contact(LastName="A"), contact(FirstName="B")]
    _, items = await call(api, "POST", URL, {"allOrNone": True, "records": records})
    codes = [item["errors"][0]["statusCode"] for item in items]
    assert codes == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "REQUIRED_FIELD_MISSING"]
    assert org.ctx.org.get("Contact", items[0]["id"]) is None
    assert org.ctx.org.ledger.entries() == []


async def test_update_delete_and_read(api: aiohttp.ClientSession) -> None:
    """Updates by id, reads with null for what is not there, deletes by the `ids` parameter."""
    first, second = await made(api, 2)
    missing = "0035f0000009999AAA"
    records = [contact(id=first, Phone="1"), contact(Id=second, phone="2"), contact(id=missing), contact()]
    _, items = await call(api, "PATCH", URL, {"records": records})
    assert items[0] == {"id": first, "success": True, "errors": []}
    codes = [item["errors"][0]["statusCode"] for item in items if not item["success"]]
    assert codes == ["INVALID_CROSS_REFERENCE_KEY", "MISSING_ARGUMENT"]
    order = {"ids": [second, missing, first], "fields": ["Phone"]}
    _, found = await call(api, "POST", f"{URL}/Contact", order)
    assert [None if record is None else record["Phone"] for record in found] == ["2", None, "1"]
    _, found = await call(api, "GET", f"{URL}/Contact?ids={first},{missing}&fields=Name,Phone")
    assert (found[0]["Name"], found[1]) == ("C0", None)
    _, items = await call(api, "DELETE", f"{URL}?ids={first},{missing},nonsense&allOrNone=false")
    assert [item["success"] for item in items] == [True, False, False]
    _, items = await call(api, "DELETE", f"{URL}?ids={first}")
    assert items[0]["errors"][0]["statusCode"] == "ENTITY_IS_DELETED"


async def test_upsert(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """By external id: `created` tells new from known."""
    org.ctx.schema.add_field("Contact", KEY)
    records = [contact(LastName="A", BlackRoad_Key__c="k1"), contact(LastName="B")]
    url = f"{URL}/Contact/BlackRoad_Key__c"
    _, items = await call(api, "PATCH", url, {"records": records})
    assert items[0]["created"] is True
    assert items[1]["errors"][0]["statusCode"] == "MISSING_ARGUMENT"
    _, again = await call(api, "PATCH", url, {"records": records[:1]})
    assert again == [{"id": items[0]["id"], "success": True, "errors": [], "created": False}]


async def test_upsert_of_one_key_twice(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """Neither of two records with one external id in a call is written."""
    org.ctx.schema.add_field("Contact", KEY)
    records = [contact(LastName=name, BlackRoad_Key__c=key) for name, key in (("A", "k"), ("B", "K"), ("C", "l"))]
    _, items = await call(api, "PATCH", f"{URL}/Contact/BlackRoad_Key__c", {"records": records})
    assert [item["success"] for item in items] == [False, False, True]
    assert items[0]["errors"][0]["statusCode"] == "DUPLICATE_VALUE"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"records": [contact(LastName="A")] * 201}, "EXCEEDED_ID_LIMIT"),
        ({"records": [contact(), {"attributes": {"type": "Lead"}}] * 6}, "LIMIT_EXCEEDED"),
        ({}, "JSON_PARSER_ERROR"),
        ([], "JSON_PARSER_ERROR"),
    ],
)
async def test_malformed_as_a_whole(api: aiohttp.ClientSession, body: Any, code: str) -> None:
    """More than 200 records, more than 10 chunks of one object, no records: 400 for the whole call."""
    status, errors = await call(api, "POST", URL, body)
    assert (status, errors[0]["errorCode"]) == (400, code)


async def test_records_of_no_object(api: aiohttp.ClientSession) -> None:
    """A record without a type, of an unknown one, and one that is no object fail by themselves."""
    records = [{"LastName": "A"}, {"attributes": {"type": "Nonsense"}}, 7]
    _, items = await call(api, "POST", URL, {"records": records})
    codes = [item["errors"][0]["statusCode"] for item in items]
    assert codes == ["INVALID_TYPE", "INVALID_TYPE", "JSON_PARSER_ERROR"]


async def test_a_whole_batch_is_one_transaction_and_one_call(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """200 records share a transaction key and count as one API call."""
    used = org.ctx.usage.api.used()
    assert len(await made(api, 200)) == 200
    assert org.ctx.usage.api.used() == used + 1
    assert len({entry.transaction_key for entry in org.ctx.org.ledger.entries()}) == 1


async def test_duplicates_come_with_their_matches(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """DUPLICATES_DETECTED carries the member that Salesforce misspells; the header overrules it."""
    rules: Rules = org.ctx.org.rules
    rules.order("duplicate", {"object": "Contact", "fields": ["LastName"]})
    (first,) = await made(api, 1)
    body = {"records": [contact(LastName="c0")]}
    _, items = await call(api, "POST", URL, body)
    error = items[0]["errors"][0]
    assert (error["statusCode"], error["message"]) == ("DUPLICATES_DETECTED", "Use one of these records?")
    match = error["duplicateResut"]["matchResults"][0]["matchRecords"][0]
    assert match["record"]["Id"] == first
    headers = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}
    async with api.post(URL, json=body, headers=headers) as answer:
        assert (await answer.json())[0]["success"] is True


# The composite resource.


def part(method: str, path: str, name: str, body: Any = None, **headers: str) -> dict[str, Any]:
    return {
        "method": method,
        "url": f"{BASE}/{path}",
        "referenceId": name,
        "body": body,
        "httpHeaders": {key.replace("_", "-"): value for key, value in headers.items()},
    }


async def composite(api: aiohttp.ClientSession, *parts: dict[str, Any], whole: bool = False) -> list[Any]:
    status, body = await call(api, "POST", f"{BASE}/composite", {"allOrNone": whole, "compositeRequest": parts})
    assert status == 200, body
    items: list[Any] = body["compositeResponse"]
    return items


async def test_references_carry_answers_on(api: aiohttp.ClientSession) -> None:
    """`@{ref.id}` works in URLs and bodies, also into query results."""
    items = await composite(
        api,
        part("POST", "sobjects/Account", "account", {"Name": "Acme"}),
        part("POST", "sobjects/Contact", "contact", {"LastName": "Berg", "AccountId": "@{account.id}"}),
        part("GET", "sobjects/Contact/@{contact.id}?fields=AccountId", "read"),
        part("GET", "query?q=SELECT Id, Name FROM Account WHERE Id = '@{account.id}'", "found"),
        part("PATCH", "sobjects/Contact/@{contact.id}", "named", {"Title": "@{found.records[0].Name}"}),
        part("GET", "sobjects/Contact/@{contact.id}?fields=Title", "after"),
    )
    assert [item["httpStatusCode"] for item in items] == [201, 201, 200, 200, 204, 200]
    assert items[2]["body"]["AccountId"] == items[0]["body"]["id"]
    assert items[5]["body"]["Title"] == "Acme"
    assert [item["referenceId"] for item in items][:2] == ["account", "contact"]


async def test_a_failed_part_halts_only_those_that_need_it(api: aiohttp.ClientSession) -> None:
    """Without allOrNone the others are done; a reference to the failed one is refused."""
    items = await composite(
        api,
        part("POST", "sobjects/Account", "account", {}),
        part("POST", "sobjects/Contact", "contact", {"LastName": "Berg", "AccountId": "@{account.id}"}),
        part("POST", "sobjects/Contact", "other", {"LastName": "Berg"}),
    )
    assert [item["httpStatusCode"] for item in items] == [400, 400, 201]
    assert items[1]["body"][0]["errorCode"] == "PROCESSING_HALTED"


async def test_all_or_none_undoes_every_part(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """The failed part keeps its own error, all others say PROCESSING_HALTED, nothing is written."""
    items = await composite(
        api,
        part("POST", "sobjects/Account", "account", {"Name": "Acme"}),
        part("GET", "query?q=SELECT Id FROM Account WHERE Id = '@{account.id}'", "found"),
        part("POST", "sobjects/Contact", "contact", {}),
        part("POST", "sobjects/Contact", "other", {"LastName": "Berg"}),
        whole=True,
    )
    codes = [item["body"][0]["errorCode"] for item in items]
    assert codes == ["PROCESSING_HALTED", "PROCESSING_HALTED", "REQUIRED_FIELD_MISSING", "PROCESSING_HALTED"]
    assert org.ctx.org.ledger.entries() == []


async def test_check_and_write_in_one_request(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """A conditional part answers 412 and with allOrNone takes the others along."""
    (record_id,) = await made(api, 1)
    condition = http_date(org.ctx.clock.now_ms() - 3_600_000)
    items = await composite(
        api,
        part("PATCH", f"sobjects/Contact/{record_id}", "write", {"Phone": "1"}, If_Unmodified_Since=condition),
        part("POST", "sobjects/Contact", "other", {"LastName": "Berg"}),
        whole=True,
    )
    assert [item["httpStatusCode"] for item in items] == [412, 400]


async def test_a_long_query_inside_a_whole_composite(api: aiohttp.ClientSession) -> None:
    """More than a page of rows is kept for later pages, though the transaction around it is open."""
    for _ in range(23):
        await made(api, 200)
    items = await composite(
        api,
        part("POST", "sobjects/Contact", "one", {"LastName": "Berg"}),
        part("GET", "query?q=SELECT Id FROM Contact", "all"),
        whole=True,
    )
    found = items[1]["body"]
    assert (found["totalSize"], len(found["records"])) == (4601, 2000)
    async with api.get(found["nextRecordsUrl"]) as answer:
        assert len((await answer.json())["records"]) == 2000


async def test_collections_inside_a_composite(api: aiohttp.ClientSession) -> None:
    """A collection is a part like any other."""
    items = await composite(
        api, part("POST", "composite/sobjects", "many", {"records": [contact(LastName="A")]}), whole=True
    )
    assert items[0]["body"][0]["success"] is True


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [part("GET", "limits", "a")] * 2,
        [part("GET", "limits", f"r{number}") for number in range(26)],
        [part("GET", "query?q=SELECT Id FROM Lead", f"r{number}") for number in range(6)],
        [{"method": "GET"}],
    ],
)
async def test_malformed_composites(api: aiohttp.ClientSession, parts: list[Any]) -> None:
    """No parts, one name twice, more than 25 parts, more than 5 queries, a part without its members."""
    status, _ = await call(api, "POST", f"{BASE}/composite", {"compositeRequest": parts})
    assert status == 400


# The tree resource.

TREE = f"{BASE}/composite/tree/Account"


def branch(kind: str, reference_id: str, **values: Any) -> dict[str, Any]:
    return {"attributes": {"type": kind, "referenceId": reference_id}, **values}


async def test_tree(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """Children are made with their parents and point at them."""
    people = {"records": [branch("Contact", "r2", LastName="A"), branch("Contact", "r3", LastName="B")]}
    status, body = await call(api, "POST", TREE, {"records": [branch("Account", "r1", Name="Acme", Contacts=people)]})
    assert (status, body["hasErrors"]) == (201, False)
    ids = {result["referenceId"]: result["id"] for result in body["results"]}
    assert (org.ctx.org.get("Contact", ids["r3"]) or {})["AccountId"] == ids["r1"]


async def test_a_tree_is_made_whole_or_not_at_all(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """What is wrong is told by reference id; nothing is written."""
    people = {"records": [branch("Contact", "r2", LastName="A", Email="123")]}
    status, body = await call(api, "POST", TREE, {"records": [branch("Account", "r1", Name="Acme", Contacts=people)]})
    error = {
        "statusCode": "INVALID_EMAIL_ADDRESS",
        "message": "Email: invalid email address: 123",
        "fields": ["Email"],
    }
    assert (status, body) == (400, {"hasErrors": True, "results": [{"referenceId": "r2", "errors": [error]}]})
    assert org.ctx.org.ledger.entries() == []


@pytest.mark.parametrize(
    "records",
    [
        [],
        "nonsense",
        [{"Name": "A"}],
        [branch("Contact", "r1")],
        [branch("Account", "", Name="A")],
        [branch("Account", "r1", Name="A")] * 2,
        [branch("Account", f"r{number}", Name="A") for number in range(201)],
        [branch("Account", "r1", Name="A", Nonsense={"records": []})],
    ],
)
async def test_malformed_trees(api: aiohttp.ClientSession, records: Any) -> None:
    """No records, no type, no or one reference id twice, too many, an unknown relationship."""
    status, errors = await call(api, "POST", TREE, {"records": records})
    assert (status, "errorCode" in errors[0]) == (400, True)
