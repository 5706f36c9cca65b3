"""The JSON documents that are published, as models: what is sent is checked against them, schemas are made of them.

The messages themselves are built as plain dictionaries, which is several times faster on the path of every change.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Iso = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$")]
Id18 = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{18}$")]
Fields = dict[str, Any]


def told(member: str) -> dict[str, Any]:
    """For JSON Schema: the member is there and not null."""
    return {"required": [member], "properties": {member: {"not": {"type": "null"}}}}


def whole(value: object) -> object:
    """For integers of what is taken: JSON's 5.0 is one as well, by JSON Schema and for programs that know no others."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _open(schema: dict[str, Any]) -> None:
    """What is published may get more members within a version: who reads it ignores those that it does not know."""
    schema.pop("additionalProperties", None)


class Document(BaseModel):
    """A JSON object with exactly these members in this release."""

    # Built where they are asked for: the daemon sends what they describe, and needs none of them.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra=_open, defer_build=True)


class CommitDocument(Document):
    """What the org tells of the transaction that made a change."""

    timestamp: Iso
    number: int | None = Field(description="Of the transaction's commit.")
    user: str | None = Field(description="Id of the user who made it.")
    transaction: str | None = Field(description="The same for every change of one transaction.")
    sequence: int | None = Field(description="Of the change in its transaction.")


class ChangeDocument(Document):
    """One committed change of one record, as the replica applied it.

    Messages come in the order of `version`. One that is missing is asked for with the query `changes`; one that came
    before, after a crash, has the same `version` and is left out. Values are JSON's: booleans, numbers, dates as
    `YYYY-MM-DD`, date-times as ISO 8601 in UTC with milliseconds and `Z`; a field that is empty in the org is null.
    """

    object: str = Field(description="API name, as Salesforce spells it.")
    id: Id18
    operation: Literal["create", "update", "delete", "undelete"]
    version: int = Field(ge=1, description="The replica's counter over all objects, without holes.")
    changed: list[str] = Field(
        description="Fields whose values changed; of a create or undelete those that are not null, of a delete none."
    )
    before: Fields | None = Field(
        description="Of an update the changed fields as they were, of a delete the record; else null."
    )
    after: Fields | None = Field(
        description="Of an update the changed fields as they are, of a create or undelete the record; else null."
    )
    record: Fields | None = Field(description="The record as it is now, every synced field; null once it is deleted.")
    origin: Literal["stream", "poll", "backfill", "repair", "command"] = Field(
        description="How the replica learned of it: the change stream, a poll, the first load, a comparison, or the "
        "stream's echo of a command of ours."
    )
    command_id: str | None = Field(description="Of the command that made it, to `origin` command.")
    commit: CommitDocument | None = Field(description="Null where the source does not tell it.")


class ChangeEventDocument(Document):
    """A change as a CloudEvent, structured JSON."""

    specversion: Literal["1.0"]
    id: str = Field(description="{node}/{version}: the same for every redelivery.")
    source: str = Field(description="/{node}/salesforce/{id of the org}")
    type: str = Field(pattern=r"^blackroad\.salesforce\.record\.(create|update|delete|undelete)$")
    subject: str = Field(description="{Object}/{Id}")
    time: Iso = Field(description="When the replica applied the change.")
    datacontenttype: Literal["application/json"]
    dataschema: Literal["urn:blackroad:salesforce:change:1"]
    data: ChangeDocument


class RecordDocument(Document):
    """A record as it stands now: `Id` and every synced field."""

    model_config = ConfigDict(extra="allow")

    id_: Id18 = Field(alias="Id")


class StatusDocument(Document):
    """Birth, will and last message."""

    state: Literal["online", "offline"]
    node: str = Field(description="Name of the connector's node.")
    version: str = Field(description="Of the connector.")
    since: Iso | None = Field(description="Null in the will: the broker alone knows when the link broke.")


