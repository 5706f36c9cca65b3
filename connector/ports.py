"""The seams: what the ways (`inbound/`, `outbound/`, `serve/`) ask of the doors (`salesforce/`, `mesh/`, `store/`).

`app.py` hands each way the doors it needs. Errors are those of `errors.py`: a door translates its libraries' own.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from connector.errors import LinkDown, PoisonError, TransientError
from connector.model.change import Change, Operation, Origin, Reached, ReceivedEvent, ReplayId, Subscribed
from connector.model.command import Command, CommandStatus, IngestJob, IngestKind, OrgProblem
from connector.model.history import History
from connector.model.ids import RecordId
from connector.model.message import Delivery, Message, OutboxMessage
from connector.model.noun import dataclass
from connector.model.objects import ObjectColumns, ObjectSpec
from connector.model.query import EVERYTHING, Page, Where
from connector.model.record import ReadPage, StoredRecord

T = TypeVar("T")


# --- salesforce/ ------------------------------------------------------------------------------------------------


class Purpose(StrEnum):
    """What an API call is for; the budget counts and grants by it."""

    COMMAND = "command"
    REPAIR = "repair"
    CATCH_UP = "catch_up"
    VERIFY = "verify"
    LOAD = "load"


class ChangeSource(Protocol):
    """A stream of change events."""

    def events(self, after: ReplayId | None) -> AsyncIterator[Subscribed | Reached | Sequence[ReceivedEvent]]:
        """Yield `Subscribed` once, then events in commit order from just behind `after`; does not end by itself.

        Events that arrived together come together; a position that the org tells without an event is `Reached`. `after`
        None asks for new events only, `OLDEST_KEPT` for all that the org keeps.

        Raises:
            LinkDown: The stream broke, fell silent or our backlog was full; call again with the cursor.
            ReplayWindowLost: `after` is older than the retention window or unknown.
            OrgThrottled: A limit of the org (clients, delivered events); wait `retry_after_s`.
            OrgRefused: The channel cannot be subscribed; a person must change something. Poll meanwhile.
            LoginRefused: The credentials are refused.
        """
        ...

    def more(self, events: int) -> None:
        """The org may send so many more events: as many are applied, or wait for the rest of their transaction."""
        ...


@dataclass(frozen=True, slots=True)
class QueryPage:
    """One page of a query's answer.

    Attributes:
        records: Rows as the REST API gives them (with `attributes`), not validated.
        next_url: Where the next page is; None at the end.
        total_count: Size of the whole result.
        server_ms: The org's clock when it answered (HTTP `Date`), milliseconds since the Unix epoch, UTC.
    """

    records: Sequence[Mapping[str, Any]]
    next_url: str | None
    total_count: int
    server_ms: int


@dataclass(frozen=True, slots=True)
class BulkJob:
    """A Bulk API 2.0 query or ingest job.

    Attributes:
        state: UploadComplete, InProgress, JobComplete, Failed or Aborted; of an ingest job also Open.
        error: The org's message where it failed.
        processed_count: Records that it has written or refused; None where the org does not tell.
        server_ms: The org's clock when it answered, milliseconds since the Unix epoch, UTC; None if not told.
    """

    id: str
    state: str
    error: str | None = None
    processed_count: int | None = None
    server_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BulkPage:
    """One page of a Bulk job's result.

    Attributes:
        columns: Names in the order of the rows' values.
        rows: Text as in the CSV; an empty value may stand for null or for an empty string.
        locator: Of the next page; None at the end.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    locator: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordWrite:
    """One write to one record.

    Attributes:
        record_id: For update and delete.
        external_id: (field, value) for upsert.
        if_unmodified_since_ms: Of an update: refuse it if the record was modified later; whole seconds count.
        only_if: SOQL condition under which an update or delete may be made; for `write_many`, which knows no other.
    """

    object: str
    operation: str
    fields: Mapping[str, Any]
    record_id: RecordId | None = None
    external_id: tuple[str, str] | None = None
    if_unmodified_since_ms: int | None = None
    only_if: str | None = None


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What became of one write.

    Attributes:
        id: The record's id where the org told it.
        errors: Empty if the org took the write.
        created: For an upsert: True if the record is new.
        status: HTTP status that stands for the outcome (412: the condition was not met).
        server_ms: The org's clock when it answered, milliseconds since the Unix epoch, UTC; None if not told.
    """

    id: RecordId | None
    errors: tuple[OrgProblem, ...] = ()
    created: bool | None = None
    status: int = 200
    server_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OrgRefusal:
    """The refusal of one of several queries.

    Attributes:
        status: HTTP status of the part.
    """

    status: int
    errors: tuple[OrgProblem, ...]


class OrgClient(Protocol):
    """The org's REST and Bulk API. Every method may raise TransientError, OrgRefused or LoginRefused.

    A call that found its token expired is repeated once with a new one and the same headers.
    """

    async def describe(self, name: str, purpose: Purpose) -> Mapping[str, Any]:
        """The describe result of an object."""
        ...

    async def query(self, soql: str, purpose: Purpose, *, deleted: bool = False) -> QueryPage:
        """First page of a query; `deleted` includes the recycle bin."""
        ...

    async def query_more(self, next_url: str, purpose: Purpose) -> QueryPage:
        """A further page."""
        ...

    async def query_many(
        self, soql: Sequence[str], purpose: Purpose, *, deleted: bool = False
    ) -> Sequence[QueryPage | OrgRefusal]:
        """First pages of several queries for as few API calls as possible, in order; a refused one is its refusal."""
        ...

    async def retrieve(
        self, name: str, ids: Sequence[RecordId], fields: Sequence[str], purpose: Purpose
    ) -> Sequence[Mapping[str, Any] | None]:
        """Records by id in the order of `ids`, None where deleted or unknown; at most 2,000 ids."""
        ...

    async def start_bulk_query(self, soql: str, purpose: Purpose) -> BulkJob:
        """Start a Bulk API 2.0 query job."""
        ...

    async def bulk_job(self, job_id: str, purpose: Purpose) -> BulkJob:
        """State of a job. OrgRefused with 404 if the org no longer has it."""
        ...

    async def bulk_page(self, job_id: str, locator: str | None, purpose: Purpose) -> BulkPage:
        """One page of the result of a complete job."""
        ...

    async def delete_bulk_job(self, job_id: str, purpose: Purpose) -> None:
        """Remove a finished job and its result."""
        ...

    async def write(self, write: RecordWrite) -> WriteOutcome:
        """Write one record; the answer's errors are in the outcome, not raised.

        Raises:
            LinkDown: The answer was lost: the org may or may not have taken the write.
            OrgUnavailable, OrgThrottled, RowLocked: The org did not take it; the same write may succeed later.
        """
        ...

    async def write_many(self, writes: Sequence[RecordWrite]) -> Sequence[WriteOutcome | TransientError]:
        """Write records with as few calls as they fit into; what became of each, in order.

        No two writes may be of the same record. Each is taken or refused by itself, but where one of several guarded
        ones (`only_if`) does not meet its condition, those beside it are not made either (`PROCESSING_HALTED`). A
        failed call is the outcome of its own writes alone, with the meaning it has for `write`.
        """
        ...

    async def user_id(self) -> RecordId | None:
        """The user as whom we write; None where the login does not tell."""
        ...

    def clock_ms(self) -> int | None:
        """The org's clock now, to about a second, whatever ours is set to; None before its first answer."""
        ...

    async def hear_clock(self) -> None:
        """Have the org tell its clock, unless it has told it before: for one API call."""
        ...

    async def limits(self, purpose: Purpose) -> Mapping[str, Any]:
        """The org's limits resource."""
        ...


