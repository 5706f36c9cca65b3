"""Bulk API 2.0 query jobs, with simple-salesforce and with plain HTTP."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simple_salesforce.exceptions import SalesforceOperationError

from connector.devorg.clock import wall_ms
from connector.devorg.rest import bulk, bulk_jobs
from connector.devorg.server import DevOrg
from connector.devorg.settings import OrgSettings
from tests.devorg.clients import called, salesforce

BASE = "/services/data/v58.0"
JOBS = f"{BASE}/jobs/query"
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


async def create(api: aiohttp.ClientSession, soql: str, **members: str) -> dict[str, Any]:
    async with api.post(JOBS, json={"operation": "query", "query": soql, **members}) as answer:
        assert answer.status == 200, await answer.text()
        job: dict[str, Any] = await answer.json()
        return job


async def state(api: aiohttp.ClientSession, job: dict[str, Any]) -> dict[str, Any]:
    async with api.get(f"{JOBS}/{job['id']}") as answer:
        assert answer.status == 200
        shown: dict[str, Any] = await answer.json()
        return shown


async def page(api: aiohttp.ClientSession, job: dict[str, Any], **asked: str | int) -> tuple[str, Any]:
    async with api.get(f"{JOBS}/{job['id']}/results", params=asked, headers={"Accept": "text/csv"}) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/csv; charset=UTF-8"
        return await answer.text(), answer.headers


async def refusal(api: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
    async with api.request(method, path, json=body) as answer:
        (error,) = await answer.json()
        return answer.status, error["errorCode"], error["message"]


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


async def test_simple_salesforce_reads_every_page(org: DevOrg, sf: Any) -> None:
    """The client's own loop over locators gives every record once, a header on each page."""
    ids = people(org, 250)
    pages = await called(
        lambda: list(sf.bulk2.Contact.query("SELECT Id, LastName FROM Contact", max_records=100, wait=0))
    )
    assert [len(rows_of(text)) for text in pages] == [101, 101, 51]
    assert [rows_of(text)[0] for text in pages] == [["Id", "LastName"]] * 3
    assert [row[0] for text in pages for row in rows_of(text)[1:]] == ids


async def test_simple_salesforce_downloads_deleted_rows(org: DevOrg, sf: Any, tmp_path: Path) -> None:
    """`queryAll` jobs hold the recycle bin; files on disk are the same text."""
    kept, gone = people(org, 2)
    with org.ctx.org.transaction(USER, "") as transaction:
        transaction.delete("Contact", gone)
    soql = "SELECT Id, IsDeleted FROM Contact"
    (every,) = await called(lambda: list(sf.bulk2.Contact.query_all(soql, wait=0)))
    assert rows_of(every) == [["Id", "IsDeleted"], [kept, "false"], [gone, "true"]]
    (live,) = await called(sf.bulk2.Contact.download, soql, path=str(tmp_path), wait=0)
    assert await called(Path(live["file"]).read_text) == f'"Id","IsDeleted"\n"{kept}","false"\n'