class MirrorDocument(Document):
    """How a mirror is."""

    state: Literal["offline", "waiting", "loading", "live"] = Field(
        description="waiting: for the connector's answers; loading: records are being listed; live: in step."
    )
    node: str
    version: str = Field(description="Of the program.")
    since: Iso | None = Field(description="Since when it is so; null in the will.")
    at_version: int | None = Field(description="Of the newest change that the mirror has; null at coming and going.")
    as_of: Iso | None = Field(description="When the mirror last knew that it missed nothing.")


class HoleDocument(Document):
    """An interval in which the replica may differ from the org."""

    object: str
    from_: Iso = Field(alias="from")
    to: Iso | None = Field(description="Null while the interval goes on.")
    reason: str = Field(description="For people: why it was opened.")
    state: Literal["open", "closed"] = Field(
        description="Closed once the object was read as far as needed; `corrected` is final then."
    )
    corrected: int = Field(ge=0, description="Records that had to be changed.")


class ProblemDocument(Document):
    """One error of the org, or of the validation."""

    code: str = Field(description="The org's status code, or one of ours, as REJECTED.")
    message: str = Field(description="For people.")
    fields: list[str] = Field(description="Those that it is about.")


class DryRunDocument(Document):
    """What a command would send now, as far as the replica tells; all null where nothing would be sent."""

    sends: bool
    operation: str | None
    id: Id18 | None
    external_id: dict[str, str] | None
    fields: Fields | None


class ResultDocument(Document):
    """What became of a command."""

    command_id: str = Field(description="As sent, or made by the connector.")
    status: Literal["accepted", "succeeded", "failed", "conflict", "rejected", "expired", "unknown"] = Field(
        description="accepted: on disk, not tried yet; the others are final. succeeded; failed: the org refused it; "
        "conflict: somebody changed the same fields since `base`; rejected: it never went to the org; expired: not "
        "done by `expires_at`; unknown: the org may have it or not, and it is not repeated."
    )
    object: str
    operation: str
    id: Id18 | None = Field(description="Of the record; null until it is known.")
    attempts: int = Field(ge=0, description="How often it was sent to the org.")
    correlation: str | None = Field(description="As the command had it.")
    errors: list[ProblemDocument] = Field(description="Why it failed or was rejected.")
    conflict: Fields | None = Field(description="Field -> base, local and remote value, to `status` conflict.")
    accepted_at: Iso
    completed_at: Iso | None = Field(description="Null while it is `accepted`.")
    dry_run: DryRunDocument | None = Field(None, description="Only there if the command was a dry run.")


class RejectedDocument(Document):
    """A message that could not be accepted and named no usable reply topic."""

    topic: str
    reason: str = Field(description="For people.")
    payload: str = Field(description="Its first 1 KiB as text.")


class SignalDocument(Document):
    """A BlackRoad signal."""

    ts: Iso
    signal: str
    from_: str = Field(alias="from")
    to: str
    msg: str = Field(description="Its name, with what is counted behind it.")
    text: str = Field(description="The signal in one line: sign, from, to, msg.")
    data: Fields


class ErrorDocument(Document):
    """Why a request was not served.

    To queries: `invalid_request`, `unknown_object`, `snapshot_required` (the log does not hold everything behind
    `since`: list the objects anew), `too_large`, `timed_out`, `busy` and `unavailable` (ask again later), `failed`.
    To control messages: `invalid_request`, `unknown_object`, `unknown_command`, `unknown_verb`, `not_available`,
    `busy`, `unavailable`, `failed`.
    """

    code: str = Field(description="For programs; others may come.")
    message: str = Field(description="For people.")


class ReplyDocument(Document):
    """The reply to a control message."""

    ok: Literal[True]
    verb: str
    state: Literal["started", "done"] = Field(
        description="`sync` and `verify`: started, then done; the others done at once."
    )
    data: Fields = Field(description="What the verb answers; of `status` the health document, of `command` a result.")
    correlation: str | None = Field(description="As the request had it.")


class RefusalDocument(Document):
    """The reply to a control message that could not be served."""

    ok: Literal[False]
    verb: str
    error: ErrorDocument
    correlation: str | None = Field(description="As the request had it.")


