"""Bulk query jobs: what they are, how far they are, and the rows they have read."""

from dataclasses import dataclass
from typing import Any

from connector.devorg.clock import rest_datetime, stamp, wall_ms
from connector.devorg.context import Context
from connector.devorg.errors import OrgError
from connector.devorg.rest.query import read, run
from connector.devorg.rest.results import ResultStore, new_id
from connector.devorg.soql.compile import Plan, compile_query, install
from connector.devorg.soql.parse import parse
from connector.devorg.soql.render import CsvWriter

DELIMITERS = {"BACKQUOTE": "`", "CARET": "^", "COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
UNFINISHED = ("UploadComplete", "InProgress")
KEPT_MS = 7 * 24 * 3600 * 1000
MOST_JOBS = 1_000
"""Jobs kept at a time, a bound of this org; the oldest go first, with their results."""

SLICE_ROWS = 2_000
_HEADER = -1  # number of the header among a result's rows
_SELECT_ORDER_SINCE = 50.0
_TABLE = """
CREATE TABLE IF NOT EXISTS bulk_query_job (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, operation TEXT NOT NULL, query TEXT NOT NULL, object TEXT NOT NULL,
    delimiter TEXT NOT NULL, ending TEXT NOT NULL, version REAL NOT NULL, chunked INTEGER NOT NULL,
    state TEXT NOT NULL, error TEXT NOT NULL, made_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL,
    started_ms INTEGER NOT NULL, expected INTEGER NOT NULL, rows INTEGER NOT NULL, last_id TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the table of jobs.

    Attributes:
        chunked: Read in slices by id, at different moments; else by one statement at its end.
        made_ms: By the org's clock, like `changed_ms`.
        started_ms: Real time.
        expected: Rows there were when the job was made.
        rows: Read until now, the last of them the record `last_id`.
    """

    id: str
    user_id: str
    operation: str
    query: str
    object: str
    delimiter: str
    ending: str
    version: float
    chunked: int
    state: str
    error: str
    made_ms: int
    changed_ms: int
    started_ms: int
    expected: int
    rows: int
    last_id: str

    def created(self) -> dict[str, Any]:
        """Return the answer to the job's creation."""
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
            "lineEnding": self.ending,
            "columnDelimiter": self.delimiter,
        }

    def info(self) -> dict[str, Any]:
        """Return the answer to a look at the job."""
        until = self.changed_ms if self.state not in UNFINISHED else self.made_ms
        progress = {
            "jobType": "V2Query",
            "numberRecordsProcessed": self.rows,
            "retries": 0,
            "totalProcessingTime": until - self.made_ms,
            "isPkChunkingSupported": bool(self.chunked),
        }
        failure = {"errorMessage": self.error} if self.error else {}
        return self.created() | progress | failure


