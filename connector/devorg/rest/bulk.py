"""Bulk API 2.0 query jobs over HTTP.

Source: Bulk API 2.0 Developer Guide, "Create a Query Job", "Get Information About a Query Job", "Get Results for a
Query Job", "Get Parallel Results for a Query Job", "Abort a Query Job", "Delete a Query Job".
"""

import asyncio
import base64
import hashlib
from typing import Any

from aiohttp import web

from connector.devorg.context import USER_ID, Context, read_json, version_of
from connector.devorg.errors import OrgError
from connector.devorg.rest.bulk_jobs import BulkJobs, Job
from connector.devorg.rest.job_order import job_order

PAGE_ROWS = 50_000
"""Rows of a page whose size the client leaves open."""

PARALLEL_PAGES = 5
MOST_JOBS_A_DAY = 10_000
_MOST_PAGE_ROWS = 250_000
_PARALLEL_SINCE = 58.0
_CHECK_LENGTH = 8


def routes(context: Context) -> list[web.RouteDef]:
    """The resources of query jobs, with and without the slash that some clients put behind them."""
    bulk = BulkQuery(context)
    base = "/services/data/{version}/jobs/query"
    found = []
    for slash in ("", "/"):
        found += [
            web.post(f"{base}{slash}", bulk.create),
            web.get(f"{base}{slash}", bulk.list),
            web.get(f"{base}/{{job}}{slash}", bulk.get),
            web.patch(f"{base}/{{job}}{slash}", bulk.abort),
            web.delete(f"{base}/{{job}}{slash}", bulk.delete),
            web.get(f"{base}/{{job}}/results{slash}", bulk.results),
            web.get(f"{base}/{{job}}/resultPages{slash}", bulk.result_pages),
        ]
    return found


class BulkQuery:
    """The handlers. A job is brought up to date, slice by slice, before it is shown."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = BulkJobs(context)

    async def create(self, request: web.Request) -> web.Response:
        """Make a job."""
        order = _order(await read_json(request))
        if self._context.usage.bulk_query_jobs.used() >= MOST_JOBS_A_DAY:
            raise OrgError(400, "EXCEEDED_QUOTA", f"More than {MOST_JOBS_A_DAY} query jobs in 24 hours")
        job = self._jobs.create(
            request[USER_ID],
            order["operation"],
            order["query"],
            delimiter=order["columnDelimiter"],
            ending=order["lineEnding"],
            version=float(version_of(request)),
        )
        self._context.usage.bulk_query_jobs.add()
        return web.json_response(job.created())

    async def list(self, _request: web.Request) -> web.Response:
        """Show all jobs, the newest first."""
        found = [job.info() for job in self._jobs.all()]
        return web.json_response({"done": True, "nextRecordsUrl": None, "records": found})

    async def get(self, request: web.Request) -> web.Response:
        """Show a job."""
        return web.json_response((await self._current(request)).info())

    async def abort(self, request: web.Request) -> web.Response:
        """Stop a job: the one change of state that a client can ask for."""
        order = await read_json(request)
        if not isinstance(order, dict) or order.get("state") != "Aborted":
            raise OrgError(400, "INVALIDJOBSTATE", "A query job can only be set to the state Aborted")
        return web.json_response(self._jobs.abort(request.match_info["job"]).created())

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a job and its results."""
        self._jobs.delete(request.match_info["job"])
        return web.Response(status=204)

    async def results(self, request: web.Request) -> web.Response:
        """Answer one page of the results as CSV."""
        job = await self._finished(request)
        first, rows = _place(request, job)
        lines = self._jobs.page(job, first, rows)
        end = first + len(lines) - 1
        headers = {
            "Sforce-NumberOfRecords": str(end - first),
            "Sforce-Locator": _locator(job, end, 0) if end < job.rows else "null",
        }
        return web.Response(body=b"".join(lines), content_type="text/csv", charset="UTF-8", headers=headers)

    async def result_pages(self, request: web.Request) -> web.Response:
        """Answer where the next few pages of the results are, for reading them at the same time."""
        if float(version_of(request)) < _PARALLEL_SINCE:
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        job = await self._finished(request)
        first, rows = _place(request, job)
        starts = range(first, max(job.rows, 1), rows)
        path = request.path.rstrip("/").removesuffix("Pages")
        pages = [{"resultUrl": f"{path}s?locator={_locator(job, at, rows)}"} for at in starts[:PARALLEL_PAGES]]
        rest = starts[PARALLEL_PAGES:]
        more = f"{path}Pages?locator={_locator(job, rest[0], rows)}" if rest else None
        return web.json_response({"resultPages": pages, "nextRecordsUrl": more, "done": not rest})

    async def _current(self, request: web.Request) -> Job:
        job_id = request.match_info["job"]
        while self._jobs.step(job_id):  # noqa: ASYNC110  # nothing is awaited: every turn is a slice of the work
            await asyncio.sleep(0)  # and lets other requests pass
        return self._jobs.get(job_id)

    async def _finished(self, request: web.Request) -> Job:
        job = await self._current(request)
        if job.version != float(version_of(request)):
            note = f"The API version of the job is {job.version}, that of the request {version_of(request)}"
            raise OrgError(409, "API_VERSION_MISMATCH", note)
        if job.state != "JobComplete":
            raise OrgError(400, "INVALIDJOBSTATE", f"The job has no results: it is in the state {job.state}")
        return job


def _order(body: Any) -> dict[str, str]:
    order = job_order(body, ("query", "queryAll"), ("query",))
    if "query" not in order:
        raise OrgError(400, "JSON_PARSER_ERROR", "Unexpected value for query: expected a SOQL query")
    return order


def _place(request: web.Request, job: Job) -> tuple[int, int]:
    """Return the first row and the number of rows that a request asks for."""
    asked, locator = request.query.get("maxRecords"), request.query.get("locator")
    first, rows = (0, 0) if locator is None else _located(job, locator)
    if asked is not None:
        if not asked.isascii() or not asked.isdigit() or not 1 <= int(asked[:10]) <= _MOST_PAGE_ROWS:
            note = f"maxRecords: expected a number from 1 to {_MOST_PAGE_ROWS}"
            raise OrgError(400, "INVALID_PARAMETER", note)
        rows = int(asked)
    return first, rows or PAGE_ROWS


def _locator(job: Job, first: int, rows: int) -> str:
    """Return the name of a place in a job's results; nobody can make one up for another place."""
    place = f"{first}.{rows}"
    return base64.urlsafe_b64encode(f"{place}.{_check(job, place)}".encode()).decode().rstrip("=")


def _located(job: Job, locator: str) -> tuple[int, int]:
    try:
        text = base64.urlsafe_b64decode(locator + "=" * (-len(locator) % 4)).decode()
        place, _, check = text.rpartition(".")
        first, rows = (int(number) for number in place.split("."))
    except ValueError:
        place, check, first, rows = "", "", 0, 0
    if not check or check != _check(job, place):
        raise OrgError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    return first, rows


def _check(job: Job, place: str) -> str:
    return hashlib.sha256(f"{job.id}.{place}".encode()).hexdigest()[:_CHECK_LENGTH]
