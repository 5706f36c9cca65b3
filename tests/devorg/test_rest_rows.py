"""Single records over REST, with simple-salesforce and with plain HTTP."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from simple_salesforce.exceptions import (
    SalesforceError,
    SalesforceGeneralError,
    SalesforceMalformedRequest,
    SalesforceMoreThanOneRecord,
    SalesforceResourceNotFound,
)

from connector.devorg.clock import http_date, stamp_ms
from connector.devorg.server import DevOrg
from tests.devorg.clients import called, salesforce

BASE = "/services/data/v66.0"
KEY = {"name": "BlackRoad_Key__c", "type": "string", "length": 80, "externalId": True}


@pytest.fixture
def sf(org: DevOrg) -> Iterator[Any]:
    with salesforce(org) as client:
        yield client


@pytest.fixture
async def contact(api: aiohttp.ClientSession) -> AsyncIterator[str]:
    async with api.post(f"{BASE}/sobjects/Contact", json={"LastName": "Berg", "FirstName": "Ola"}) as answer:
        assert answer.status == 201
        yield (await answer.json())["id"]


async def error_of(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    (error,) = await answer.json()
    return answer.status, error["errorCode"]


def error_code(error: SalesforceError) -> str:
    """The code of an error whose content is JSON, typed as bytes by the client."""
    content: Any = error.content
    return str(content[0]["errorCode"])


async def test_create_answers_as_salesforce_does(api: aiohttp.ClientSession) -> None:
    """201 with id, success and errors; the record has composed names, defaults and stamps."""
    values = {"LastName": " Lindqvist ", "FirstName": "Mara", "Phone": "", "MailingCity": "Bergen"}
    async with api.post(f"{BASE}/sobjects/Contact", json=values) as answer:
        body = await answer.json()
        assert (answer.status, body) == (201, {"id": body["id"], "success": True, "errors": []})
    async with api.get(f"{BASE}/sobjects/Contact/{body['id']}") as answer:
        record = await answer.json()
    assert record["attributes"] == {"type": "Contact", "url": f"{BASE}/sobjects/Contact/{body['id']}"}
    assert (record["Name"], record["LastName"], record["Phone"]) == ("Mara Lindqvist", "Lindqvist", None)
    assert record["MailingAddress"] == {
        "city": "Bergen",
        "country": None,
        "geocodeAccuracy": None,
        "latitude": None,
        "longitude": None,
        "postalCode": None,
        "state": None,
        "street": None,
    }
    assert record["OtherAddress"] is None
    assert record["CreatedDate"].endswith(".000+0000")
    assert record["CreatedDate"] == record["LastModifiedDate"] == record["SystemModstamp"]
    assert record["OwnerId"] == record["CreatedById"]
    assert record["IsEmailBounced"] is False


async def test_simple_salesforce_does_all_of_crud(sf: Any) -> None:
    """The client people use creates, reads, updates and deletes unchanged."""
    made = await called(sf.Contact.create, {"LastName": "Berg"})
    assert made["success"] is True
    assert await called(sf.Contact.update, made["id"], {"FirstName": "Ola"}) == 204
    assert (await called(sf.Contact.get, made["id"]))["Name"] == "Ola Berg"
    assert await called(sf.Contact.delete, made["id"]) == 204
    with pytest.raises(SalesforceResourceNotFound) as refusal:
        await called(sf.Contact.delete, made["id"])
    assert error_code(refusal.value) == "ENTITY_IS_DELETED"
    with pytest.raises(SalesforceMalformedRequest) as missing:
        await called(sf.Contact.create, {"FirstName": "Ola"})
    assert error_code(missing.value) == "REQUIRED_FIELD_MISSING"


async def test_upsert_by_external_id(sf: Any, org: DevOrg) -> None:
    """201 for a new record, 200 for a known one, 300 where two match."""
    org.ctx.schema.add_field("Contact", KEY)
    created = await called(sf.Contact.upsert, "BlackRoad_Key__c/a%2Fb", {"LastName": "One"}, raw_response=True)
    assert (created.status_code, created.json()["created"]) == (201, True)
    updated = await called(sf.Contact.upsert, "BlackRoad_Key__c/a%2Fb", {"LastName": "Two"}, raw_response=True)
    assert (updated.status_code, updated.json()["created"]) == (200, False)
    assert updated.json()["id"] == created.json()["id"]
    found = await called(sf.Contact.get_by_custom_id, "BlackRoad_Key__c", "A/B")
    assert (found["LastName"], found["BlackRoad_Key__c"]) == ("Two", "a/b")
    await called(sf.Contact.create, {"LastName": "Three", "BlackRoad_Key__c": "a/b"})
    with pytest.raises(SalesforceMoreThanOneRecord) as many:
        await called(sf.Contact.upsert, "BlackRoad_Key__c/a%2Fb", {"LastName": "Four"})
    assert len(many.value.content) == 2


async def test_upsert_variants(api: aiohttp.ClientSession, org: DevOrg) -> None:
    """The key in the body, no such key field, `updateOnly`, and versions before 46."""
    org.ctx.schema.add_field("Contact", KEY)
    url = f"{BASE}/sobjects/Contact/BlackRoad_Key__c/k1"
    async with api.patch(url, json={"LastName": "A", "BlackRoad_Key__c": "k1"}) as answer:
        assert await error_of(answer) == (400, "INVALID_FIELD")
    async with api.patch(f"{BASE}/sobjects/Contact/Phone/1", json={"LastName": "A"}) as answer:
        assert await error_of(answer) == (404, "NOT_FOUND")
    async with api.patch(f"{url}?updateOnly=true", json={"LastName": "A"}) as answer:
        assert await error_of(answer) == (404, "NOT_FOUND")
    async with api.patch(url, json={"LastName": "A"}) as answer:
        assert answer.status == 201
    old = url.replace("v66.0", "v45.0")
    async with api.patch(old, json={"LastName": "B"}) as answer:
        assert (answer.status, await answer.read()) == (204, b"")


async def test_fields_parameter(api: aiohttp.ClientSession, contact: str) -> None:
    """Only the fields asked for, and an unknown one is an error."""
    async with api.get(f"{BASE}/sobjects/Contact/{contact}?fields=LastName,name") as answer:
        assert set(await answer.json()) == {"attributes", "LastName", "Name", "Id"}
    async with api.get(f"{BASE}/sobjects/Contact/{contact}?fields=Nonsense") as answer:
        assert await error_of(answer) == (400, "INVALID_FIELD")


async def test_method_override(api: aiohttp.ClientSession, contact: str) -> None:
    """`POST ...?_HttpMethod=PATCH` is a PATCH."""
    url = f"{BASE}/sobjects/Contact/{contact}"
    async with api.post(f"{url}?_HttpMethod=PATCH", json={"Phone": "1"}) as answer:
        assert answer.status == 204
    async with api.post(url, json={"Phone": "1"}) as answer:
        assert await error_of(answer) == (405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("record_id", "status", "code"),
    [
        ("abc", 404, "NOT_FOUND"),
        ("0035f0000009999AAA", 404, "NOT_FOUND"),
        ("0035f0000009999AAB", 400, "MALFORMED_ID"),
        ("0015f0000009999AAA", 400, "MALFORMED_ID"),
    ],
)
async def test_ids_that_name_nothing(api: aiohttp.ClientSession, record_id: str, status: int, code: str) -> None:
    """No id at all and no such record are 404; another object's id and a wrong suffix are malformed."""
    for method in ("GET", "PATCH", "DELETE"):
        async with api.request(method, f"{BASE}/sobjects/Contact/{record_id}", json={"Phone": "1"}) as answer:
            assert await error_of(answer) == (status, code)