class IngestClient(Protocol):
    """The org's Bulk API 2.0 for writes. Every method but the first may raise as those of `OrgClient`.

    A job is made, given its records once, and closed; from then on the org works on it.
    """

    def takes(self, write: RecordWrite) -> bool:
        """May the write go by a job? Not one under a condition, nor one whose values its CSV cannot hold."""
        ...

    async def start(self, kind: IngestKind) -> BulkJob:
        """Make a job."""
        ...

    async def upload(self, job_id: str, kind: IngestKind, writes: Sequence[RecordWrite]) -> None:
        """Give a job its records, all of its kind."""
        ...

    async def close(self, job_id: str) -> None:
        """Have the org begin."""
        ...

    async def abort(self, job_id: str) -> None:
        """Have the org stop; OrgRefused if the job has ended."""
        ...

    async def job(self, job_id: str) -> BulkJob:
        """State of a job. RecordGone if the org no longer has it."""
        ...

    async def outcomes(
        self, job_id: str, kind: IngestKind, writes: Sequence[RecordWrite]
    ) -> Sequence[WriteOutcome | TransientError]:
        """What became of each write of a job that has ended, in order.

        OrgUnavailable: the org says that it did not try it. LinkDown: none of the org's rows is this write's. Of
        writes that are equal in all they set it is only known how many were taken.
        """
        ...

    async def delete(self, job_id: str) -> None:
        """Remove an ended job and its results."""
        ...


