"""Query jobs over HTTP: make a job, add a query as a batch, look at it, read its result.

Answers are XML; what concerns a job is JSON where its request is.

Source: Bulk API Developer Guide, "Walk Through a Bulk Query Sample", "Use Bulk Query", "JobInfo", "BatchInfo",
"Errors".
"""

import asyncio
from typing import Any

import orjson
from aiohttp import web

from connector.devorg.batch.jobs import Batch, BatchJob, BatchJobs
from connector.devorg.context import USER_ID, Context
from connector.devorg.errors import OrgError
from connector.devorg.markup import elements, text_of
from connector.devorg.rest.limits import BULK_BATCHES

_NAMESPACE = 'xmlns="http://www.force.com/2009/06/asyncapi/dataload"'
_NO_ROWS = b"Records not found for this query"
_MEMBERS = ("operation", "object", "contentType", "state")


def routes(context: Context) -> list[web.RouteDef]:
    """The resources of jobs and of their batches."""
    server = BatchServer(context)
    job = "/services/async/{version}/job"
    batch = f"{job}/{{job}}/batch"
    return [
        web.post(job, server.create),
        web.get(f"{job}/{{job}}", server.job),
        web.post(f"{job}/{{job}}", server.end),
        web.post(batch, server.add),
        web.get(batch, server.batches),
        web.get(f"{batch}/{{batch}}", server.batch),
        web.get(f"{batch}/{{batch}}/result", server.result_list),
        web.get(f"{batch}/{{batch}}/result/{{result}}", server.result),
    ]


class BatchServer:
    """The handlers. A job's batches are brought up to date, slice by slice, before anything of it is shown."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = BatchJobs(context)

    async def create(self, request: web.Request) -> web.Response:
        """Make a job."""
        order = await _order(request)
        if order["operation"] not in ("query", "queryAll"):
            raise OrgError(400, "InvalidJob", f"Operation not there in the local org: {order['operation']}")
        if order["contentType"] not in ("", "CSV"):
            raise OrgError(400, "InvalidJob", f"Content type not there in the local org: {order['contentType']}")
        if request.headers.get("Sforce-Enable-PKChunking", "false").lower() != "false":
            raise OrgError(400, "InvalidJob", "PK chunking is not there in the local org")
        found = self._context.schema.get(order["object"])
        if found is None:
            raise OrgError(400, "InvalidJob", f"Unable to find object: {order['object']}")
        version = float(request.match_info["version"])
        return _job(request, self._jobs.create(request[USER_ID], order["operation"], found.name, version), [], 201)

    async def job(self, request: web.Request) -> web.Response:
        """Show a job."""
        job = await self._current(request)
        return _job(request, job, self._jobs.batches(job))

    async def end(self, request: web.Request) -> web.Response:
        """Close or abort a job."""
        state = (await _order(request))["state"]
        if state not in ("Closed", "Aborted"):
            raise OrgError(400, "InvalidJobState", f"Invalid job state: {state}")
        job = self._jobs.end(request.match_info["job"], state)
        return _job(request, job, self._jobs.batches(job))

    async def add(self, request: web.Request) -> web.Response:
        """Add a query, which is the whole body, to a job."""
        job = self._jobs.get(request.match_info["job"])
        if self._context.usage.bulk_batches.used() >= BULK_BATCHES:
            raise OrgError(400, "ExceededQuota", f"More than {BULK_BATCHES} batches in 24 hours")
        batch = self._jobs.add(job, (await request.read()).decode(errors="replace"))
        self._context.usage.bulk_batches.add()
        return _xml("batchInfo", elements(batch.info()), 201)

    async def batches(self, request: web.Request) -> web.Response:
        """Show every batch of a job."""
        found = self._jobs.batches(await self._current(request))
        return _xml("batchInfoList", "".join(f"<batchInfo>{elements(batch.info())}</batchInfo>" for batch in found))

    async def batch(self, request: web.Request) -> web.Response:
        """Show a batch."""
        return _xml("batchInfo", elements((await self._batch(request)).info()))

    async def result_list(self, request: web.Request) -> web.Response:
        """Name the parts of a batch's result, each of up to 1 GB: here always one."""
        return _xml("result-list", elements({"result": _result_id(await self._complete(request))}))

    async def result(self, request: web.Request) -> web.Response:
        """Answer the one part of a batch's result as CSV."""
        batch = await self._complete(request)
        if request.match_info["result"] != _result_id(batch):
            raise OrgError(400, "InvalidBatch", "Invalid result id")
        body = b"".join(self._jobs.lines(batch)) if batch.rows else _NO_ROWS
        return web.Response(body=body, content_type="text/csv", charset="UTF-8")

    async def _current(self, request: web.Request) -> BatchJob:
        job = self._jobs.get(request.match_info["job"])
        while self._jobs.step(job):  # noqa: ASYNC110  # nothing is awaited: every turn is a slice of the work
            await asyncio.sleep(0)  # and lets other requests pass
        return self._jobs.get(job.id)

    async def _batch(self, request: web.Request) -> Batch:
        return self._jobs.batch(await self._current(request), request.match_info["batch"])

    async def _complete(self, request: web.Request) -> Batch:
        batch = await self._batch(request)
        if batch.state != "Completed":
            raise OrgError(400, "InvalidBatch", f"Batch not completed: it is in the state {batch.state}")
        return batch


async def _order(request: web.Request) -> dict[str, str]:
    """What is asked of a job, in either notation; a member that is not there is an empty text."""
    body = await request.read()
    if request.content_type != "application/json":
        text = body.decode(errors="replace")
        return {name: text_of(text, name) for name in _MEMBERS}
    try:
        order = orjson.loads(body)
    except orjson.JSONDecodeError:
        order = None
    if not isinstance(order, dict):
        raise OrgError(400, "InvalidJob", "The request body is no job")
    return {name: str(order.get(name) or "") for name in _MEMBERS}


def _job(request: web.Request, job: BatchJob, batches: list[Batch], status: int = 200) -> web.Response:
    info: dict[str, Any] = job.info(batches)
    if request.content_type == "application/json":
        return web.json_response(info, status=status)
    return _xml("jobInfo", elements(info), status)


def _result_id(batch: Batch) -> str:
    """The name of a batch's result: its own with the key prefix of results."""
    return f"752{batch.id[3:15]}"


def _xml(name: str, content: str, status: int = 200) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} {_NAMESPACE}>{content}</{name}>'
    return web.Response(text=text, status=status, content_type="application/xml", charset="UTF-8")
