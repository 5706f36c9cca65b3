"""Jobs and their batches. What a batch reads, and how far it is, is a query job of Bulk API 2.0 under its id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from connector.devorg.clock import stamp
from connector.devorg.context import Context
from connector.devorg.errors import OrgError
from connector.devorg.rest.bulk_jobs import KEPT_MS, MOST_JOBS, BulkJobs, Job
from connector.devorg.rest.results import new_id

BATCH_PREFIX = "751"
_STATES = {
    "UploadComplete": "Queued",
    "InProgress": "InProgress",
    "JobComplete": "Completed",
    "Failed": "Failed",
    "Aborted": "Not Processed",
}
_TABLES = """
CREATE TABLE IF NOT EXISTS batch_job (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, operation TEXT NOT NULL, object TEXT NOT NULL, version REAL NOT NULL,
    state TEXT NOT NULL, made_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS batch (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, made_ms INTEGER NOT NULL, refusal TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS batch_by_job ON batch (job);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """A job; times by the org's clock.

    Attributes:
        state: Open, Closed or Aborted.
    """

    id: str
    user_id: str
    operation: str
    object: str
    version: float
    state: str
    made_ms: int
    changed_ms: int

    def info(self, batches: Sequence["Batch"]) -> dict[str, Any]:
        """Its `jobInfo`."""
        states = [batch.state for batch in batches]
        counts = {
            f"numberBatches{state}": states.count(state) for state in ("Queued", "InProgress", "Completed", "Failed")
        }
        return {
            "id": self.id,
            "operation": self.operation,
            "object": self.object,
            "createdById": self.user_id,
            "createdDate": stamp(self.made_ms),
            "systemModstamp": stamp(self.changed_ms),
            "state": self.state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            **counts,
            "numberBatchesTotal": len(batches),
            "numberRecordsProcessed": sum(batch.rows for batch in batches),
            "numberRetries": 0,
            "apiVersion": self.version,
            "numberRecordsFailed": 0,
            "totalProcessingTime": 0,
            "apiActiveProcessingTime": 0,
            "apexProcessingTime": 0,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A query, and how far it is.

    Attributes:
        message: Why it failed.
        rows: Read until now.
    """

    id: str
    job: str
    state: str
    message: str
    made_ms: int
    changed_ms: int
    rows: int

    def info(self) -> dict[str, Any]:
        """Its `batchInfo`."""
        return {
            "id": self.id,
            "jobId": self.job,
            "state": self.state,
            **({"stateMessage": self.message} if self.message else {}),
            "createdDate": stamp(self.made_ms),
            "systemModstamp": stamp(self.changed_ms),
            "numberRecordsProcessed": self.rows,
            "numberRecordsFailed": 0,
            "totalProcessingTime": 0,
            "apiActiveProcessingTime": 0,
            "apexProcessingTime": 0,
        }


class BatchJobs:
    """The tables of jobs and batches; as many jobs, and for as long, as query jobs of Bulk API 2.0."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._database = context.database
        self._connection = context.database.connection
        self._connection.executescript(_TABLES)
        self._queries = BulkJobs(context, BATCH_PREFIX)

    def create(self, user_id: str, operation: str, name: str, version: float) -> BatchJob:
        """Open a job for an object."""
        now_ms = self._context.clock.now_ms()
        job = BatchJob(
            id=new_id("750"),
            user_id=user_id,
            operation=operation,
            object=name,
            version=version,
            state="Open",
            made_ms=now_ms,
            changed_ms=now_ms,
        )
        with self._database.transaction():
            self._forget_old()
            self._database.insert("batch_job", {name: getattr(job, name) for name in BatchJob.__slots__})
        return job

    def get(self, job_id: str) -> BatchJob:
        """Return a job.

        Raises:
            OrgError: 400 InvalidJob.
        """
        row = self._connection.execute("SELECT * FROM batch_job WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise OrgError(400, "InvalidJob", f"Invalid job id: {job_id}")
        return BatchJob(**row)

    def end(self, job_id: str, state: str) -> BatchJob:
        """Close a job, which takes no more batches, or abort it, which stops those it has.

        Raises:
            OrgError: There is none (400 InvalidJob), or it has been ended (400 InvalidJobState).
        """
        job = self.get(job_id)
        if job.state == "Aborted" or (job.state, state) == ("Closed", "Closed"):
            raise OrgError(400, "InvalidJobState", f"Closing already {job.state} Job not allowed")
        if state == "Aborted":
            for batch in self.batches(job):
                if batch.state in ("Queued", "InProgress"):
                    self._queries.abort(batch.id)
        change = "UPDATE batch_job SET state = ?, changed_ms = ? WHERE id = ?"
        self._connection.execute(change, (state, self._context.clock.now_ms(), job_id))
        return self.get(job_id)

    def add(self, job: BatchJob, query: str) -> Batch:
        """Add a query to a job. One that is refused is a batch that has failed.

        Raises:
            OrgError: The job is not open (400 InvalidJobState).
        """
        if job.state != "Open":
            raise OrgError(400, "InvalidJobState", f"Invalid job state: {job.state}")
        batch_id, refusal = new_id(BATCH_PREFIX), ""
        with self._database.transaction():
            try:
                batch_id = self._queries.create(
                    job.user_id, job.operation, query, delimiter="COMMA", ending="LF", version=job.version
                ).id
            except OrgError as error:
                refusal = f"InvalidBatch : Failed to process query: {error.code}: {error.message}"
            row = {"id": batch_id, "job": job.id, "made_ms": self._context.clock.now_ms(), "refusal": refusal}
            self._database.insert("batch", row)
        return self.batch(job, batch_id)

    def batches(self, job: BatchJob) -> list[Batch]:
        """Return the batches of a job, the oldest first; without those that have been forgotten."""
        rows = self._connection.execute(
            "SELECT id FROM batch WHERE job = ? AND (refusal <> '' OR id IN (SELECT id FROM bulk_query_job))"
            " ORDER BY rowid",
            (job.id,),
        ).fetchall()
        return [self.batch(job, row["id"]) for row in rows]

    def batch(self, job: BatchJob, batch_id: str) -> Batch:
        """Return a batch as far as it is.

        Raises:
            OrgError: 400 InvalidBatch.
        """
        found = "SELECT * FROM batch WHERE job = ? AND id = ?"
        row = self._connection.execute(found, (job.id, batch_id)).fetchone()
        if row is None:
            raise OrgError(400, "InvalidBatch", f"Invalid batch id: {batch_id}")
        if row["refusal"]:
            state, message, changed_ms, rows = "Failed", row["refusal"], row["made_ms"], 0
        else:
            query = self._query(batch_id)
            state, message, changed_ms, rows = _STATES[query.state], query.error, query.changed_ms, query.rows
        return Batch(
            id=batch_id,
            job=job.id,
            state=state,
            message=message,
            made_ms=row["made_ms"],
            changed_ms=changed_ms,
            rows=rows,
        )

    def step(self, job: BatchJob) -> bool:
        """Read the next slice that is due of the job's batches, and tell whether another one is."""
        due = [batch.id for batch in self.batches(job) if batch.state in ("Queued", "InProgress")]
        return any(self._queries.step(batch_id) for batch_id in due)

    def lines(self, batch: Batch) -> list[bytes]:
        """Return the header and every row of a batch."""
        return self._queries.page(self._query(batch.id), 0, batch.rows)

    def _query(self, batch_id: str) -> Job:
        try:
            return self._queries.get(batch_id)
        except OrgError as error:
            raise OrgError(400, "InvalidBatch", f"Invalid batch id: {batch_id}") from error

    def _forget_old(self) -> None:
        self._connection.execute(
            "DELETE FROM batch_job WHERE made_ms < ? OR id IN ("
            " SELECT id FROM batch_job ORDER BY made_ms DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (self._context.clock.now_ms() - KEPT_MS, MOST_JOBS - 1),
        )
        self._connection.execute("DELETE FROM batch WHERE job NOT IN (SELECT id FROM batch_job)")
