"""Bulk API 2.0 ingest jobs, with simple-salesforce and with plain HTTP."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simple_salesforce.exceptions import SalesforceOperationError

from connector.devorg.rest import ingest, ingest_jobs
from connector.devorg.server import DevOrg
from connector.devorg.settings import OrgSettings
from tests.devorg.clients import called, salesforce
from tests.waiting import until

BASE = "/services/data/v58.0"
JOBS = f"{BASE}/jobs/ingest"
USER = "0055f000007NnAbAAK"
CSV = {"Content-Type": "text/csv"}


@pytest.fixture
def sf(org: DevOrg) -> Iterator[Any]:
    with salesforce(org, version="58.0") as client:
        yield client


def people(org: DevOrg, count: int) -> list[str]:
    with org.ctx.org.transaction(USER, "") as work:
        return [work.create("Contact", {"LastName": f"Name {number:05}"}) for number in range(count)]


def row(org: DevOrg, record_id: str, name: str = "Contact") -> dict[str, Any]:
    found = org.ctx.org.get(name, record_id)
    assert found is not None
    return dict(found)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def make(api: aiohttp.ClientSession, operation: str, name: str = "Contact", **members: str) -> dict[str, Any]:
    async with api.post(JOBS, json={"operation": operation, "object": name, **members}) as answer:
        assert answer.status == 200, await answer.text()
        job: dict[str, Any] = await answer.json()
        return job


async def upload(api: aiohttp.ClientSession, job: dict[str, Any], data: str | bytes) -> None:
    async with api.put(f"{JOBS}/{job['id']}/batches", data=data, headers=CSV) as answer:
        assert (answer.status, await answer.read()) == (201, b"")


async def state_to(api: aiohttp.ClientSession, job: dict[str, Any], state: str) -> dict[str, Any]:
    async with api.patch(f"{JOBS}/{job['id']}", json={"state": state}) as answer:
        assert answer.status == 200, await answer.text()
        changed: dict[str, Any] = await answer.json()
        return changed


async def look(api: aiohttp.ClientSession, job: dict[str, Any]) -> dict[str, Any]:
    async with api.get(f"{JOBS}/{job['id']}") as answer:
        assert answer.status == 200
        shown: dict[str, Any] = await answer.json()
        return shown


async def ended(api: aiohttp.ClientSession, job: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}

    async def is_over() -> bool:
        shown.update(await look(api, job))
        return shown["state"] in ingest_jobs.ENDED

    await until(is_over)
    return shown


async def results(api: aiohttp.ClientSession, job: dict[str, Any], kind: str) -> list[dict[str, str]]:
    async with api.get(f"{JOBS}/{job['id']}/{kind}/") as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/csv; charset=UTF-8"
        return rows_of(await answer.text())


async def run(api: aiohttp.ClientSession, operation: str, data: str, **members: str) -> dict[str, Any]:
    """A job from its creation to its end."""
    job = await make(api, operation, **members)
    await upload(api, job, data)
    await state_to(api, job, "UploadComplete")
    return await ended(api, job)


async def refusal(api: aiohttp.ClientSession, method: str, path: str, **sent: Any) -> tuple[int, str]:
    async with api.request(method, path, **sent) as answer:
        (error,) = await answer.json()
        return answer.status, error["errorCode"]


async def test_simple_salesforce_writes_and_reads_what_became_of_it(org: DevOrg, sf: Any) -> None:
    """The client's own insert, update, upsert and delete, its counts, and its three kinds of results."""
    contacts = sf.bulk2.Contact
    people = [{"LastName": f"Bulk {n}", "Phone": str(n)} for n in range(450)]
    (told,) = await called(contacts.insert, records=[*people, {"LastName": "", "Phone": "none"}], wait=0)
    assert (told["numberRecordsTotal"], told["numberRecordsProcessed"], told["numberRecordsFailed"]) == (451, 451, 1)
    made = rows_of(await called(contacts.get_successful_records, told["job_id"]))
    assert {r["LastName"] for r in made} == {p["LastName"] for p in people}
    assert all(r["sf__Created"] == "true" and row(org, r["sf__Id"])["Phone"] == r["Phone"] for r in made)
    (failed,) = rows_of(await called(contacts.get_failed_records, told["job_id"]))
    error = "REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --"
    assert (failed["sf__Error"], failed["sf__Id"], failed["Phone"]) == (error, "", "none")
    assert rows_of(await called(contacts.get_unprocessed_records, told["job_id"])) == []
    ids = [r["sf__Id"] for r in made]
    (told,) = await called(contacts.update, records=[{"Id": i, "Phone": "9"} for i in ids], wait=0)
    assert (told["numberRecordsFailed"], {row(org, i)["Phone"] for i in ids}) == (0, {"9"})
    (told,) = await called(contacts.delete, records=[{"Id": i} for i in ids[:5]], wait=0)
    assert told["numberRecordsFailed"] == 0
    assert [org.ctx.org.get("Contact", i) is None for i in ids[:6]] == [True] * 5 + [False]
    invoices = sf.bulk2.__getattr__("Invoice__c")
    for created in ("true", "false"):
        keyed = [{"BlackRoad_Key__c": f"k{n}", "Name": f"{n}"} for n in range(3)]
        (told,) = await called(invoices.upsert, records=keyed, external_id_field="BlackRoad_Key__c", wait=0)
        done = rows_of(await called(invoices.get_successful_records, told["job_id"]))
        assert [r["sf__Created"] for r in done] == [created] * 3


