"""Query jobs of the first Bulk API, as its guide walks through one."""

import csv
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.rest import bulk_jobs
from connector.devorg.rest.limits import BULK_BATCHES
from connector.devorg.server import DevOrg

JOBS = "/services/async/59.0/job"
XML = "application/xml; charset=UTF-8"
NAMESPACE = 'xmlns="http://www.force.com/2009/06/asyncapi/dataload"'
ORDER = (
    f"<jobInfo {NAMESPACE}><operation>{{0}}</operation><object>Contact</object><contentType>CSV</contentType></jobInfo>"
)
STATE = f"<jobInfo {NAMESPACE}><state>{{0}}</state></jobInfo>"


@pytest.fixture
async def bulk(org: DevOrg) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with a session."""
    headers = {"X-SFDC-Session": org.ctx.tokens.default_access_token}
    async with aiohttp.ClientSession(org.url, headers=headers) as session:
        yield session


def people(org: DevOrg, count: int) -> list[str]:
    with org.ctx.org.transaction(INTEGRATION_USER_ID, "") as transaction:
        return [transaction.create("Contact", {"LastName": f"Name {number:05}"}) for number in range(count)]


async def asked(
    bulk: aiohttp.ClientSession, method: str, path: str, body: str = "", kind: str = XML
) -> tuple[int, str]:
    async with bulk.request(method, path, data=body or None, headers={"Content-Type": kind}) as answer:
        return answer.status, await answer.text()


def told(text: str) -> dict[str, str]:
    """Elements without elements of their own, by name."""
    return dict(re.findall(r"<([\w]+)>([^<]*)</\1>", text))


async def opened(bulk: aiohttp.ClientSession, operation: str = "query") -> str:
    status, text = await asked(bulk, "POST", JOBS, ORDER.format(operation))
    assert status == 201, text
    return f"{JOBS}/{told(text)['id']}"


async def added(bulk: aiohttp.ClientSession, job: str, soql: str) -> str:
    status, text = await asked(bulk, "POST", f"{job}/batch", soql, "text/csv")
    assert status == 201, text
    return f"{job}/batch/{told(text)['id']}"


async def rows(bulk: aiohttp.ClientSession, batch: str) -> list[list[str]]:
    _, names = await asked(bulk, "GET", f"{batch}/result")
    status, text = await asked(bulk, "GET", f"{batch}/result/{told(names)['result']}")
    assert status == 200, text
    return list(csv.reader(io.StringIO(text, newline="")))


async def error(bulk: aiohttp.ClientSession, method: str, path: str, body: str = "") -> tuple[int, str]:
    status, text = await asked(bulk, method, path, body)
    assert NAMESPACE in text
    return status, told(text)["exceptionCode"]


async def test_a_query_from_its_job_to_its_rows(org: DevOrg, bulk: aiohttp.ClientSession) -> None:
    """A job is opened, given its query, closed, watched, and its result read."""
    ids = people(org, 3)
    job = await opened(bulk)
    batch = await added(bulk, job, "SELECT Id, LastName, Birthdate FROM Contact")
    status, text = await asked(bulk, "POST", job, STATE.format("Closed"))
    assert (status, told(text)["state"], told(text)["object"]) == (200, "Closed", "Contact")
    info = told((await asked(bulk, "GET", batch))[1])
    assert (info["state"], info["numberRecordsProcessed"], info["jobId"]) == ("Completed", "3", job.rpartition("/")[2])
    assert info["id"].startswith("751")
    info = told((await asked(bulk, "GET", job))[1])
    assert (info["numberBatchesCompleted"], info["numberBatchesTotal"], info["apiVersion"]) == ("1", "1", "59.0")
    expected = [[record_id, f"Name {number:05}", ""] for number, record_id in enumerate(ids)]
    assert await rows(bulk, batch) == [["Id", "LastName", "Birthdate"], *expected]


async def test_a_job_is_answered_in_the_notation_it_was_asked_in(bulk: aiohttp.ClientSession) -> None:
    """JSON in, JSON out, errors too; what concerns batches is XML, as the job's content is CSV."""
    order = '{"operation": "queryAll", "object": "contact", "contentType": "CSV"}'
    async with bulk.post(JOBS, data=order, headers={"Content-Type": "application/json"}) as answer:
        job = await answer.json()
    assert (job["operation"], job["object"], job["state"], job["numberBatchesTotal"]) == (
        "queryAll",
        "Contact",
        "Open",
        0,
    )
    async with bulk.get(f"{JOBS}/750nothing", headers={"Content-Type": "application/json"}) as answer:
        assert (answer.status, (await answer.json())["exceptionCode"]) == (400, "InvalidJob")
    path = f"{JOBS}/{job['id']}/batch"
    _, text = await asked(bulk, "POST", path, "SELECT Id FROM Contact", "text/csv")
    _, text = await asked(bulk, "GET", f"{path}/{told(text)['id']}", kind="application/json")
    assert told(text)["state"] == "Completed"
    _, text = await asked(bulk, "GET", path)
    assert text.count("<batchInfo>") == 1