async def test_deleted_record(api: aiohttp.ClientSession, contact: str) -> None:
    """A record in the recycle bin answers 404 ENTITY_IS_DELETED, with an empty `fields`."""
    url = f"{BASE}/sobjects/Contact/{contact}"
    async with api.delete(url) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    for method in ("GET", "PATCH", "DELETE"):
        async with api.request(method, url, json={"Phone": "1"}) as answer:
            assert answer.status == 404
            assert await answer.json() == [
                {"message": "entity is deleted", "errorCode": "ENTITY_IS_DELETED", "fields": []}
            ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "JSON_PARSER_ERROR"),
        (b"[]", "JSON_PARSER_ERROR"),
        (b"{", "JSON_PARSER_ERROR"),
        (b'{"LastName":"A","Id":"0035f0000000001AAA"}', "INVALID_FIELD"),
        (b'{"LastName":"A","Nonsense":1}', "INVALID_FIELD"),
    ],
)
async def test_bodies_that_are_refused(api: aiohttp.ClientSession, body: bytes, code: str) -> None:
    """What is no JSON object, or names what no record may bring."""
    async with api.post(f"{BASE}/sobjects/Contact", data=body) as answer:
        assert await error_of(answer) == (400, code)


async def test_unknown_object(api: aiohttp.ClientSession) -> None:
    """The resource does not exist."""
    for path in ("Nonsense", "Nonsense/describe", "Nonsense/0035f0000000001AAA"):
        async with api.get(f"{BASE}/sobjects/{path}") as answer:
            assert await error_of(answer) == (404, "NOT_FOUND")