async def test_a_job_from_creation_to_deletion(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Every answer has the documented members; a deleted job is gone with its rows."""
    job = await make(api, "insert", contentType="CSV")
    assert job == {
        "id": job["id"],
        "operation": "insert",
        "object": "Contact",
        "createdById": USER,
        "createdDate": job["createdDate"],
        "systemModstamp": job["createdDate"],
        "state": "Open",
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": 58.0,
        "contentUrl": f"services/data/v58.0/jobs/ingest/{job['id']}/batches",
        "lineEnding": "LF",
        "columnDelimiter": "COMMA",
    }
    await upload(api, job, "LastName\nOne\n")
    assert (await look(api, job))["state"] == "Open"
    closed = await state_to(api, job, "UploadComplete")
    assert closed["state"] == "UploadComplete"
    assert "contentUrl" not in closed
    shown = await ended(api, job)
    counted = (shown["state"], shown["numberRecordsProcessed"], shown["numberRecordsFailed"])
    assert counted == ("JobComplete", 1, 0)
    assert (shown["jobType"], shown["retries"]) == ("V2Ingest", 0)
    assert {"totalProcessingTime", "apiActiveProcessingTime", "apexProcessingTime"} <= set(shown)
    async with api.get(JOBS) as answer:
        assert [found["id"] for found in (await answer.json())["records"]] == [job["id"]]
    async with api.delete(f"{JOBS}/{job['id']}") as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    assert await refusal(api, "GET", f"{JOBS}/{job['id']}") == (404, "NOT_FOUND")
    left = org.ctx.database.connection.execute("SELECT COUNT(*) FROM bulk_ingest_row").fetchone()
    assert left[0] == 0
    limits = await (await api.get(f"{BASE}/limits")).json()
    assert limits["DailyBulkApiBatches"] == {"Max": 15_000, "Remaining": 14_999}


async def test_what_values_mean(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Empty: left alone; `#N/A`: emptied; booleans in many words; quotes, commas and line breaks as in any CSV."""
    org.ctx.schema.add_field("Contact", {"name": "Chosen__c", "type": "boolean"})
    record_id, other = people(org, 2)
    with org.ctx.org.transaction(USER, "") as work:
        work.update("Contact", record_id, {"Phone": "1", "Email": "a@b.cd", "FirstName": "F"})
    data = f'Id,phone,Email,FirstName,LastName,Chosen__c\n{record_id},,#N/A,"a ""b"", c","x\ny",YES\n'
    shown = await run(api, "update", data + f"{other},5,,,,perhaps\n")
    assert (shown["numberRecordsProcessed"], shown["numberRecordsFailed"]) == (2, 1)
    stored = row(org, record_id)
    assert (stored["Phone"], stored["Email"], stored["FirstName"]) == ("1", None, 'a "b", c')
    assert (stored["LastName"], bool(stored["Chosen__c"])) == ("x\ny", True)
    (failed,) = await results(api, shown, "failedResults")
    assert failed["sf__Id"] == other
    assert failed["sf__Error"].startswith("INVALID_TYPE_ON_FIELD_IN_RECORD:")
    assert (row(org, other)["Phone"], failed["phone"]) == (None, "5")
    with org.ctx.org.transaction(USER, "") as work:
        account = work.create("Account", {"Name": "Parent", "BlackRoad_Key__c": "p-1"}) if _keyed(org) else ""
    shown = await run(api, "insert", "LastName,Account.BlackRoad_Key__c\nChild,p-1\n")
    (made,) = await results(api, shown, "successfulResults")
    assert row(org, made["sf__Id"])["AccountId"] == account


def _keyed(org: DevOrg) -> bool:
    field = {"name": "BlackRoad_Key__c", "type": "string", "length": 40, "externalId": True, "unique": True}
    org.ctx.schema.add_field("Account", field)
    return True


async def test_delimiters_and_line_endings(api: aiohttp.ClientSession) -> None:
    """Results come in the job's own form; data of another one fails the job."""
    shown = await run(api, "insert", "LastName|Phone\r\nA|1\r\n", columnDelimiter="PIPE", lineEnding="CRLF")
    assert shown["state"] == "JobComplete"
    async with api.get(f"{JOBS}/{shown['id']}/successfulResults") as answer:
        text = await answer.text()
    assert text.startswith('"sf__Id"|"sf__Created"|"LastName"|"Phone"\r\n"003')
    assert text.endswith('"|"true"|"A"|"1"\r\n')
    shown = await run(api, "insert", "LastName\r\nA\r\n")
    message = "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is LF"
    assert (shown["state"], shown["errorMessage"]) == ("Failed", message)


@pytest.mark.parametrize(
    ("operation", "data", "error"),
    [
        ("insert", "LastName,Nothing__c\nA,b\n", "InvalidBatch : Field name not found : Nothing__c"),
        ("insert", "LastName,Nobody.Id\nA,b\n", "InvalidBatch : Field name not found : Nobody.Id"),
        ("insert", "LastName,lastname\nA,b\n", "InvalidBatch : Duplicate field name : lastname"),
        ("insert", "LastName,Phone\nA\n", "InvalidBatch : a row has"),
        ("insert", "\n\n", "InvalidBatch : the data has no header row"),
        ("insert", b"LastName\n\xff\n", "InvalidBatch : the data is not UTF-8"),
        ("delete", "Id,LastName\nx,y\n", "InvalidBatch : a delete takes"),
    ],
)
async def test_data_that_is_no_batch_fails_the_job(
    org: DevOrg, api: aiohttp.ClientSession, operation: str, data: str | bytes, error: str
) -> None:
    """Nothing is written, and the job says why."""
    job = await make(api, operation)
    await upload(api, job, data)
    await state_to(api, job, "UploadComplete")
    shown = await ended(api, job)
    assert shown["state"] == "Failed"
    assert shown["errorMessage"].startswith(error)
    assert shown["numberRecordsProcessed"] == 0
    assert org.ctx.database.connection.execute("SELECT COUNT(*) FROM record_contact").fetchone()[0] == 0


async def test_every_row_has_its_own_outcome(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Ids that are wrong, gone or missing, and keys given twice, fail alone."""
    first, gone, locked = people(org, 3)
    with org.ctx.org.transaction(USER, "") as work:
        work.delete("Contact", gone)
    org.ctx.org.rules.locked.add(locked)
    data = f"Id,Phone\n{first},1\n{gone},1\nnonsense,1\n,1\n{locked},1\n"
    shown = await run(api, "update", data)
    assert (shown["numberRecordsProcessed"], shown["numberRecordsFailed"]) == (5, 4)
    failed = {r["Id"]: r["sf__Error"].partition(":")[0] for r in await results(api, shown, "failedResults")}
    expected = {gone: "ENTITY_IS_DELETED", "nonsense": "MALFORMED_ID", "": "MISSING_ARGUMENT"}
    assert failed == expected | {locked: "UNABLE_TO_LOCK_ROW"}
    shown = await run(
        api,
        "upsert",
        "BlackRoad_Key__c,Name\na,1\nA ,2\nb,3\n,4\n",
        name="Invoice__c",
        externalIdFieldName="blackroad_key__c",
    )
    failed = {r["Name"]: r["sf__Error"].partition(":")[0] for r in await results(api, shown, "failedResults")}
    assert failed == {"1": "DUPLICATE_VALUE", "2": "DUPLICATE_VALUE", "4": "MISSING_ARGUMENT"}
    shown = await run(api, "hardDelete", f"Id\n{first}\n")
    assert shown["numberRecordsFailed"] == 0
    left = org.ctx.database.connection.execute("SELECT COUNT(*) FROM record_contact WHERE Id = ?", (first,))
    assert left.fetchone()[0] == 0


async def test_results_come_in_no_order(api: aiohttp.ClientSession) -> None:
    """Whoever matches by place, matches wrongly."""
    names = [f"N{number:03}" for number in range(500)]
    shown = await run(api, "insert", "LastName\n" + "\n".join(names) + "\n")
    told = [r["LastName"] for r in await results(api, shown, "successfulResults")]
    assert told != names
    assert sorted(told) == names


async def test_changes_are_told_as_the_bulk_apis(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Two hundred records are one transaction; its origin is the Bulk API and the client that made the job."""
    data = "LastName\n" + "".join(f"N{number}\n" for number in range(450))
    async with api.post(
        JOBS,
        json={"operation": "insert", "object": "Contact"},
        headers={"Sforce-Call-Options": "client=us"},
    ) as answer:
        job = await answer.json()
    await upload(api, job, data)
    await state_to(api, job, "UploadComplete")
    await ended(api, job)
    commits = org.ctx.database.connection.execute(
        "SELECT commit_number, origin, COUNT(*) FROM ledger GROUP BY commit_number, origin ORDER BY commit_number"
    ).fetchall()
    told = [(origin, count) for _, origin, count in commits]
    assert told == [("com/salesforce/api/bulkapi/58.0;client=us", count) for count in (200, 200, 50)]


async def test_a_slow_job_can_be_stopped_in_its_middle(org: DevOrg, api: aiohttp.ClientSession, sf: Any) -> None:
    """What was written stays, and the rest is told as not processed."""
    org.ctx.settings.bulk_job_s = 1000
    job = await make(api, "insert")
    await upload(api, job, "LastName\n" + "".join(f"N{number}\n" for number in range(1000)))
    await state_to(api, job, "UploadComplete")
    path = f"{JOBS}/{job['id']}"
    assert await refusal(api, "GET", f"{path}/successfulResults") == (400, "INVALIDJOBSTATE")
    assert await refusal(api, "DELETE", path) == (400, "INVALIDJOBSTATE")
    org.ctx.database.connection.execute("UPDATE bulk_ingest_job SET closed_ms = closed_ms - 250000")

    async def begun() -> bool:
        return bool((await look(api, job))["numberRecordsProcessed"] == 200)

    await until(begun)
    assert (await look(api, job))["state"] == "InProgress"
    await state_to(api, job, "Aborted")
    with pytest.raises(SalesforceOperationError):
        await called(sf.bulk2.Contact._client.wait_for_job, job["id"], is_query=False, wait=0)
    assert len(await results(api, job, "successfulResults")) == 200
    unprocessed = await results(api, job, "unprocessedrecords")
    assert (len(unprocessed), list(unprocessed[0])) == (800, ["LastName"])
    assert await refusal(api, "PATCH", path, json={"state": "Aborted"}) == (400, "INVALIDJOBSTATE")


async def test_a_job_survives_a_restart(tmp_path: Path) -> None:
    """An org that comes up again writes the rest, and nothing twice."""
    settings = OrgSettings(bulk_job_s=1000)
    async with DevOrg(tmp_path, settings=settings) as org:
        headers = {"Authorization": f"Bearer {org.ctx.tokens.default_access_token}"}
        async with aiohttp.ClientSession(org.url, headers=headers) as api:
            job = await make(api, "insert")
            await upload(api, job, "LastName\n" + "".join(f"N{number}\n" for number in range(500)))
            await state_to(api, job, "UploadComplete")
            org.ctx.database.connection.execute("UPDATE bulk_ingest_job SET closed_ms = closed_ms - 450000")

            async def begun() -> bool:
                return bool((await look(api, job))["numberRecordsProcessed"] == 200)

            await until(begun)
    settings.bulk_job_s = 0
    async with DevOrg(tmp_path, settings=settings) as org:
        headers = {"Authorization": f"Bearer {org.ctx.tokens.default_access_token}"}
        async with aiohttp.ClientSession(org.url, headers=headers) as api:
            shown = await ended(api, job)
            assert (shown["state"], shown["numberRecordsProcessed"]) == ("JobComplete", 500)
            assert len(await results(api, job, "successfulResults")) == 500
            stored = org.ctx.database.connection.execute("SELECT COUNT(*) FROM record_contact").fetchone()
            assert stored[0] == 500


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "JSON_PARSER_ERROR"),
        ({"object": "Contact"}, "JSON_PARSER_ERROR"),
        ({"operation": "insert"}, "INVALIDJOB"),
        ({"operation": "query", "object": "Contact"}, "JSON_PARSER_ERROR"),
        ({"operation": "insert", "object": 5}, "JSON_PARSER_ERROR"),
        ({"operation": "insert", "object": "Contact", "objekt": "x"}, "JSON_PARSER_ERROR"),
        ({"operation": "insert", "object": "Contact", "columnDelimiter": "COLON"}, "JSON_PARSER_ERROR"),
        ({"operation": "upsert", "object": "Contact"}, "INVALIDJOB"),
        ({"operation": "upsert", "object": "Contact", "externalIdFieldName": "LastName"}, "INVALIDJOB"),
    ],
)
async def test_malformed_orders(api: aiohttp.ClientSession, body: Any, code: str) -> None:
    """What is no order for an ingest job is refused."""
    assert await refusal(api, "POST", JOBS, json=body) == (400, code)