@pytest.mark.parametrize(("operation", "seen"), [("query", 2), ("queryAll", 3)])
async def test_deleted_records(org: DevOrg, bulk: aiohttp.ClientSession, operation: str, seen: int) -> None:
    """`queryAll` reads the recycle bin as well."""
    ids = people(org, 3)
    with org.ctx.org.transaction(INTEGRATION_USER_ID, "") as transaction:
        transaction.delete("Contact", ids[1])
    found = await rows(bulk, await added(bulk, await opened(bulk, operation), "SELECT Id, IsDeleted FROM Contact"))
    assert len(found) == 1 + seen
    assert [ids[1], "true"] in found or operation == "query"


async def test_nothing_found(bulk: aiohttp.ClientSession) -> None:
    """There is a result all the same, and it says so."""
    batch = await added(bulk, await opened(bulk), "SELECT Id FROM Contact")
    assert await rows(bulk, batch) == [["Records not found for this query"]]


async def test_a_query_that_is_refused_is_a_failed_batch(bulk: aiohttp.ClientSession) -> None:
    """It is told by the batch, not by the call that added it."""
    job = await opened(bulk)
    batch = await added(bulk, job, "SELECT Nothing__c FROM Contact")
    info = told((await asked(bulk, "GET", batch))[1])
    assert info["state"] == "Failed"
    assert info["stateMessage"].startswith("InvalidBatch : Failed to process query: INVALID_FIELD")
    assert await error(bulk, "GET", f"{batch}/result") == (400, "InvalidBatch")
    assert told((await asked(bulk, "GET", job))[1])["numberBatchesFailed"] == "1"


async def test_a_batch_at_work(org: DevOrg, bulk: aiohttp.ClientSession) -> None:
    """It has no result yet, and stops with its job."""
    people(org, 3)
    org.ctx.settings.bulk_job_s = 3600
    job = await opened(bulk)
    batch = await added(bulk, job, "SELECT Id FROM Contact")
    assert told((await asked(bulk, "GET", batch))[1])["state"] == "InProgress"
    assert await error(bulk, "GET", f"{batch}/result") == (400, "InvalidBatch")
    _, text = await asked(bulk, "POST", job, STATE.format("Aborted"))
    assert told(text)["state"] == "Aborted"
    assert told((await asked(bulk, "GET", batch))[1])["state"] == "Not Processed"
    assert await error(bulk, "POST", job, STATE.format("Closed")) == (400, "InvalidJobState")