# --- store/ -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DirtyRecord:
    """A record whose state in the org must be read again.

    Attributes:
        quarantine_id: The event that waits for it, or None.
    """

    object: str
    id: RecordId
    reason: str
    since_ms: int
    quarantine_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """An interval in which the replica may differ from the org.

    Attributes:
        to_ms: End of the interval; None while it goes on.
        closed_ms: When it was proved equal again; None while open.
        corrected: Records that the catch-up had to change.
    """

    id: int
    object: str
    from_ms: int
    to_ms: int | None
    reason: str
    opened_ms: int
    closed_ms: int | None
    corrected: int


class Unit(Protocol):
    """One transaction on the database thread: everything done in it is committed together or not at all.

    Synchronous on purpose: no transaction spans an `await`. Every unit must be safe to repeat.
    """

    # Objects and records
    def define(self, spec: ObjectSpec) -> None:
        """Make or alter the object's table so that it has a column per synced field, and its live view.

        A retyped column keeps no old values that do not fit; a removed field's column goes.
        """
        ...

    def extend_indexes(self, object_name: str, rows: int) -> bool:
        """Make one index of the object's, or take up to `rows` records into its text index; True if there is more."""
        ...

    def settle_index(self, object_name: str) -> None:
        """Tell the object's text index of the rows that wait for others; a search finds them in any case."""
        ...

    def records(self, spec: ObjectSpec, ids: Iterable[RecordId]) -> dict[RecordId, StoredRecord]:
        """Those of the records that are stored, deleted ones included."""
        ...

    def put(
        self,
        spec: ObjectSpec,
        records: Sequence[StoredRecord],
        *,
        stored: Mapping[RecordId, StoredRecord] | None = None,
    ) -> None:
        """Insert or replace records; `stored`: the rows that are there, as this unit has read them, where it has."""
        ...

    def insert_loaded(self, spec: ObjectSpec, page: ReadPage, at_ms: int) -> Collection[RecordId]:
        """Insert records as a first load brings them, in version 0; returns the ids of those that are left to be put.

        Left is what is stored already, whose rows stay as they are; or everything, where more than rows is to be kept.
        No id may come twice, and no record may be deleted.
        """
        ...

    def reset_deleted(self, spec: ObjectSpec) -> None:
        """Set the version of every deleted record to 0: what comes next on it is newer, whatever its version."""
        ...

    def count(self, spec: ObjectSpec) -> int:
        """Records that are not deleted."""
        ...

    def live_ids(
        self, spec: ObjectSpec, after: RecordId | None, upto: RecordId | None, limit: int
    ) -> Sequence[RecordId]:
        """Ids of records that are not deleted, ascending, behind `after` and up to and with `upto` (None: no bound)."""
        ...

    # Change log (it is also the outbox of changes)
    def append(self, changes: Sequence[Change]) -> int:
        """Number the changes in order, write them, and return the version of the last one.

        Versions have no holes; `changes[i]` gets `returned - len(changes) + 1 + i`.
        """
        ...

    def last_version(self) -> int:
        """The newest version; 0 if there is none."""
        ...

    def origin_of(self, version: int) -> Origin | None:
        """Where the change of this version came from; None if the log does not hold it (0, or trimmed)."""
        ...

    def changes(self, since: int, limit: int, object_name: str | None = None) -> Sequence[Change]:
        """Changes behind a version, of one object or of all, in version order, as far back as the log reaches."""
        ...

    def corrected(self, object_name: str, since: int) -> int:
        """Records of an object that were changed behind a version by what was read, not by what an event told."""
        ...

    def restart_log(self, version: int, at_ms: int) -> None:
        """Forget every change; the next one is `version` + 1. For a copy of another replica's log."""
        ...

    def unpublished(self, limit: int, beyond: int = 0) -> Sequence[Change]:
        """Oldest changes not yet marked as published, in version order, those up to version `beyond` left out."""
        ...

    def mark_published(self, version: int, at_ms: int) -> None:
        """All changes up to `version` were acknowledged by the broker."""
        ...

    # Outbox of everything else
    def enqueue(self, message: Message) -> None:
        """Publish `message` after every change that is already in the log."""
        ...

    def due(self, limit: int, beyond: int = 0) -> Sequence[OutboxMessage]:
        """Oldest messages whose changes are marked as published or not above `beyond`; reading deletes nothing."""
        ...

    def remove_messages(self, ids: Sequence[int]) -> None:
        """They were acknowledged by the broker."""
        ...

    # Positions
    def identity(self) -> str:
        """The id of this replica: made with the file, random, and never the same for a file that was made anew.

        Versions of two replicas cannot be compared.
        """
        ...

    def cursor(self, name: str) -> str | None:
        """The stored position, or None."""
        ...

    def set_cursor(self, name: str, value: str | None, at_ms: int) -> None:
        """Store a position; None forgets it."""
        ...

    # Records to read again, events that could not be applied, holes
    def mark_dirty(self, records: Iterable[DirtyRecord]) -> None:
        """Remember that these must be read again; a record already marked keeps its first reason."""
        ...

    def dirty(self, object_name: str, limit: int) -> Sequence[DirtyRecord]:
        """Oldest marked records of an object."""
        ...

    def clear_dirty(self, records: Iterable[DirtyRecord]) -> None:
        """They have been read; a mark set again since then (newer `since_ms`) stays."""
        ...

    def quarantine(self, object_name: str | None, replay_id: bytes, error: str, event: bytes, at_ms: int) -> int:
        """Keep an event that could not be applied as it was; returns its id. Their number is bounded."""
        ...

    def settle_quarantine(self, ids: Iterable[int], at_ms: int) -> None:
        """The records of these events have been read from the org instead."""
        ...

    def nameless_quarantine(self, object_name: str | None) -> Sequence[int]:
        """Unsettled events of the object that no record waits with; None: those whose object could not be read."""
        ...

    def open_hole(self, object_name: str, from_ms: int, reason: str, at_ms: int) -> Hole:
        """Open a hole, or widen the object's open one."""
        ...

    def close_hole(self, hole_id: int, to_ms: int, corrected: int, at_ms: int) -> Hole:
        """Close a hole with the number of records that had to be changed."""
        ...

    def open_holes(self, object_name: str | None = None) -> Sequence[Hole]:
        """Open holes, oldest first."""
        ...

    # Commands
    def add_command(self, command: Command, also: Sequence[str] = ()) -> Command | None:
        """Store a new command; if its id is known already, store nothing and return the stored one.

        `also`: further names of its record, see `external_key`.
        """
        ...

    def command(self, command_id: str) -> Command | None:
        """The stored command, or None."""
        ...

    def command_by_delivery(self, delivery_key: str, since_ms: int) -> Command | None:
        """The newest command accepted since then from a message with this key, or None."""
        ...

    def changed_since(self, object_name: str, record_id: RecordId, version: int) -> Mapping[str, Any] | None:
        """Fields that changed after `version`, each with its value before; None if the log does not reach back."""
        ...

    def version_at(self, object_name: str, record_id: RecordId, committed_ms: int) -> int:
        """Version of the record's newest change that the org committed until then; 0 if the log has none."""
        ...

    def next_commands(self, now_ms: int, limit: int) -> Sequence[Command]:
        """Accepted commands to be tried, oldest first.

        At most one per record: a command waits for every earlier unfinished one on its record, unless it has expired.
        """
        ...

    def commands_behind(self, command: Command, limit: int) -> Sequence[Command]:
        """Unfinished commands on the command's record that came after it, in order; none if its id is not known."""
        ...

    def followed(self, heads: Sequence[Command]) -> frozenset[RecordId]:
        """The records of those commands behind which other unfinished ones wait under the record's id."""
        ...

    def first_open(self, command: Command, also: Sequence[str] = ()) -> int | None:
        """`seq` of the oldest unfinished command on the record of a command that is not stored yet, or None."""
        ...

    def record_by_key(self, object_name: str, key: str) -> RecordId | None:
        """The record that a command found or made under this name (`external_key`, `command_key`), or None."""
        ...

    def written_between(
        self, object_name: str, record_id: RecordId, first_seq: int, before_seq: int
    ) -> Sequence[Command]:
        """Succeeded commands on the record with `first_seq` <= seq < `before_seq`, in order."""
        ...

    def unseen_writes(
        self, object_name: str, record_id: RecordId, modified_ms: int, since_ms: int
    ) -> Sequence[Command]:
        """In order: commands that succeeded since then and whose write a row modified at `modified_ms` lacks."""
        ...

    def unseen_records(self, object_name: str, ids: Sequence[RecordId], since_ms: int) -> frozenset[RecordId]:
        """Those of the records that commands have written since then whose change has not come back."""
        ...

    def overtaken_by(self, object_name: str, record_id: RecordId, seq: int) -> Sequence[Command]:
        """Later commands that have written to the record, or may have, in order."""
        ...

    def last_written_ms(self, object_name: str, record_id: RecordId, besides: str) -> int | None:
        """The org's clock at the newest write of ours to the record, those that the command `besides` carried apart."""
        ...

    def wait_no_longer(self, now_ms: int, until_ms: int) -> int:
        """Commands that were tried after `now_ms`, or whose retry is set for after `until_ms`, are due now.

        Returns how many.
        """
        ...

    def update_command(self, command: Command) -> None:
        """Store everything but what the command asks for.

        A record id that has become known becomes a name of the record for all that wait for it.
        """
        ...

    def begin_commands(self, commands: Sequence[Command]) -> None:
        """Store that the commands are being sent: their record, and what, when and how often; the rest stays."""
        ...

    def commands(self, status: CommandStatus | None, limit: int) -> Sequence[Command]:
        """Newest commands first, of one status or of all."""
        ...

    def open_creates(self, object_name: str) -> Sequence[Command]:
        """Creates that the org may have taken and whose answer is not there: under way, or lost; in order."""
        ...

    def claimed(self, object_name: str, ids: Iterable[RecordId]) -> frozenset[RecordId]:
        """Those of the ids that a create or upsert of ours has made, by its result or the change that came back."""
        ...

    def creations_seen(self, command_ids: Sequence[str]) -> Mapping[str, RecordId]:
        """Those of the commands whose creation of a record has come back, with the record."""
        ...

    def accepted_since(self, object_name: str, since_ms: int, limit: int, *, deletes: bool = False) -> int | None:
        """When the `limit`th newest command (delete) on the object was accepted, if that was after `since_ms`.

        None: fewer have been accepted since.
        """
        ...

    def awaiting_echo(self, object_name: str, ids: Sequence[RecordId], since_ms: int) -> Sequence[Command]:
        """Commands on the records, sent since then, that have not failed and whose change has not been seen yet.

        Oldest first; one that is being sent counts however old it is. Their `fields` are those that went to the org.
        """
        ...

    def awaiting_creation(self, object_name: str, since_ms: int) -> Sequence[Command]:
        """The same for commands whose record is not known yet."""
        ...

    def echo_seen(self, command_id: str, version: int) -> None:
        """The change of this version was the command's own, and that of those it carried; 0: none will come.

        Nor will one of what was written to the record before a change that was seen.
        """
        ...

    # Ingest jobs
    def fullest_kind(self, least: int) -> IngestKind | None:
        """What most of the waiting commands are that an ingest job may carry; None if there are fewer than `least`."""
        ...

    def next_of_kind(self, kind: IngestKind, now_ms: int, after_seq: int, limit: int) -> Sequence[Command]:
        """Commands for an ingest job that wait for no other, in order, from behind `after_seq`; at most one per record.

        Only those that were never tried.
        """
        ...

    def add_ingest_job(self, kind: IngestKind) -> IngestJob:
        """A job that the org has not made yet."""
        ...

    def ingest_job_made(self, job: IngestJob, job_id: str, opened_ms: int | None) -> IngestJob:
        """The org has made it."""
        ...

    def ingest_jobs(self) -> Sequence[IngestJob]:
        """Those under way, the oldest first."""
        ...

    def carried(self, job: IngestJob, after_seq: int, limit: int) -> Sequence[Command]:
        """The job's commands that are not settled, in order, from behind `after_seq`."""
        ...

    def remove_ingest_job(self, job: IngestJob) -> None:
        """None of its commands is open any more."""
        ...

    def interrupted(self, limit: int) -> Sequence[Command]:
        """Commands whose call was begun, in order; after a start, those that the last process did not settle."""
        ...

    # API calls
    def count_call(self, hour: str, purpose: str, calls: int) -> None:
        """Add to the calls of an hour (`2026-11-22T17`, UTC)."""
        ...

    def calls_since(self, hour: str) -> Mapping[str, int]:
        """Calls by purpose from that hour on."""
        ...

    def calls_by_hour(self, hour: str) -> Mapping[str, Mapping[str, int]]:
        """Calls by hour and purpose from that hour on."""
        ...

    def redate_calls(self, after: str, hour: str) -> None:
        """Count the calls of the hours behind `after` as those of `hour`."""
        ...

    # House-keeping
    def queue_depths(self) -> Mapping[str, int]:
        """Rows waiting, by queue: outbox, commands, quarantine, dirty."""
        ...

    def trim(self, now_ms: int, keep_deleted_ms: int, keep_changes_ms: int, limit: int) -> int:
        """Remove at most `limit` outdated rows (published changes, tombstones, settled rows); returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectFigures:
    """One object in figures.

    Attributes:
        records: Without the deleted ones.
        deleted: Tombstones.
    """

    records: int
    deleted: int


@dataclass(frozen=True, slots=True)
class CursorRow:
    """One stored position."""

    name: str
    value: str
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFigures:
    """The replica in figures, all of one moment.

    Attributes:
        version: The newest change's.
        published: Newest version that the broker has acknowledged.
        queues: Rows waiting in outbox, commands, quarantine, dirty.
        calls: API calls by purpose.
        holes: The open ones.
        commands: How many commands are stored, by status.
    """

    version: int
    published: int
    objects: Mapping[str, ObjectFigures]
    queues: Mapping[str, int]
    cursors: Sequence[CursorRow]
    calls: Mapping[str, int]
    holes: Sequence[Hole]
    commands: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What health tells of the replica, of one moment.

    Attributes:
        records: Of each object, without the deleted ones.
        queues: As in `ReplicaFigures`.
        holes: The open ones.
    """

    records: Mapping[str, int]
    queues: Mapping[str, int]
    holes: Sequence[Hole]