class PendingDocument(Document):
    """A command on a record of the reply that the record does not show yet."""

    command_id: str
    id: Id18
    operation: Literal["update", "upsert", "delete", "create"]
    status: Literal["accepted", "succeeded"] = Field(description="succeeded: in the org, its change is on the way.")
    fields: Fields = Field(description="Values that it is to set.")
    accepted_at: Iso


class QueryReplyDocument(Document):
    """The reply to a query."""

    ok: Literal[True]
    object: str
    verb: Literal["get", "list", "search", "count", "changes", "describe"]
    records: list[Fields] = Field(
        description="Fields with `Id`, `_version` and `_modstamp`; to `changes`: changes; to `describe`: objects with "
        "their fields. Empty to `count`."
    )
    next: str | int | None = Field(
        description="`after` of the next page, to `changes` its `since`; null at the end. Whoever lists an object page "
        "by page goes on with `changes` since the `version` of the first page."
    )
    count: int | None = Field(None, ge=0, description="To `count` alone.")
    known_since: Iso | None = Field(
        None, description="To `changes` of one record: when the log begins; null if it has every change."
    )
    version: int = Field(ge=0, description="Of the newest change that the answer includes.")
    replica: str = Field(description="Id of the replica: versions of two replicas cannot be compared.")
    as_of: Iso = Field(description="When the replica was read.")
    stream: Literal["live", "connecting", "down", "paused", "off"] = Field(
        description="How current the replica is: live, or last known at `verified_at` and by polls."
    )
    verified_at: Iso | None = Field(description="When the object was last proved equal to the org.")
    pending: list[PendingDocument] = Field(description="Commands on these records that they do not show yet.")
    correlation: str | None = Field(description="As the query had it.")


class QueryRefusalDocument(Document):
    """The reply to a query that could not be answered."""

    ok: Literal[False]
    object: str
    verb: str
    error: ErrorDocument
    correlation: str | None = Field(description="As the query had it.")


class DeliveredHealth(Document):
    """Events delivered in the last 24 hours: to all subscribers of the org, its limit, and to us."""

    used: int | None = Field(None, description="Null until the org told.")
    max: int | None = Field(None, description="Null until the org told.")
    own: int = 0


class StreamHealth(Document):
    """The change stream."""

    state: Literal["live", "connecting", "down", "paused", "off"] = Field(description="paused and off: on purpose.")
    transport: str
    since: Iso | None
    last_frame_at: Iso | None
    last_event_at: Iso | None
    delivered: DeliveredHealth = DeliveredHealth()


class ObjectHealth(Document):
    """One synced object."""

    records: int
    streamed: bool = Field(description="False: polls alone tell of it.")
    last_polled_at: Iso | None
    verified_at: Iso | None = Field(description="When it was last proved equal to the org.")
    drift: int = Field(description="Records found to differ by the last comparison, and not put right.")
    held: int = Field(0, description="Of these, deletions that wait for a person's word: `verify --allow-deletions`.")
    untold: int = Field(0, description="Changes that polls found and a live stream had not told, since the start.")
    holes: int = Field(description="Open ones.")
    calculated_at: Iso | None = Field(
        None, description="When formula and roll-up fields were last read for every record; null: it has none."
    )


class QueueHealth(Document):
    """Rows waiting."""

    outbox: int
    commands: int
    quarantine: int


class ApiHealth(Document):
    """API calls of the last 24 hours: of the whole org, its limit, and our own by purpose."""

    used: int | None
    max: int | None
    own: dict[str, int]


class LagHealth(Document):
    """Commit in the org to PUBACK of the broker, milliseconds; null until something was measured."""

    p50: int | None
    p99: int | None


class LastError(Document):
    """The error reported last, whether it is over or not."""

    at: Iso
    source: str
    error: str


class HealthDocument(Document):
    """What is running, how late it is and what waits."""

    state: Literal["ok", "degraded", "failing"] = Field(
        description="ok; degraded: something is late or retried, reads are still good; failing: a person is needed."
    )
    node: str
    as_of: Iso
    version: int = Field(description="Of the newest change.")
    uptime_s: int
    stream: StreamHealth
    objects: dict[str, ObjectHealth]
    queues: QueueHealth
    api: ApiHealth
    lag_ms: LagHealth
    last_error: LastError | None
