"""`query` and `queryAll` over HTTP, with simple-salesforce and with plain HTTP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simple_salesforce.exceptions import SalesforceMalformedRequest
from simple_salesforce.format import format_soql

from connector.devorg.admin.seed import Seed, sow
from connector.devorg.objects.residents import FIRST_EDITOR_ID
from connector.devorg.rest import query
from connector.devorg.server import DevOrg
from connector.devorg.settings import OrgSettings
from tests.devorg.clients import called, salesforce

BASE = "/services/data/v58.0"
USER = "0055f000007NnAbAAK"


@pytest.fixture
def sf(org: DevOrg) -> Iterator[Any]:
    with salesforce(org, version="58.0") as client:
        yield client


def add(org: DevOrg, name: str, *rows: dict[str, Any]) -> list[str]:
    with org.ctx.org.transaction(USER, "") as transaction:
        return [transaction.create(name, row) for row in rows]


def people(org: DevOrg, count: int) -> list[str]:
    return add(org, "Contact", *({"LastName": f"Name {number:05}"} for number in range(count)))


async def ask(api: aiohttp.ClientSession, soql: str, *, path: str = "query", batch: int | None = None) -> Any:
    headers = {} if batch is None else {"Sforce-Query-Options": f"batchSize={batch}"}
    async with api.get(f"{BASE}/{path}", params={"q": soql}, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def refusal(api: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with api.get(path) as answer:
        (error,) = await answer.json()
        return answer.status, error["errorCode"]


async def test_simple_salesforce_reads_a_page(org: DevOrg, sf: Any) -> None:
    """Records come with attributes, in REST's forms: booleans, `+0000`, numbers, nested parents and compounds."""
    (account,) = add(org, "Account", {"Name": "Acme", "AnnualRevenue": 350000000, "BillingCity": "Berlin"})
    values = {"LastName": "O'Neill", "FirstName": "Jane", "AccountId": account, "Birthdate": "1990-02-03"}
    (contact,) = add(org, "Contact", {**values, "OwnerId": FIRST_EDITOR_ID})
    soql = format_soql(
        "SELECT Id, Name, IsDeleted, Birthdate, CreatedDate, Email, Account.AnnualRevenue, account.billingaddress,"
        " Owner.Name, ReportsTo.Name FROM Contact WHERE LastName = {} AND CreatedDate > 2026-01-01T00:00:00Z",
        "O'Neill",
    )
    found = await called(sf.query, soql)
    created = found["records"][0].pop("CreatedDate")
    assert created[19:] == ".000+0000"
    assert found["totalSize"] == 1
    assert found["done"]
    assert found["records"] == [
        {
            "attributes": {"type": "Contact", "url": f"{BASE}/sobjects/Contact/{contact}"},
            "Id": contact,
            "Name": "Jane O'Neill",
            "IsDeleted": False,
            "Birthdate": "1990-02-03",
            "Email": None,
            "Account": {
                "attributes": {"type": "Account", "url": f"{BASE}/sobjects/Account/{account}"},
                "AnnualRevenue": 350000000.0,
                "BillingAddress": {
                    "city": "Berlin",
                    "country": None,
                    "geocodeAccuracy": None,
                    "latitude": None,
                    "longitude": None,
                    "postalCode": None,
                    "state": None,
                    "street": None,
                },
            },
            "Owner": {
                "attributes": {"type": "User", "url": f"{BASE}/sobjects/User/{FIRST_EDITOR_ID}"},
                "Name": "First Editor",
            },
            "ReportsTo": None,
        }
    ]