async def last_modified(api: aiohttp.ClientSession, url: str) -> int:
    async with api.get(url) as answer:
        text: str = (await answer.json())["LastModifiedDate"]
    return stamp_ms(text)


async def test_conditions_of_date(api: aiohttp.ClientSession, org: DevOrg, contact: str) -> None:
    """If-Unmodified-Since guards a write at a resolution of one second; If-Modified-Since spares a read."""
    url = f"{BASE}/sobjects/Contact/{contact}"
    seen = await last_modified(api, url)
    same, before = {"If-Unmodified-Since": http_date(seen)}, {"If-Unmodified-Since": http_date(seen - 1000)}
    async with api.patch(url, json={"Phone": "1"}, headers=same) as answer:
        assert answer.status == 204
    async with api.patch(url, json={"Phone": "2"}, headers=before) as answer:
        assert answer.status == 412
        assert isinstance(await answer.json(), list)
    async with api.get(url, headers=before) as answer:
        assert answer.status == 412
    org.ctx.org.advance(5)
    async with api.patch(url, json={"Phone": "3"}, headers=same) as answer:
        assert answer.status == 204
    async with api.patch(url, json={"Phone": "4"}, headers=same) as answer:
        assert answer.status == 412
    async with api.patch(url, json={"Phone": "5"}, headers={"If-Unmodified-Since": "yesterday"}) as answer:
        assert answer.status == 400
    now = await last_modified(api, url)
    async with api.get(url, headers={"If-Modified-Since": http_date(now)}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with api.get(url, headers={"If-Modified-Since": http_date(now - 1000)}) as answer:
        assert (await answer.json())["Phone"] == "3"
    async with api.delete(url, headers=before) as answer:
        assert answer.status == 204  # DELETE knows no conditions


async def test_entity_tags_of_accounts(api: aiohttp.ClientSession, org: DevOrg, contact: str) -> None:
    """Account rows have an ETag that guards a PATCH and spares a GET; other objects have none."""
    async with api.post(f"{BASE}/sobjects/Account", json={"Name": "Acme"}) as answer:
        url = f"{BASE}/sobjects/Account/{(await answer.json())['id']}"
    async with api.get(url) as answer:
        tag = answer.headers["ETag"]
    async with api.get(url, headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    org.ctx.org.advance(1)
    async with api.patch(url, json={"Phone": "1"}, headers={"If-Match": tag}) as answer:
        assert answer.status == 204
    async with api.patch(url, json={"Phone": "2"}, headers={"If-Match": tag}) as answer:
        assert await error_of(answer) == (412, "MATCH_PRECONDITION_FAILED")
    async with api.get(f"{BASE}/sobjects/Contact/{contact}") as answer:
        assert "ETag" not in answer.headers


async def test_conditional_write_by_simple_salesforce(sf: Any) -> None:
    """The client hands the header through and raises its general error on 412."""
    made = await called(sf.Account.create, {"Name": "Acme"})
    stale = {"If-Unmodified-Since": "Thu, 01 Jan 2015 12:00:00 GMT"}
    with pytest.raises(SalesforceGeneralError) as refusal:
        await called(sf.Account.update, made["id"], {"Phone": "1"}, headers=stale)
    assert refusal.value.status == 412


async def test_describe(sf: Any, api: aiohttp.ClientSession, org: DevOrg) -> None:
    """The recorded result with what was added; If-Modified-Since answers 304 until the object changes."""
    described: Any = await called(sf.Contact.describe)
    assert described["keyPrefix"] == "003"
    assert described["urls"]["sobject"] == "/services/data/v59.0/sobjects/Contact"
    names = {entry["name"] for entry in (await called(sf.describe))["sobjects"]}
    assert {"Account", "Contact", "Lead", "Opportunity", "User", "Invoice__c"} <= names
    url = f"{BASE}/sobjects/Contact/describe"
    condition = {"If-Modified-Since": http_date(org.ctx.clock.now_ms() + 1000)}
    async with api.get(url, headers=condition) as answer:
        assert answer.status == 304
    org.ctx.schema.add_field("Contact", KEY, org.ctx.clock.now_ms() + 5000)
    async with api.get(url, headers=condition) as answer:
        assert "BlackRoad_Key__c" in {field["name"] for field in (await answer.json())["fields"]}


async def test_basic_information(api: aiohttp.ClientSession) -> None:
    """`GET /sobjects/X` gives the object's entry of the global describe."""
    async with api.get(f"{BASE}/sobjects/Lead/") as answer:
        assert (await answer.json())["objectDescribe"]["name"] == "Lead"