@dataclass(frozen=True, slots=True)
class Moved:
    """How far the replica has come: the newest version, and the newest one that the broker has."""

    version: int
    published: int


@dataclass(frozen=True, slots=True)
class Movement:
    """What happened between two looks.

    Attributes:
        applied: (second since the Unix epoch, changes applied in it), in order.
        lags: (second of its publishing, milliseconds since its commit in the org) of each change that was published.
    """

    upto: Moved
    applied: Sequence[tuple[int, int]]
    lags: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ChangeCount:
    """So many changes of one kind."""

    object: str
    operation: Operation
    origin: Origin
    count: int


class Replica(Protocol):
    """The SQLite database: one writer thread, transactions as functions."""

    async def run(self, work: Callable[[Unit], T]) -> T:
        """Run `work(unit)` as one transaction on the database thread.

        Once begun it finishes, even if the caller is cancelled. If `work` raises, nothing is kept.

        Raises:
            StoreBusy: Another process held the write lock for too long.
            StoreFull, StoreUnusable: Going on would lose data.
        """
        ...


class OwnReplica(Replica, Protocol):
    """The same in the process that keeps the replica current."""

    async def run_here(self, work: Callable[[Unit], T]) -> T:
        """As `run`, for work of a few milliseconds: done on the caller's thread, the commit alone waits elsewhere.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: As `run`.
        """
        ...