async def test_a_row_is_the_same_by_query_and_by_id(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """`FIELDS(ALL)` and the row resource give the same values of every field."""
    await sow(org.ctx, Seed(accounts=2, contacts=2, leads=2, opportunities=2))
    for name in ("Account", "Contact", "Lead", "Opportunity"):
        soql = f"SELECT FIELDS(ALL) FROM {name} LIMIT 2"  # noqa: S608  # SOQL, which the org parses
        (record, _) = (await ask(api, soql))["records"]
        async with api.get(record["attributes"]["url"]) as answer:
            assert await answer.json() == record


async def test_polymorphic_owner(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A lead belongs to a user or a queue: the related record says which in its URL."""
    queue = "00G5f000001AbCdEAK"
    add(org, "Lead", {"LastName": "A", "Company": "C"}, {"LastName": "B", "Company": "C", "OwnerId": queue})
    found = await ask(api, "SELECT Owner.Name FROM Lead WHERE Owner.Name != null ORDER BY LastName")
    owners = [record["Owner"]["attributes"] for record in found["records"]]
    assert owners == [
        {"type": "Name", "url": f"{BASE}/sobjects/User/{USER}"},
        {"type": "Name", "url": f"{BASE}/sobjects/Group/{queue}"},
    ]


async def test_counts(org: DevOrg, sf: Any) -> None:
    """`COUNT()` answers a size without records, `COUNT(field)` an aggregate that leaves nulls out."""
    add(org, "Lead", *({"LastName": "A", "Company": c, "Email": e} for c, e in (("x", "a@b.co"), ("X", None))))
    assert await called(sf.query, "SELECT COUNT() FROM Lead") == {"totalSize": 2, "done": True, "records": []}
    assert (await called(sf.query, "SELECT COUNT() FROM Lead LIMIT 1"))["totalSize"] == 1
    found = await called(sf.query, "SELECT COUNT(Id) leads, COUNT(Email), COUNT_DISTINCT(Company) FROM Lead")
    assert found["records"] == [{"attributes": {"type": "AggregateResult"}, "leads": 2, "expr0": 1, "expr1": 1}]


async def test_pages_follow_each_other(org: DevOrg, sf: Any) -> None:
    """simple-salesforce pages by id, by URL and by iterator, and gets every record once."""
    ids = people(org, 450)
    headers = {"Sforce-Query-Options": "batchSize=200"}
    soql = "SELECT Id FROM Contact ORDER BY LastName"
    first = await called(sf.query, soql, headers=headers)
    assert (first["totalSize"], first["done"], len(first["records"])) == (450, False, 200)
    by_id = await called(sf.query_more, first["nextRecordsUrl"].rpartition("/")[2])
    assert (by_id["totalSize"], len(by_id["records"])) == (450, 200)
    last = await called(sf.query_more, by_id["nextRecordsUrl"], identifier_is_url=True)
    assert last["done"]
    assert "nextRecordsUrl" not in last
    pages = [*first["records"], *by_id["records"], *last["records"]]
    assert [record["Id"] for record in pages] == ids
    every = await called(lambda: list(sf.query_all_iter(soql, headers=headers)))
    assert [record["Id"] for record in every] == ids


async def test_pages_do_not_see_later_writes(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """What a cursor shows is what the query found, in values and in number, however often a page is read."""
    ids = people(org, 401)
    first = await ask(api, "SELECT Id, LastName FROM Contact ORDER BY Id", batch=200)
    with org.ctx.org.transaction(USER, "") as transaction:
        transaction.update("Contact", ids[200], {"LastName": "Changed"})
        transaction.delete("Contact", ids[201])
        transaction.create("Contact", {"LastName": "New"})
    for _ in range(2):
        async with api.get(first["nextRecordsUrl"]) as answer:
            second = await answer.json()
        assert [record["LastName"] for record in second["records"][:2]] == ["Name 00200", "Name 00201"]
        assert (second["totalSize"], second["nextRecordsUrl"][-4:]) == (401, "-400")


async def test_page_size_is_kept_in_bounds(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A page has 200 to 2,000 records; a later request may ask for another size."""
    people(org, 2_100)
    soql = "SELECT Id FROM Contact"
    assert len((await ask(api, soql, batch=1))["records"]) == 200
    assert len((await ask(api, soql, batch=9_999))["records"]) == 2_000
    first = await ask(api, soql)
    assert len(first["records"]) == 2_000
    async with api.get(first["nextRecordsUrl"], headers={"Sforce-Query-Options": "batchSize=200"}) as answer:
        assert len((await answer.json())["records"]) == 100


async def test_locators_end(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A locator is dead after its time, for another user, beyond its end, and where it was made up."""
    people(org, 201)
    url = (await ask(api, "SELECT Id FROM Contact", batch=200))["nextRecordsUrl"]
    refused = (400, "INVALID_QUERY_LOCATOR")
    assert await refusal(api, url.replace("-200", "-202")) == refused
    assert await refusal(api, f"{BASE}/query/01g5f0000000000AAA-200") == refused
    assert await refusal(api, f"{BASE}/query/nonsense") == refused
    org.ctx.database.connection.execute("UPDATE query_cursor SET user_id = ?", (FIRST_EDITOR_ID,))
    assert await refusal(api, url) == refused
    org.ctx.database.connection.execute("UPDATE query_cursor SET user_id = ?", (USER,))
    org.ctx.settings.token_lifetime_s = 1e9
    org.ctx.clock.advance(48 * 3600 - 60)
    async with api.get(url) as answer:
        assert answer.status == 200
    org.ctx.clock.advance(120)
    assert await refusal(api, url) == refused


async def test_cursors_are_few(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A user keeps the newest ten; the rows of the others are gone as well."""
    people(org, 201)
    urls = [(await ask(api, "SELECT Id FROM Contact", batch=200))["nextRecordsUrl"] for _ in range(query.MOST_CURSORS)]
    await ask(api, "SELECT Id FROM Contact", batch=200)
    assert await refusal(api, urls[0]) == (400, "INVALID_QUERY_LOCATOR")
    async with api.get(urls[1]) as answer:
        assert answer.status == 200
    kept = org.ctx.database.connection.execute("SELECT COUNT(DISTINCT result), COUNT(*) FROM result_row").fetchone()
    assert tuple(kept) == (query.MOST_CURSORS, query.MOST_CURSORS * 201)


async def test_many_long_queries_at_once(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Queries that close each other's cursors while they run still answer their first page, and leave no rows."""
    people(org, 2_300)
    soql = "SELECT Id FROM Contact"
    pages = await asyncio.gather(*(ask(api, soql, batch=200) for _ in range(2 * query.MOST_CURSORS)))
    assert all(len(found["records"]) == 200 for found in pages)
    kept = org.ctx.database.connection.execute("SELECT COUNT(DISTINCT result), COUNT(*) FROM result_row").fetchone()
    assert tuple(kept) == (query.MOST_CURSORS, query.MOST_CURSORS * 2_300)


async def test_cursors_survive_a_restart(tmp_path: Path) -> None:
    """A folder opened again still has the pages of a query begun before."""
    settings = OrgSettings(token_lifetime_s=1e9)
    async with DevOrg(tmp_path, settings=settings) as org:
        people(org, 250)
        headers = {"Authorization": f"Bearer {org.ctx.tokens.default_access_token}"}
        async with aiohttp.ClientSession(org.url, headers=headers) as api:
            url = (await ask(api, "SELECT Id FROM Contact", batch=200))["nextRecordsUrl"]
    async with DevOrg(tmp_path, settings=settings) as org:
        headers = {"Authorization": f"Bearer {org.ctx.tokens.default_access_token}"}
        async with aiohttp.ClientSession(org.url, headers=headers) as api, api.get(url) as answer:
            assert len((await answer.json())["records"]) == 50


async def test_deleted_rows_are_for_query_all(org: DevOrg, sf: Any, api: aiohttp.ClientSession) -> None:
    """`query` never shows the recycle bin; `queryAll` shows it, with the winner of a merge, on later pages too."""
    winner, loser, gone, purged = people(org, 4)
    with org.ctx.org.transaction(USER, "") as transaction:
        transaction.merge("Contact", winner, [loser], {})
        transaction.delete("Contact", gone)
        transaction.delete("Contact", purged)
        transaction.purge("Contact", purged)
    soql = "SELECT Id, IsDeleted, MasterRecordId FROM Contact"
    assert [record["Id"] for record in (await called(sf.query, soql))["records"]] == [winner]
    every = (await called(sf.query, f"{soql} ORDER BY Id", include_deleted=True))["records"]
    shown = [(record["Id"], record["IsDeleted"], record["MasterRecordId"]) for record in every]
    assert shown == [(winner, False, None), (loser, True, winner), (gone, True, None)]
    assert (await called(sf.query, f"{soql} WHERE IsDeleted = TRUE"))["totalSize"] == 0
    people(org, 300)
    first = await ask(api, "SELECT IsDeleted FROM Contact ORDER BY IsDeleted", path="queryAll", batch=200)
    assert "/query/" in first["nextRecordsUrl"]
    async with api.get(first["nextRecordsUrl"]) as answer:
        last = await answer.json()
    assert [record["IsDeleted"] for record in last["records"][-2:]] == [True, True]


async def test_held_transactions_are_invisible(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A record written but not committed is found by nobody, then with the stamp it was written with."""
    with org.ctx.org.transaction(USER, "", hold=True) as transaction:
        transaction.create("Contact", {"LastName": "Held"})
    soql = "SELECT LastName FROM Contact WHERE LastName = 'held'"
    assert (await ask(api, soql))["totalSize"] == 0
    org.ctx.org.release(transaction.key)
    assert (await ask(api, soql))["totalSize"] == 1


async def test_refusals_reach_the_client(sf: Any, api: aiohttp.ClientSession) -> None:
    """simple-salesforce raises for a bad query, with Salesforce's error array."""
    with pytest.raises(SalesforceMalformedRequest) as caught:
        await called(sf.query, "SELECT Idd FROM Contact")
    content: Any = caught.value.content
    (error,) = content
    assert error["errorCode"] == "INVALID_FIELD"
    assert error["message"].startswith(
        "\nSELECT Idd FROM Contact\n       ^\nERROR at Row:1:Column:8\nNo such column 'Idd' on entity 'Contact'."
    )
    assert await refusal(api, f"{BASE}/query") == (400, "MALFORMED_QUERY")
    assert await refusal(api, f"{BASE}/query?q=") == (400, "MALFORMED_QUERY")
    assert await refusal(api, f"{BASE}/query/?q=SELECT+Id+FROM+Nothing") == (400, "INVALID_TYPE")


async def test_a_plus_sign_in_a_url_is_a_blank(api: aiohttp.ClientSession) -> None:
    """An offset whose `+` was not encoded is refused as it is by Salesforce."""
    path = f"{BASE}/query?q=SELECT+Id+FROM+Contact+WHERE+CreatedDate>2026-01-01T00:00:00"
    assert await refusal(api, f"{path}+00:00") == (400, "MALFORMED_QUERY")
    async with api.get(f"{path}%2B00:00") as answer:
        assert answer.status == 200


async def test_fields_added_and_removed_count_at_once(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A cached query is held against the schema as it is now."""
    soql = "SELECT Shoe_Size__c FROM Contact"
    path = f"{BASE}/query?q={soql}"
    assert await refusal(api, path) == (400, "INVALID_FIELD")
    org.ctx.schema.add_field("Contact", {"name": "Shoe_Size__c", "type": "double"})
    add(org, "Contact", {"LastName": "A", "Shoe_Size__c": 42})
    assert (await ask(api, soql))["records"][0]["Shoe_Size__c"] == 42.0
    org.ctx.schema.remove_field("Contact", "Shoe_Size__c")
    assert await refusal(api, path) == (400, "INVALID_FIELD")
