"""Bulk API 2.0 ingest jobs over HTTP, and the worker that writes what was uploaded.

Source: Bulk API 2.0 Developer Guide, "Create a Job", "Upload Job Data", "Upload Complete", "Get Job Info", "Get Job
Successful Record Results", "Get Job Failed Record Results", "Get Job Unprocessed Record Results", "Abort a Job",
"Delete a Job".
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from aiohttp import web

from connector.devorg.context import CONTEXT, USER_ID, Context, origin_of, read_json, version_of
from connector.devorg.errors import OrgError
from connector.devorg.rest.ingest_jobs import IngestJob, IngestJobs
from connector.devorg.rest.job_order import job_order

MOST_BATCHES_A_DAY = 15_000
_LOOK_S = 0.02
_TEXTS = ("object", "externalIdFieldName", "assignmentRuleId")
# The guide writes the third one without a capital, the clients with one.
_RESULTS = {"successfulresults": "written", "failedresults": "failed", "unprocessedrecords": ""}


def routes(context: Context) -> list[web.RouteDef]:
    """The resources of ingest jobs, with and without the slash that some clients put behind them."""
    ingest = Ingest(context)
    base = "/services/data/{version}/jobs/ingest"
    found = []
    for slash in ("", "/"):
        found += [
            web.post(f"{base}{slash}", ingest.create),
            web.get(f"{base}{slash}", ingest.list),
            web.get(f"{base}/{{job}}{slash}", ingest.get),
            web.patch(f"{base}/{{job}}{slash}", ingest.change),
            web.delete(f"{base}/{{job}}{slash}", ingest.delete),
            web.put(f"{base}/{{job}}/batches{slash}", ingest.upload),
            web.get(f"{base}/{{job}}/{{results}}{slash}", ingest.results),
        ]
    return found


async def worker(app: web.Application) -> AsyncIterator[None]:
    """Write what is due of every job, chunk by chunk, while the org runs; other requests pass between two chunks."""
    jobs = IngestJobs(app[CONTEXT])

    async def work() -> None:
        while True:
            for job_id in jobs.at_work():
                while jobs.step(job_id):  # noqa: ASYNC110  # nothing is awaited: every turn is a part of the work
                    await asyncio.sleep(0)
            await asyncio.sleep(_LOOK_S)

    task = asyncio.create_task(work(), name="devorg.ingest")
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Ingest:
    """The handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = IngestJobs(context)

    async def create(self, request: web.Request) -> web.Response:
        """Make a job; the data comes with a call of its own."""
        order = _order(await read_json(request))
        if self._context.usage.bulk_batches.used() >= MOST_BATCHES_A_DAY:
            raise OrgError(400, "EXCEEDED_QUOTA", f"More than {MOST_BATCHES_A_DAY} batches in 24 hours")
        job = self._jobs.create(request[USER_ID], origin_of(request), float(version_of(request)), order)
        return web.json_response(job.created())

    async def list(self, _request: web.Request) -> web.Response:
        """Show all jobs, the newest first."""
        found = [job.info() for job in self._jobs.all()]
        return web.json_response({"done": True, "nextRecordsUrl": None, "records": found})

    async def get(self, request: web.Request) -> web.Response:
        """Show a job."""
        return web.json_response(self._job(request).info())

    async def upload(self, request: web.Request) -> web.Response:
        """Take a job's data."""
        job = self._job(request)
        if request.content_type != "text/csv":
            raise OrgError(400, "INVALIDCONTENTTYPE", "The content type of the data has to be text/csv")
        self._jobs.upload(job.id, await request.read())
        return web.Response(status=201)

    async def change(self, request: web.Request) -> web.Response:
        """Tell that the data is complete, or stop the job: the two changes of state that a client can ask for."""
        job, order = self._job(request), await read_json(request)
        state = order.get("state") if isinstance(order, dict) else None
        if state not in ("UploadComplete", "Aborted"):
            raise OrgError(400, "INVALIDJOBSTATE", "A job can only be set to the states UploadComplete and Aborted")
        changed = self._jobs.close(job.id) if state == "UploadComplete" else self._jobs.abort(job.id)
        return web.json_response(changed.created())

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a job and its results."""
        self._jobs.delete(self._job(request).id)
        return web.Response(status=204)

    async def results(self, request: web.Request) -> web.Response:
        """Answer one kind of a job's results as CSV; the order of the rows is not that of the upload."""
        outcome = _RESULTS.get(request.match_info["results"].lower())
        job = self._job(request)
        if outcome is None:
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        return web.Response(body=self._jobs.results(job, outcome), content_type="text/csv", charset="UTF-8")

    def _job(self, request: web.Request) -> IngestJob:
        return self._jobs.get(request.match_info["job"])


def _order(body: Any) -> dict[str, str]:
    order = job_order(body, ("insert", "update", "upsert", "delete", "hardDelete"), _TEXTS)
    if "object" not in order:
        raise OrgError(400, "INVALIDJOB", "InvalidJob : No object in the job")
    return order