class Snapshot(Protocol):
    """The replica at one moment, for reading; synchronous, on a reader's thread."""

    def objects(self) -> Mapping[str, ObjectColumns]:
        """The objects that have a table, with their columns."""
        ...

    def version(self) -> int:
        """The version of the newest change; 0 if there is none."""
        ...

    def identity(self) -> str:
        """The id of this replica; see `Unit.identity`."""
        ...

    def cursor(self, name: str) -> str | None:
        """A stored position, or None."""
        ...

    def get(self, object_name: str, record_id: str, *, fields: Sequence[str] | None = None) -> StoredRecord | None:
        """One record, or None if it is not there or deleted; see `search`."""
        ...

    def search(
        self,
        object_name: str,
        text: str | None = None,
        *,
        where: Where = EVERYTHING,
        limit: int,
        after: str | None = None,
        order_by: str | None = None,
        fields: Sequence[str] | None = None,
        fits: Callable[[StoredRecord], bool] = lambda _record: True,
    ) -> Page:
        """A page of the records that are not deleted, for which `where` holds and in which `text` is found.

        `after` is `next` of the page before; the first record that `fits` refuses begins the next page.

        Raises:
            ValueError: An unknown object or field, a value of another kind, or an `after` of another list.
        """
        ...

    def count(self, object_name: str, where: Where = EVERYTHING, *, text: str | None = None) -> int:
        """Records that `search` would find, on all pages; ValueError as there."""
        ...

    def changes(self, since: int, limit: int, object_name: str | None = None) -> Sequence[Change] | None:
        """Changes behind a version, of one object or of all, in version order; None: the log does not reach back."""
        ...

    def record_changes(
        self, object_name: str, record_id: RecordId, since: int, limit: int
    ) -> tuple[Sequence[Change], int | None]:
        """The changes of one record behind a version, in version order; and when the log begins, if it was trimmed."""
        ...

    def pending(self, object_name: str, ids: Sequence[RecordId], since_ms: int) -> Sequence[Command]:
        """In order: unfinished commands on the records, and those that succeeded since then and were not echoed yet."""
        ...


