"""Bulk ingest jobs: what they are, the data uploaded to them, and the records they write."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from connector.devorg.clock import rest_datetime, stamp, wall_ms
from connector.devorg.context import Context
from connector.devorg.errors import OrgError
from connector.devorg.ids import is_id, normal_id
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.records.transaction import Transaction
from connector.devorg.rest.bulk_jobs import DELIMITERS, ENDINGS, KEPT_MS, MOST_JOBS
from connector.devorg.rest.ingest_rows import BatchError, check_header, error_text, lines, read_rows, take, values_of
from connector.devorg.rest.results import new_id

CHUNK_ROWS = 200
"""Records that are written in one transaction. Source: Apex Developer Guide, "Triggers": 200 at a time."""

BATCH_ROWS = 10_000
UNENDED = ("Open", "UploadComplete", "InProgress")
ENDED = ("JobComplete", "Failed", "Aborted")
_TABLES = """
CREATE TABLE IF NOT EXISTS bulk_ingest_job (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, origin TEXT NOT NULL, operation TEXT NOT NULL, object TEXT NOT NULL,
    external_id TEXT NOT NULL, delimiter TEXT NOT NULL, ending TEXT NOT NULL, version REAL NOT NULL,
    state TEXT NOT NULL, error TEXT NOT NULL, made_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
    closed_ms INTEGER NOT NULL, header TEXT NOT NULL, rows INTEGER NOT NULL, done INTEGER NOT NULL,
    failed INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS bulk_ingest_data (job TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS bulk_ingest_row (
    job TEXT NOT NULL, number INTEGER NOT NULL, given TEXT NOT NULL, outcome TEXT NOT NULL, record_id TEXT NOT NULL,
    told TEXT NOT NULL, PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
"""
# Results come in another order than the rows were uploaded in; none is promised.
_SHUFFLED = "(number * 2654435761) % 4294967296"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestJob:
    """One row of the table of jobs.

    Attributes:
        origin: `changeOrigin` of the events of what it writes.
        external_id: Field of an upsert, else empty.
        closed_ms: Real time at which its data was complete; 0 before.
        header: Names of the columns, as JSON.
        rows: Rows uploaded; known once the job is at work.
        done: Of these those written or refused.
        failed: Of these those refused.
    """

    id: str
    user_id: str
    origin: str
    operation: str
    object: str
    external_id: str
    delimiter: str
    ending: str
    version: float
    state: str
    error: str
    made_ms: int
    changed_ms: int
    closed_ms: int
    header: str
    rows: int
    done: int
    failed: int

    def created(self) -> dict[str, Any]:
        """Return the answer to the job's creation, or to a change of its state."""
        place = {"contentUrl": f"services/data/v{self.version}/jobs/ingest/{self.id}/batches"}
        key = {"externalIdFieldName": self.external_id} if self.external_id else {}
        return {
            "id": self.id,
            "operation": self.operation,
            "object": self.object,
            "createdById": self.user_id,
            "createdDate": rest_datetime(stamp(self.made_ms)),
            "systemModstamp": rest_datetime(stamp(self.changed_ms)),
            "state": self.state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": self.version,
            **(place if self.state == "Open" else {}),
            **key,
            "lineEnding": self.ending,
            "columnDelimiter": self.delimiter,
        }

    def info(self) -> dict[str, Any]:
        """Return the answer to a look at the job."""
        took_ms = self.changed_ms - self.made_ms if self.state in ENDED else 0
        progress = {
            "jobType": "V2Ingest",
            "numberRecordsProcessed": self.done,
            "numberRecordsFailed": self.failed,
            "retries": 0,
            "totalProcessingTime": took_ms,
            "apiActiveProcessingTime": took_ms,
            "apexProcessingTime": 0,
        }
        return self.created() | progress | ({"errorMessage": self.error} if self.error else {})


class IngestJobs:
    """The table of jobs. A step writes one chunk in one transaction with what became of each of its rows.

    So a job that is cut off by a crash goes on where it was, and no row is written twice.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._database = context.database
        self._connection = context.database.connection
        self._connection.executescript(_TABLES)

    def create(self, user_id: str, origin: str, version: float, order: dict[str, str]) -> IngestJob:
        """Make a job.

        Raises:
            OrgError: The object is unknown, or the field is no external id.
        """
        schema = self._context.schema.require(order["object"])
        external_id = _external_id(schema, order)
        now_ms = self._context.clock.now_ms()
        job = IngestJob(
            id=new_id("750"),
            user_id=user_id,
            origin=origin,
            operation=order["operation"],
            object=schema.name,
            external_id=external_id,
            delimiter=order["columnDelimiter"],
            ending=order["lineEnding"],
            version=version,
            state="Open",
            error="",
            made_ms=now_ms,
            changed_ms=now_ms,
            closed_ms=0,
            header="[]",
            rows=0,
            done=0,
            failed=0,
        )
        with self._database.transaction():
            self._forget_old()
            self._database.insert("bulk_ingest_job", {name: getattr(job, name) for name in IngestJob.__slots__})
        return job

    def get(self, job_id: str) -> IngestJob:
        """Return a job.

        Raises:
            OrgError: 404 NOT_FOUND.
        """
        row = self._connection.execute("SELECT * FROM bulk_ingest_job WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        return IngestJob(**row)

    def all(self) -> list[IngestJob]:
        """Return every job, the newest first."""
        rows = self._connection.execute("SELECT * FROM bulk_ingest_job ORDER BY made_ms DESC, rowid DESC")
        return [IngestJob(**row) for row in rows]

    def at_work(self) -> list[str]:
        """Return the ids of the jobs that have rows to write, the oldest first."""
        rows = self._connection.execute(
            "SELECT id FROM bulk_ingest_job WHERE state IN ('UploadComplete', 'InProgress') ORDER BY closed_ms, rowid"
        )
        return [row["id"] for row in rows]

    def upload(self, job_id: str, body: bytes) -> None:
        """Take the data of an open job; it can be given once.

        Raises:
            OrgError: There is no such job (404), or it takes no data (400 INVALIDJOBSTATE).
        """
        job = self.get(job_id)
        known = self._connection.execute("SELECT 1 FROM bulk_ingest_data WHERE job = ?", (job_id,)).fetchone()
        if job.state != "Open" or known is not None:
            raise _wrong_state(f"Found multiple contents for job: <{job_id}>" if known else "The job is not open")
        self._connection.execute("INSERT INTO bulk_ingest_data VALUES (?, ?)", (job_id, body))

    def close(self, job_id: str) -> IngestJob:
        """Begin with what was uploaded.

        Raises:
            OrgError: There is no such job (404), it is not open, or nothing was uploaded (400 INVALIDJOBSTATE).
        """
        job = self.get(job_id)
        found = self._connection.execute("SELECT body FROM bulk_ingest_data WHERE job = ?", (job_id,)).fetchone()
        if job.state != "Open" or found is None:
            raise _wrong_state(f"The job is {job.state}" if job.state != "Open" else "No data was uploaded")
        with self._database.transaction():
            self._connection.execute("DELETE FROM bulk_ingest_data WHERE job = ?", (job_id,))
            try:
                self._take_rows(job, found["body"])
            except BatchError as error:
                self._change(job_id, state="Failed", error=str(error), closed_ms=wall_ms())
        return self.get(job_id)

    def _take_rows(self, job: IngestJob, body: bytes) -> None:
        header, *rows = read_rows(body, DELIMITERS[job.delimiter], job.ending)
        check_header(header, self._context.schema.require(job.object), job.operation)
        self._connection.executemany(
            "INSERT INTO bulk_ingest_row VALUES (?, ?, ?, '', '', '')",
            ((job.id, number, orjson.dumps(row).decode()) for number, row in enumerate(rows)),
        )
        self._context.usage.bulk_batches.add(-(-len(rows) // BATCH_ROWS))
        self._change(
            job.id, state="UploadComplete", header=orjson.dumps(header).decode(), rows=len(rows), closed_ms=wall_ms()
        )

    def abort(self, job_id: str) -> IngestJob:
        """Stop a job; what it has written stays.

        Raises:
            OrgError: There is none (404 NOT_FOUND), or it has ended (400 INVALIDJOBSTATE).
        """
        job = self.get(job_id)
        if job.state in ENDED:
            raise _wrong_state(f"Aborting already {job.state} Job not allowed")
        self._change(job_id, state="Aborted")
        return self.get(job_id)

    def delete(self, job_id: str) -> None:
        """Forget an ended job, its data and its results.

        Raises:
            OrgError: There is none (404 NOT_FOUND), or it has not ended (400 INVALIDJOBSTATE).
        """
        if self.get(job_id).state not in ENDED:
            raise _wrong_state("Only a job that has ended can be deleted")
        with self._database.transaction():
            self._drop(job_id)

    def step(self, job_id: str) -> bool:
        """Write the next chunk of a job if one is due, and tell whether another one is.

        `bulk_job_s` seconds after its data was complete all of a job is due, before that the share of the time passed.
        """
        job = self.get(job_id)
        lasts_ms = self._context.settings.bulk_job_s * 1000
        share = max(0, wall_ms() - job.closed_ms) / lasts_ms if lasts_ms else 1
        chunk_end = min(job.done + CHUNK_ROWS, job.rows)
        if job.state not in UNENDED or (share < 1 and chunk_end > job.rows * share):
            return False
        self._write_chunk(job)
        return job.done + CHUNK_ROWS < job.rows

    def _write_chunk(self, job: IngestJob) -> None:
        rows = self._connection.execute(
            "SELECT number, given FROM bulk_ingest_row WHERE job = ? AND outcome = '' ORDER BY number LIMIT ?",
            (job.id, CHUNK_ROWS),
        ).fetchall()
        with self._context.org.transaction(job.user_id, job.origin) as transaction:
            told = _Chunk(job, self._context.schema.require(job.object), transaction).write(
                [orjson.loads(row["given"]) for row in rows]
            )
            self._connection.executemany(
                "UPDATE bulk_ingest_row SET outcome = ?, record_id = ?, told = ? WHERE job = ? AND number = ?",
                ((*one, job.id, row["number"]) for one, row in zip(told, rows, strict=True)),
            )
            done = job.done + len(rows)
            failed = job.failed + sum(outcome == "failed" for outcome, _, _ in told)
            state = "JobComplete" if done >= job.rows else "InProgress"
            self._change(job.id, state=state, done=done, failed=failed)

    def results(self, job: IngestJob, outcome: str) -> bytes:
        """Return the rows that were `written`, `failed`, or (empty) never tried, as CSV.

        Raises:
            OrgError: The job has not ended (400 INVALIDJOBSTATE).
        """
        if job.state not in ENDED:
            raise _wrong_state(f"The job has no results: it is in the state {job.state}")
        rows = self._connection.execute(
            # The order is a constant of this module.
            "SELECT given, record_id, told FROM bulk_ingest_row WHERE job = ? AND outcome = ?"  # noqa: S608
            f" ORDER BY {_SHUFFLED}",
            (job.id, outcome),
        )
        added = {"written": ["sf__Id", "sf__Created"], "failed": ["sf__Id", "sf__Error"], "": []}[outcome]
        found = [[*added, *orjson.loads(job.header)]]
        for row in rows:
            own = [row["record_id"], row["told"]] if added else []
            found.append([*own, *orjson.loads(row["given"])])
        return lines(found, DELIMITERS[job.delimiter], ENDINGS[job.ending])

    def _change(self, job_id: str, **values: object) -> None:
        settings = ", ".join(f"{name} = ?" for name in values)
        # The names are keywords of this module.
        statement = f"UPDATE bulk_ingest_job SET {settings}, changed_ms = ? WHERE id = ?"  # noqa: S608
        self._connection.execute(statement, (*values.values(), self._context.clock.now_ms(), job_id))

    def _forget_old(self) -> None:
        oldest_ms = self._context.clock.now_ms() - KEPT_MS
        old = self._connection.execute(
            "SELECT id FROM bulk_ingest_job WHERE made_ms < ? OR id IN ("
            " SELECT id FROM bulk_ingest_job ORDER BY made_ms DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (oldest_ms, MOST_JOBS - 1),
        ).fetchall()
        for row in old:
            self._drop(row["id"])

    def _drop(self, job_id: str) -> None:
        self._connection.execute("DELETE FROM bulk_ingest_data WHERE job = ?", (job_id,))
        self._connection.execute("DELETE FROM bulk_ingest_row WHERE job = ?", (job_id,))
        self._connection.execute("DELETE FROM bulk_ingest_job WHERE id = ?", (job_id,))


Told = tuple[str, str, str]
"""Outcome of a row (`written`, `failed`), the record's id, and `sf__Created` or `sf__Error`."""


class _Chunk:
    """Rows that are written in one transaction, each by itself: one that is refused leaves the others alone."""

    def __init__(self, job: IngestJob, schema: ObjectSchema, transaction: Transaction) -> None:
        self._job = job
        self._schema = schema
        self._transaction = transaction
        self._header: Sequence[str] = orjson.loads(job.header)
        self._write_one: dict[str, Callable[[dict[str, Any]], tuple[str, bool]]] = {
            "insert": self._insert,
            "update": self._update,
            "upsert": self._upsert,
            "delete": self._delete,
            "hardDelete": self._delete,
        }
        self._keys: Counter[str] = Counter()

    def write(self, rows: Sequence[Sequence[str]]) -> list[Told]:
        """Write the rows; what became of each."""
        if self._job.external_id:
            place = [name.lower() for name in self._header].index(self._job.external_id.lower())
            self._keys.update(row[place].strip().casefold() for row in rows if row[place])
        return [self._told(row) for row in rows]

    def _told(self, row: Sequence[str]) -> Told:
        given_id = next((v for n, v in zip(self._header, row, strict=True) if n.lower() == "id"), "")
        try:
            record_id, created = self._write_one[self._job.operation](values_of(self._schema, self._header, row))
        except OrgError as error:
            return "failed", given_id, error_text(error)
        return "written", record_id, "true" if created else "false"

    def _insert(self, values: dict[str, Any]) -> tuple[str, bool]:
        return self._transaction.create(self._schema.name, values), True

    def _update(self, values: dict[str, Any]) -> tuple[str, bool]:
        record_id = self._id(values, "update")
        self._transaction.update(self._schema.name, record_id, values)
        return normal_id(record_id), False

    def _upsert(self, values: dict[str, Any]) -> tuple[str, bool]:
        field = self._job.external_id
        key = take(values, field)
        if key is None:
            raise OrgError(400, "MISSING_ARGUMENT", f"{field} not specified", [field])
        if self._keys[str(key).strip().casefold()] > 1:
            raise OrgError(400, "DUPLICATE_VALUE", f"Duplicate external id specified: {key}", [field])
        return self._transaction.upsert(self._schema.name, field, key, values)

    def _delete(self, values: dict[str, Any]) -> tuple[str, bool]:
        record_id = self._id(values, "delete")
        self._transaction.delete(self._schema.name, record_id)
        if self._job.operation == "hardDelete":
            self._transaction.purge(self._schema.name, record_id)
        return normal_id(record_id), False

    def _id(self, values: dict[str, Any], call: str) -> str:
        record_id = take(values, "Id")
        if not record_id:
            raise OrgError(400, "MISSING_ARGUMENT", f"Id not specified in an {call} call")
        if not is_id(record_id):
            raise OrgError(400, "MALFORMED_ID", f"malformed id {record_id}")
        return str(record_id)


def _external_id(schema: ObjectSchema, order: dict[str, str]) -> str:
    """Return the external id field of an upsert, spelled as in the schema; empty for everything else."""
    name = order.get("externalIdFieldName", "")
    if order["operation"] != "upsert":
        return ""
    field = schema.field(name) if name else None
    if field is None or not (field.external_id or field.id_lookup):
        raise OrgError(400, "INVALIDJOB", f"InvalidJob : Field name provided, {name} does not match an External ID")
    return field.name


def _wrong_state(message: str) -> OrgError:
    return OrgError(400, "INVALIDJOBSTATE", message)