class BulkJobs:
    """The table of jobs. A job reads on whenever it is looked at, as far as its time allows.

    `bulk_job_s` seconds after its creation it has read everything. Before that it has read the share that fits
    the time passed, in slices of ids: rows changed meanwhile appear old or new, as in a real job, which is no
    snapshot either. Two readers may take turns in one job: no method spans an `await`.
    """

    def __init__(self, context: Context, key_prefix: str = "750") -> None:
        self._context = context
        self._key_prefix = key_prefix
        self._database = context.database
        self._connection = context.database.connection
        self._connection.executescript(_TABLE)
        self._results = ResultStore(context.database)
        install(self._connection)

    def create(self, user_id: str, operation: str, query: str, *, delimiter: str, ending: str, version: float) -> Job:
        """Make a job.

        Raises:
            OrgError: The query is refused.
        """
        plan = self._plan(query, operation)
        now_ms = self._context.clock.now_ms()
        job = Job(
            id=new_id(self._key_prefix),
            user_id=user_id,
            operation=operation,
            query=query,
            object=plan.object.name,
            delimiter=delimiter,
            ending=ending,
            version=version,
            chunked=int(not plan.ordered),
            state="UploadComplete",
            error="",
            made_ms=now_ms,
            changed_ms=now_ms,
            started_ms=wall_ms(),
            expected=read(self._context, *plan.count())[0][0],
            rows=0,
            last_id="",
        )
        with self._database.transaction():
            self._forget_old()
            self._database.insert("bulk_query_job", {name: getattr(job, name) for name in Job.__slots__})
            self._results.append(job.id, _HEADER, [self._writer(job, plan).header()])
        return job

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            OrgError: 404 NOT_FOUND.
        """
        row = self._connection.execute("SELECT * FROM bulk_query_job WHERE id = ?", (job_id,)).fetchone()
        if row is None or not job_id.startswith(self._key_prefix):
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        return Job(**row)

    def all(self) -> list[Job]:
        """Return every job, the newest first."""
        rows = self._connection.execute("SELECT * FROM bulk_query_job ORDER BY made_ms DESC, rowid DESC")
        return [Job(**row) for row in rows if row["id"].startswith(self._key_prefix)]

    def step(self, job_id: str) -> bool:
        """Read the next slice of a job if one is due, and tell whether another one is.

        Raises:
            OrgError: 404 NOT_FOUND.
        """
        job = self.get(job_id)
        if job.state not in UNFINISHED:
            return False
        share = self._share(job)
        if share < 1 and (not job.chunked or job.rows >= job.expected * share):
            if job.state != "InProgress":
                self._change(job, state="InProgress")
            return False
        try:
            plan = self._plan(job.query, job.operation)
        except OrgError as error:  # the schema has changed since
            self._change(job, state="Failed", error=f"{error.code}: {error.message}")
            return False
        with self._database.transaction():
            return self._read_on(job, plan, last=share >= 1)

    def abort(self, job_id: str) -> Job:
        """Stop a job.

        Raises:
            OrgError: There is none (404 NOT_FOUND), or it has ended (400 INVALIDJOBSTATE).
        """
        job = self.get(job_id)
        if job.state == "JobComplete":
            raise OrgError(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
        if job.state not in UNFINISHED:
            raise OrgError(400, "INVALIDJOBSTATE", f"Aborting already {job.state} Job not allowed")
        self._change(job, state="Aborted")
        return self.get(job_id)

    def delete(self, job_id: str) -> None:
        """Forget an ended job and its results.

        Raises:
            OrgError: There is none (404 NOT_FOUND), or it has not ended (400 INVALIDJOBSTATE).
        """
        job = self.get(job_id)
        if job.state in UNFINISHED:
            raise OrgError(400, "INVALIDJOBSTATE", f"Deleting {job.state} Job not allowed")
        with self._database.transaction():
            self._drop(job_id)

    def page(self, job: Job, first: int, count: int) -> list[bytes]:
        """Return the header and at most `count` lines of a job's results."""
        return [*self._results.read(job.id, _HEADER, 1), *self._results.read(job.id, first, count)]

    def _plan(self, query: str, operation: str) -> Plan:
        tree = parse(query)
        plan = compile_query(tree, self._context.schema, include_deleted=operation == "queryAll")
        if plan.selection is None or plan.selection.aggregates:
            raise _unsupported("Aggregate functions")
        if plan.selection.compounds:
            raise _unsupported("Selecting compound data")
        if plan.offset:
            raise _unsupported("OFFSET")
        return plan

    def _share(self, job: Job) -> float:
        """Return which part of a job's time has passed, 1 or more once it is over."""
        lasts_ms = self._context.settings.bulk_job_s * 1000
        return max(0, wall_ms() - job.started_ms) / lasts_ms if lasts_ms else 1

    def _read_on(self, job: Job, plan: Plan, *, last: bool) -> bool:
        if job.chunked:
            rows = read(self._context, *plan.slice_after(job.last_id, SLICE_ROWS))
        else:
            rows = run(self._context, plan)
        self._results.append(job.id, job.rows, self._writer(job, plan).lines(rows))
        more = bool(job.chunked) and len(rows) == SLICE_ROWS
        # The first column of every statement is the record's id.
        last_id = rows[-1][0] if rows else job.last_id
        state = "JobComplete" if last and not more else "InProgress"
        self._change(job, state=state, rows=job.rows + len(rows), last_id=last_id)
        return more

    def _writer(self, job: Job, plan: Plan) -> CsvWriter:
        leaves = plan.selection.leaves if plan.selection else ()
        if job.version < _SELECT_ORDER_SINCE:
            leaves = tuple(sorted(leaves, key=lambda leaf: leaf.name))
        return CsvWriter(leaves, DELIMITERS[job.delimiter], ENDINGS[job.ending])

    def _change(self, job: Job, **values: object) -> None:
        settings = ", ".join(f"{name} = ?" for name in values)
        # The names are keywords of this module.
        statement = f"UPDATE bulk_query_job SET {settings}, changed_ms = ? WHERE id = ?"  # noqa: S608
        self._connection.execute(statement, (*values.values(), self._context.clock.now_ms(), job.id))

    def _forget_old(self) -> None:
        oldest_ms = self._context.clock.now_ms() - KEPT_MS
        old = self._connection.execute(
            "SELECT id FROM bulk_query_job WHERE made_ms < ? OR id IN ("
            " SELECT id FROM bulk_query_job ORDER BY made_ms DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (oldest_ms, MOST_JOBS - 1),
        ).fetchall()
        for row in old:
            self._drop(row["id"])

    def _drop(self, job_id: str) -> None:
        self._results.drop(job_id)
        self._connection.execute("DELETE FROM bulk_query_job WHERE id = ?", (job_id,))


def _unsupported(what: str) -> OrgError:
    return OrgError(400, "FUNCTIONALITY_NOT_ENABLED", f"{what} not supported in Bulk Query")