class Overlook(Snapshot, Protocol):
    """What those who look at the whole ask of one moment besides."""

    def history(self, object_name: str, record_id: str, limit: int) -> History:
        """What happened to one record: its newest `limit` changes; ValueError if the object is not synced."""
        ...

    def figures(self, calls_since: str) -> ReplicaFigures:
        """The replica in figures; API calls from the hour `calls_since` (`2026-11-22T00`, UTC) on."""
        ...

    def standing(self) -> Standing:
        """What health tells of the replica; walks an index of every table."""
        ...

    def moved(self) -> Moved:
        """How far the replica has come."""
        ...

    def movement(self, since: Moved, most: int) -> Movement:
        """What was applied and published since then; of more than `most` changes the newest ones."""
        ...

    def change_counts(self, since: int, most: int) -> tuple[int, Sequence[ChangeCount]]:
        """The oldest `most` changes behind a version, counted; and the version that they end with."""
        ...

    def newest_changes(self, limit: int) -> Sequence[Change]:
        """The newest changes of all objects, newest first."""
        ...

    def commands(self, status: CommandStatus | None, limit: int) -> Sequence[Command]:
        """Newest commands first, of one status or of all."""
        ...

    def command(self, command_id: str) -> Command | None:
        """The stored command, or None."""
        ...


