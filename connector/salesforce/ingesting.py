"""`IngestClient`: the calls of Bulk API 2.0 ingest jobs.

Source: Bulk API 2.0 and Bulk API Developer Guide, "Create a Job", "Upload Job Data", "Upload Complete", "Get Job Info".
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from connector.errors import TransientError
from connector.model.command import IngestKind
from connector.ports import BulkJob, BulkPage, Purpose, RecordWrite, WriteOutcome
from connector.salesforce import bulk, ingest
from connector.salesforce.answers import Answer, content
from connector.salesforce.transport import Request, Transport

_NOT_FOUND = 404


class Ingesting:
    """See `ports.IngestClient`.

    Args:
        transport: Sends the calls.
        headers: Of every call.
    """

    def __init__(self, transport: Transport, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._headers = headers

    def takes(self, write: RecordWrite) -> bool:
        """See `IngestClient`."""
        return ingest.fits(write)

    async def start(self, kind: IngestKind) -> BulkJob:
        """See `IngestClient`."""
        answer = await self._send("POST", "jobs/ingest", json=ingest.order(kind))
        return bulk.job(content(answer, write=True), answer.headers)

    async def upload(self, job_id: str, kind: IngestKind, writes: Sequence[RecordWrite]) -> None:
        """See `IngestClient`."""
        content(await self._send("PUT", f"{_job(job_id)}/batches", csv=ingest.upload(kind, writes)), write=True)

    async def close(self, job_id: str) -> None:
        """See `IngestClient`."""
        content(await self._send("PATCH", _job(job_id), json={"state": "UploadComplete"}), write=True)

    async def abort(self, job_id: str) -> None:
        """See `IngestClient`."""
        content(await self._send("PATCH", _job(job_id), json={"state": "Aborted"}), write=True)

    async def job(self, job_id: str) -> BulkJob:
        """See `IngestClient`."""
        answer = await self._send("GET", _job(job_id))
        return bulk.job(content(answer), answer.headers)

    async def outcomes(
        self, job_id: str, kind: IngestKind, writes: Sequence[RecordWrite]
    ) -> Sequence[WriteOutcome | TransientError]:
        """See `IngestClient`."""
        found = ingest.Outcomes(kind, writes)
        found.taken(await self._rows(f"{_job(job_id)}/successfulResults"))
        found.refused(await self._rows(f"{_job(job_id)}/failedResults"))
        found.untried(await self._rows(f"{_job(job_id)}/unprocessedrecords"))
        return found.all()

    async def delete(self, job_id: str) -> None:
        """See `IngestClient`. A job that is not there any more is as good."""
        answer = await self._send("DELETE", _job(job_id))
        if answer.status != _NOT_FOUND:
            content(answer)

    async def _rows(self, path: str) -> BulkPage:
        page = bulk.CsvPage()
        request = Request(
            method="GET",
            path=path,
            purpose=Purpose.COMMAND,
            headers={**self._headers, "Accept": "text/csv"},
            sink=page.read,
        )
        answer = await self._transport.send(request)
        content(answer)
        return page.page(answer.headers)

    async def _send(
        self, method: str, path: str, *, json: Mapping[str, str] | None = None, csv: bytes | None = None
    ) -> Answer:
        request = Request(method=method, path=path, purpose=Purpose.COMMAND, headers=self._headers, json=json, csv=csv)
        return await self._transport.send(request)


def _job(job_id: str) -> str:
    return f"jobs/ingest/{quote(job_id, safe='')}"