async def test_a_job_from_creation_to_deletion(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Every answer has the documented members; a deleted job is gone with its rows."""
    people(org, 3)
    job = await create(api, "select id, account.name from contact", contentType="CSV")
    assert job == {
        "id": job["id"],
        "operation": "query",
        "object": "Contact",
        "createdById": USER,
        "createdDate": job["createdDate"],
        "systemModstamp": job["createdDate"],
        "state": "UploadComplete",
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": 58.0,
        "lineEnding": "LF",
        "columnDelimiter": "COMMA",
    }
    assert job["id"].startswith("750")
    assert job["createdDate"].endswith(".000+0000")
    shown = await state(api, job)
    assert (shown["state"], shown["jobType"], shown["numberRecordsProcessed"]) == ("JobComplete", "V2Query", 3)
    assert (shown["retries"], shown["isPkChunkingSupported"]) == (0, True)
    assert shown["totalProcessingTime"] >= 0
    text, headers = await page(api, job)
    assert rows_of(text)[0] == ["Id", "Account.Name"]
    assert (headers["Sforce-NumberOfRecords"], headers["Sforce-Locator"]) == ("3", "null")
    async with api.get(JOBS) as answer:
        listed = await answer.json()
    assert [found["id"] for found in listed["records"]] == [job["id"]]
    async with api.delete(f"{JOBS}/{job['id']}") as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    assert (await refusal(api, "GET", f"{JOBS}/{job['id']}"))[:2] == (404, "NOT_FOUND")
    left = org.ctx.database.connection.execute("SELECT COUNT(*) FROM result_row").fetchone()
    assert left[0] == 0


async def test_csv_forms(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Every value is quoted text: booleans, numbers as Java writes them, dates, date-times with `Z`, null as empty."""
    (account,) = add(
        org,
        "Account",
        {"Name": 'Say "hi", all', "AnnualRevenue": 350000000, "NumberOfEmployees": 5, "BillingStreet": "a\nb"},
    )
    values = {"Name": "Deal", "StageName": "Prospecting", "CloseDate": "2026-03-04", "Amount": 1000}
    add(org, "Opportunity", {**values, "AccountId": account}, values)
    job = await create(
        api, "SELECT Account.Name, Account.AnnualRevenue, Amount, CloseDate, IsClosed, CreatedDate FROM Opportunity"
    )
    await state(api, job)
    text, _ = await page(api, job)
    header, first, second = text.splitlines()
    assert header == '"Account.Name","Account.AnnualRevenue","Amount","CloseDate","IsClosed","CreatedDate"'
    assert first.startswith('"Say ""hi"", all","3.5E8","1000.0","2026-03-04","false","20')
    assert first.endswith('.000Z"')
    assert second.startswith('"","","1000.0","2026-03-04"')
    job = await create(
        api,
        "SELECT Name, BillingStreet, NumberOfEmployees FROM Account",
        columnDelimiter="PIPE",
        lineEnding="CRLF",
    )
    await state(api, job)
    async with api.get(f"{JOBS}/{job['id']}/results") as answer:
        content = await answer.read()
    assert content == b'"Name"|"BillingStreet"|"NumberOfEmployees"\r\n"Say ""hi"", all"|"a\nb"|"5"\r\n'


async def test_no_rows(api: aiohttp.ClientSession) -> None:
    """A result without rows is its header line."""
    job = await create(api, "SELECT Id, Email FROM Lead")
    assert (await state(api, job))["numberRecordsProcessed"] == 0
    text, headers = await page(api, job)
    assert (text, headers["Sforce-NumberOfRecords"], headers["Sforce-Locator"]) == ('"Id","Email"\n', "0", "null")


async def test_columns_were_sorted_before_version_50(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Old versions put the columns in alphabetical order."""
    people(org, 1)
    old = "/services/data/v49.0/jobs/query"
    async with api.post(old, json={"operation": "query", "query": "SELECT LastName, Id, Email FROM Contact"}) as answer:
        job = await answer.json()
    async with api.get(f"{old}/{job['id']}/results") as answer:
        assert rows_of(await answer.text())[0] == ["Email", "Id", "LastName"]


async def test_locators(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Locators can be read again and with other sizes; none can be made up or carried to another job."""
    ids = people(org, 30)
    job = await create(api, "SELECT Id FROM Contact")
    await state(api, job)
    _, headers = await page(api, job, maxRecords=10)
    locator = headers["Sforce-Locator"]
    for size, count in ((10, 10), (5, 5), (1000, 20), (10, 10)):
        text, headers = await page(api, job, maxRecords=size, locator=locator)
        assert [row[0] for row in rows_of(text)[1:]] == ids[10 : 10 + count]
        assert headers["Sforce-NumberOfRecords"] == str(count)
    other = await create(api, "SELECT Id FROM Contact")
    await state(api, other)
    for path in (f"{other['id']}/results?locator={locator}", f"{job['id']}/results?locator=MTAuMC5hYmNk"):
        assert (await refusal(api, "GET", f"{JOBS}/{path}"))[:2] == (400, "INVALID_QUERY_LOCATOR")
    for wrong in ("0", "-1", "x", "9999999999999999999999"):
        path = f"{JOBS}/{job['id']}/results?maxRecords={wrong}"
        assert (await refusal(api, "GET", path))[:2] == (400, "INVALID_PARAMETER")


async def test_result_pages(org: DevOrg, api: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five pages at a time, which together are the whole result, each to be read on its own."""
    monkeypatch.setattr(bulk, "PAGE_ROWS", 10)
    ids = people(org, 65)
    job = await create(api, "SELECT Id FROM Contact")
    await state(api, job)
    async with api.get(f"{JOBS}/{job['id']}/resultPages") as answer:
        first = await answer.json()
    assert (len(first["resultPages"]), first["done"]) == (5, False)
    async with api.get(first["nextRecordsUrl"]) as answer:
        rest = await answer.json()
    assert (len(rest["resultPages"]), rest["done"], rest["nextRecordsUrl"]) == (2, True, None)
    read = []
    for found in reversed([*first["resultPages"], *rest["resultPages"]]):
        async with api.get(found["resultUrl"]) as answer:
            read += rows_of(await answer.text())[1:]
    assert sorted(row[0] for row in read) == ids
    path = f"/services/data/v57.0/jobs/query/{job['id']}/resultPages"
    assert (await refusal(api, "GET", path))[0] == 404


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("SELECT MailingAddress FROM Contact", "FUNCTIONALITY_NOT_ENABLED", "Selecting compound data not supported"),
        ("SELECT Id, Account.BillingAddress FROM Contact", "FUNCTIONALITY_NOT_ENABLED", "Selecting compound data"),
        ("SELECT FIELDS(STANDARD) FROM Contact", "FUNCTIONALITY_NOT_ENABLED", "Selecting compound data"),
        ("SELECT COUNT() FROM Contact", "FUNCTIONALITY_NOT_ENABLED", "Aggregate functions not supported"),
        ("SELECT COUNT(Id) FROM Contact", "FUNCTIONALITY_NOT_ENABLED", "Aggregate functions not supported"),
        ("SELECT Id FROM Contact LIMIT 5 OFFSET 5", "FUNCTIONALITY_NOT_ENABLED", "OFFSET not supported"),
        ("SELECT Idd FROM Contact", "INVALID_FIELD", "\nSELECT Idd"),
        ("SELECT Id FROM Nothing", "INVALID_TYPE", "\nSELECT Id"),
        ("SELECT Id", "MALFORMED_QUERY", "\nSELECT Id"),
    ],
)
async def test_refused_queries(api: aiohttp.ClientSession, soql: str, code: str, message: str) -> None:
    """A query that no job can run is refused at the creation of the job."""
    status, found, text = await refusal(api, "POST", JOBS, {"operation": "query", "query": soql})
    assert (status, found) == (400, code)
    assert text.startswith(message)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"operation": "query"},
        {"operation": "insert", "query": "SELECT Id FROM Contact"},
        {"operation": "query", "query": 5},
        {"operation": "query", "query": "SELECT Id FROM Contact", "columnDelimiter": "COLON"},
        {"operation": "query", "query": "SELECT Id FROM Contact", "lineEnding": ["LF"]},
        {"operation": "query", "query": "SELECT Id FROM Contact", "contentType": "JSON"},
        {"operation": "query", "query": "SELECT Id FROM Contact", "objekt": "Contact"},
    ],
)
async def test_malformed_orders(api: aiohttp.ClientSession, body: Any) -> None:
    """What is no order for a query job is refused."""
    assert (await refusal(api, "POST", JOBS, body))[:2] == (400, "JSON_PARSER_ERROR")


async def test_a_slow_job_reads_as_time_passes(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Until its time is over a job is InProgress with part of its rows; it is no snapshot."""
    ids = people(org, bulk_jobs.SLICE_ROWS + 500)
    org.ctx.settings.bulk_job_s = 1000
    job = await create(api, "SELECT Id, LastName FROM Contact")
    assert (await state(api, job))["state"] == "InProgress"

    def pass_time(seconds: int) -> None:
        org.ctx.database.connection.execute("UPDATE bulk_query_job SET started_ms = started_ms - ?", (seconds * 1000,))

    pass_time(10)
    shown = await state(api, job)
    assert (shown["state"], shown["numberRecordsProcessed"]) == ("InProgress", bulk_jobs.SLICE_ROWS)
    assert (await refusal(api, "GET", f"{JOBS}/{job['id']}/results"))[:2] == (400, "INVALIDJOBSTATE")
    assert (await refusal(api, "DELETE", f"{JOBS}/{job['id']}"))[:2] == (400, "INVALIDJOBSTATE")
    with org.ctx.org.transaction(USER, "") as transaction:
        transaction.update("Contact", ids[0], {"LastName": "Too late"})
        transaction.update("Contact", ids[-1], {"LastName": "In time"})
    pass_time(1000)
    shown = await state(api, job)
    assert (shown["state"], shown["numberRecordsProcessed"]) == ("JobComplete", len(ids))
    text, _ = await page(api, job)
    names = dict(rows_of(text)[1:])
    assert (len(names), names[ids[0]], names[ids[-1]]) == (len(ids), "Name 00000", "In time")


async def test_order_and_limit_are_kept(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """With ORDER BY or LIMIT the job reads in one go, without chunks."""
    ids = people(org, 20)
    job = await create(api, "SELECT Id FROM Contact ORDER BY LastName DESC LIMIT 3")
    shown = await state(api, job)
    assert (shown["numberRecordsProcessed"], shown["isPkChunkingSupported"]) == (3, False)
    text, _ = await page(api, job)
    assert [row[0] for row in rows_of(text)[1:]] == ids[:-4:-1]


async def test_abort(org: DevOrg, api: aiohttp.ClientSession, sf: Any) -> None:
    """An unfinished job can be stopped and then deleted; a finished one can not be stopped."""
    org.ctx.settings.bulk_job_s = 1000
    job = await create(api, "SELECT Id FROM Contact")
    stopped = await called(sf.bulk2.Contact._client.abort_job, job["id"], is_query=True)
    assert stopped["state"] == "Aborted"
    assert (await state(api, job))["state"] == "Aborted"
    with pytest.raises(SalesforceOperationError):
        await called(sf.bulk2.Contact._client.wait_for_job, job["id"], is_query=True, wait=0)
    path = f"{JOBS}/{job['id']}"
    assert (await refusal(api, "GET", f"{path}/results"))[:2] == (400, "INVALIDJOBSTATE")
    assert (await refusal(api, "PATCH", path, {"state": "Aborted"}))[:2] == (400, "INVALIDJOBSTATE")
    assert (await refusal(api, "PATCH", path, {"state": "UploadComplete"}))[:2] == (400, "INVALIDJOBSTATE")
    async with api.delete(path) as answer:
        assert answer.status == 204
    org.ctx.settings.bulk_job_s = 0
    done = await create(api, "SELECT Id FROM Contact")
    await state(api, done)
    message = (await refusal(api, "PATCH", f"{JOBS}/{done['id']}", {"state": "Aborted"}))[2]
    assert message == "Aborting already Completed Job not allowed"


async def test_a_job_whose_field_goes_fails(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A job that can not go on is Failed and says why."""
    org.ctx.settings.bulk_job_s = 1000
    org.ctx.schema.add_field("Contact", {"name": "Gone__c"})
    job = await create(api, "SELECT Gone__c FROM Contact")
    org.ctx.schema.remove_field("Contact", "Gone__c")
    org.ctx.settings.bulk_job_s = 0
    shown = await state(api, job)
    assert shown["state"] == "Failed"
    assert shown["errorMessage"].startswith("INVALID_FIELD: \nSELECT Gone__c")


async def test_results_belong_to_a_version(api: aiohttp.ClientSession) -> None:
    """Results are read with the version that made the job."""
    job = await create(api, "SELECT Id FROM Contact")
    path = f"/services/data/v59.0/jobs/query/{job['id']}"
    async with api.get(path) as answer:
        assert answer.status == 200
    assert (await refusal(api, "GET", f"{path}/results"))[0] == 409


async def test_jobs_are_bounded(org: DevOrg, api: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many jobs a day, so many kept, each for seven days."""
    monkeypatch.setattr(bulk_jobs, "MOST_JOBS", 3)
    jobs = [await create(api, "SELECT Id FROM Contact") for _ in range(4)]
    assert (await refusal(api, "GET", f"{JOBS}/{jobs[0]['id']}"))[0] == 404
    assert (await state(api, jobs[1]))["state"] == "JobComplete"
    org.ctx.settings.token_lifetime_s = 1e9
    org.ctx.clock.advance(7 * 24 * 3600 + 1)
    await create(api, "SELECT Id FROM Contact")
    assert (await refusal(api, "GET", f"{JOBS}/{jobs[1]['id']}"))[0] == 404
    org.ctx.usage.bulk_query_jobs.set(bulk.MOST_JOBS_A_DAY)
    order = {"operation": "query", "query": "SELECT Id FROM Contact"}
    assert (await refusal(api, "POST", JOBS, order))[:2] == (400, "EXCEEDED_QUOTA")


async def test_a_job_survives_a_restart(tmp_path: Path) -> None:
    """A folder opened again goes on with the job where it was."""
    settings = OrgSettings(bulk_job_s=1000)
    async with DevOrg(tmp_path, settings=settings) as org:
        headers = {"Authorization": f"Bearer {org.ctx.tokens.default_access_token}"}
        people(org, 10)
        async with aiohttp.ClientSession(org.url, headers=headers) as api:
            job = await create(api, "SELECT Id FROM Contact")
    settings.bulk_job_s = 0
    async with DevOrg(tmp_path, settings=settings) as org:
        headers = {"Authorization": f"Bearer {org.ctx.tokens.default_access_token}"}
        async with aiohttp.ClientSession(org.url, headers=headers) as api:
            shown = await state(api, job)
            assert (shown["state"], shown["numberRecordsProcessed"]) == ("JobComplete", 10)


async def test_fifty_thousand_rows(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """A page of 50,000 rows is read within seconds, and other requests get through while the job reads."""
    table = org.ctx.schema.require("Contact").table
    with org.ctx.database.transaction():
        org.ctx.database.connection.executemany(
            f'INSERT INTO {table} ("Id", "IsDeleted", "LastName") VALUES (?, 0, ?)',  # noqa: S608  # the schema's
            ((f"0035f0{number:09}AAA", f"Name {number}") for number in range(50_000)),
        )
    before_ms = wall_ms()
    job = await create(api, "SELECT Id, LastName, Email, IsDeleted FROM Contact")
    assert (await state(api, job))["numberRecordsProcessed"] == 50_000
    text, headers = await page(api, job, maxRecords=50_000)
    assert (text.count("\n"), headers["Sforce-Locator"]) == (50_001, "null")
    assert wall_ms() - before_ms < 20_000