class Reader(Protocol):
    """Reads the replica beside the writer, never through it."""

    async def read(self, work: Callable[[Snapshot], T], *, timeout_s: float) -> T:
        """Run `work(snapshot)` on a reader's thread; everything it asks is of one moment.

        Raises:
            QueryTooSlow: It took longer than the time limit; SQLite was interrupted.
            StoreUnusable, StoreBusy: The replica cannot be read.
        """
        ...


class Onlooker(Protocol):
    """Reads the replica beside the writer, to look at the whole."""

    async def read(self, work: Callable[[Overlook], T], *, timeout_s: float) -> T:
        """See `Reader`."""
        ...


# --- mesh/ ------------------------------------------------------------------------------------------------------


class Publisher(Protocol):
    """Publishes to the mesh."""

    async def publish(self, message: Message) -> None:
        """Return once the broker has acknowledged the message.

        Several calls may be under way; the broker gets them in the order of the calls.

        Raises:
            LinkDown: Not connected, or the connection broke before the acknowledgement: it may have been published.
            PoisonError: The broker refuses this message for good (not authorised, too large).
        """
        ...


class BatchPublisher(Protocol):
    """Publishes many messages at a time."""

    async def publish_all(
        self, messages: Sequence[Message], acknowledged: Callable[[int], None]
    ) -> Sequence[LinkDown | PoisonError | None]:
        """Publish messages in their order, as many in flight as the broker allows; the outcome of each, None: sent.

        Args:
            messages: Any number.
            acknowledged: Called with the place of each message when its acknowledgement comes.

        Raises:
            LinkDown: Not connected: nothing was sent.
        """
        ...


class Inbox(Protocol):
    """Receives from the mesh."""

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Yield received messages; ends with the connection's task. At most the receive maximum are unacknowledged."""
        ...

    def acknowledge(self, delivery: Delivery) -> None:
        """Send the PUBACK: the message is on disk, or was refused for good."""
        ...