async def test_states_are_kept_to(org: DevOrg, api: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data goes to an open job, once, as CSV; a job is closed once, with data; unknown ones are not found."""
    job = await make(api, "insert")
    path = f"{JOBS}/{job['id']}"
    assert await refusal(api, "PATCH", path, json={"state": "UploadComplete"}) == (400, "INVALIDJOBSTATE")
    assert await refusal(api, "PUT", f"{path}/batches", json={}) == (400, "INVALIDCONTENTTYPE")
    await upload(api, job, "LastName\nA\n")
    again = await refusal(api, "PUT", f"{path}/batches", data="LastName\nB\n", headers=CSV)
    assert again == (400, "INVALIDJOBSTATE")
    assert await refusal(api, "PATCH", path, json={"state": "JobComplete"}) == (400, "INVALIDJOBSTATE")
    assert await refusal(api, "PATCH", path, json=[]) == (400, "INVALIDJOBSTATE")
    await state_to(api, job, "UploadComplete")
    assert await refusal(api, "PATCH", path, json={"state": "UploadComplete"}) == (400, "INVALIDJOBSTATE")
    await ended(api, job)
    assert await refusal(api, "GET", f"{path}/otherResults") == (404, "NOT_FOUND")
    assert await refusal(api, "GET", f"{JOBS}/7505f00000Nb2QdAAJ") == (404, "NOT_FOUND")
    monkeypatch.setattr(ingest_jobs, "MOST_JOBS", 2)
    newer = [await make(api, "insert") for _ in range(2)]
    assert (await look(api, newer[0]))["state"] == "Open"
    assert await refusal(api, "GET", path) == (404, "NOT_FOUND")
    org.ctx.usage.bulk_batches.set(ingest.MOST_BATCHES_A_DAY)
    assert await refusal(api, "POST", JOBS, json={"operation": "insert", "object": "Contact"}) == (
        400,
        "EXCEEDED_QUOTA",
    )


async def test_ten_thousand_rows(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Written within seconds, while other requests get through."""
    job = await make(api, "insert")
    await upload(api, job, "LastName,Phone\n" + "".join(f"N{number},{number}\n" for number in range(10_000)))
    await state_to(api, job, "UploadComplete")
    seen = set()

    async def is_over() -> bool:
        shown = await look(api, job)
        seen.add(shown["numberRecordsProcessed"])
        return bool(shown["state"] == "JobComplete")

    await until(is_over, 40)
    assert 10_000 in seen
    assert len(seen) > 2
    assert len(await results(api, job, "successfulResults")) == 10_000
    assert org.ctx.usage.bulk_batches.used() == 1