async def test_what_is_refused(org: DevOrg, bulk: aiohttp.ClientSession, web: aiohttp.ClientSession) -> None:
    """With the codes of the guide, in its XML."""
    assert await error(web, "POST", JOBS, ORDER.format("query")) == (400, "InvalidSessionId")
    assert await error(bulk, "POST", JOBS, ORDER.format("insert")) == (400, "InvalidJob")
    assert await error(bulk, "POST", JOBS, ORDER.format("query").replace("Contact", "Nothing__c")) == (
        400,
        "InvalidJob",
    )
    assert await error(bulk, "POST", JOBS, ORDER.format("query").replace("CSV", "XML")) == (400, "InvalidJob")
    assert await error(bulk, "GET", f"{JOBS}/750nothing") == (400, "InvalidJob")
    assert await error(bulk, "GET", "/services/async/59.0/jobs") == (404, "InvalidUrl")
    assert await error(bulk, "GET", "/services/async/99.0/job/x") == (404, "InvalidUrl")
    job = await opened(bulk)
    assert await error(bulk, "GET", f"{job}/batch/751nothing") == (400, "InvalidBatch")
    assert await error(bulk, "POST", job, STATE.format("Open")) == (400, "InvalidJobState")
    batch = await added(bulk, job, "SELECT Id FROM Contact")
    assert await error(bulk, "GET", f"{batch}/result/752nothing") == (400, "InvalidBatch")
    await asked(bulk, "POST", job, STATE.format("Closed"))
    assert await error(bulk, "POST", f"{job}/batch", "SELECT Id FROM Contact") == (400, "InvalidJobState")
    org.ctx.usage.bulk_batches.set(BULK_BATCHES)
    assert await error(bulk, "POST", f"{await opened(bulk)}/batch", "SELECT Id FROM Contact") == (400, "ExceededQuota")


async def test_calls_are_counted_and_can_be_struck(org: DevOrg, bulk: aiohttp.ClientSession, admin: Any) -> None:
    """As those of every other API; a fault's error is in this API's form."""
    await opened(bulk)
    assert org.ctx.usage.calls["POST /job"] == org.ctx.usage.api.used() == 1
    await admin("POST", "/faults", {"kind": "bulk", "status": 503, "code": "ServerUnavailable"})
    assert await error(bulk, "POST", JOBS, ORDER.format("query")) == (503, "ServerUnavailable")


async def test_the_two_bulk_apis_do_not_see_each_others_jobs(
    api: aiohttp.ClientSession, bulk: aiohttp.ClientSession
) -> None:
    """A batch reads as a query job does, and is none."""
    batch = await added(bulk, await opened(bulk), "SELECT Id FROM Contact")
    async with api.get("/services/data/v59.0/jobs/query") as answer:
        assert (await answer.json())["records"] == []
    async with api.get(f"/services/data/v59.0/jobs/query/{batch.rpartition('/')[2]}") as answer:
        assert answer.status == 404


async def test_old_jobs_are_forgotten(
    org: DevOrg, bulk: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their batches; the table of jobs is bounded."""
    monkeypatch.setattr("connector.devorg.batch.jobs.MOST_JOBS", 2)
    jobs = [await opened(bulk) for _ in range(2)]
    await added(bulk, jobs[0], "SELECT Id FROM Contact")
    jobs.append(await opened(bulk))
    assert await error(bulk, "GET", jobs[0]) == (400, "InvalidJob")
    assert (await asked(bulk, "GET", jobs[1]))[0] == 200
    left = org.ctx.database.connection.execute("SELECT count(*) FROM batch").fetchone()[0]
    assert left == 0


async def test_a_batch_whose_query_is_forgotten_is_gone(
    org: DevOrg, bulk: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job shows the others."""
    monkeypatch.setattr(bulk_jobs, "MOST_JOBS", 1)
    job = await opened(bulk)
    batches = [await added(bulk, job, "SELECT Id FROM Contact") for _ in range(2)]
    assert await error(bulk, "GET", batches[0]) == (400, "InvalidBatch")
    assert told((await asked(bulk, "GET", job))[1])["numberBatchesTotal"] == "1"
    assert await rows(bulk, batches[1]) == [["Records not found for this query"]]
    assert org.ctx.usage.bulk_batches.used() == 2


async def test_jobs_survive_a_restart(tmp_path: Path) -> None:
    """A client goes on where it was."""
    async with DevOrg(tmp_path) as org:
        people(org, 2)
        headers = {"X-SFDC-Session": org.ctx.tokens.default_access_token}
        async with aiohttp.ClientSession(org.url, headers=headers) as bulk:
            batch = await added(bulk, await opened(bulk), "SELECT Id FROM Contact")
    async with DevOrg(tmp_path) as org, aiohttp.ClientSession(org.url, headers=headers) as bulk:
        assert len(await rows(bulk, batch)) == 3
