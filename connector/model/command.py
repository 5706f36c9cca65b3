"""Commands to write to the org, and their results; section 3 of the interface."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypedDict

from connector.model.change import Operation
from connector.model.ids import RecordId
from connector.model.noun import dataclass
from connector.model.record import StoredRecord

# A command that succeeded counts as pending until its change has come back; after so long the poller has brought it.
ECHO_WINDOW_MS = 10 * 60 * 1000


class OrgProblem(TypedDict):
    """One error of the org, as results carry it."""

    code: str
    message: str
    fields: list[str]


class CommandStatus(StrEnum):
    """The life of a command: accepted -> sending -> one of the final ones.

    `SENDING` is the store's own: a call was begun and its answer is not on disk yet. Results never carry it.
    """

    ACCEPTED = "accepted"
    SENDING = "sending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """True once nothing more will be done for the command."""
        return self not in (CommandStatus.ACCEPTED, CommandStatus.SENDING)


class ConflictPolicy(StrEnum):
    """What to do with a field that changed on both sides."""

    REJECT = "reject"
    MERGE = "merge"
    OVERWRITE = "overwrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One validated command as the store keeps it.

    Attributes:
        seq: Order of arrival; 0 until stored.
        record_id: The record; None for create and upsert until the org has answered.
        record_of: The create or upsert whose record it is, where its id was not known yet.
        external_id: (field, value) of an upsert.
        fields: API name -> value in wire form.
        base: What the sender had seen: field -> value of the record; None where unknown.
        base_seq: What commands on the record wrote from this one on counts as seen, too; None: there was none open.
        delivery_key: Recognises a redelivery of a message that named no command id; None for every other command.
        expires_ms: Give up after this time, milliseconds since the Unix epoch, UTC; None: never.
        reply_to: Topic for the result besides `{root}/result/{command_id}`.
        correlation: To be given back with the result, as text in its JSON.
        correlation_data: MQTT 5 Correlation Data of the request, to be given back as it came.
        attempts: Calls made so far.
        sent: What of `fields` went to the org with the last call, with what it carried of other commands; None before,
            and while it waits to be planned afresh.
        carried_by: The command whose call brought this one's fields; None: its own.
        ingest: The ingest job under way that carries it (`IngestJob.number`); None: it goes by calls, or is settled.
        answer_lost: The org may have taken an earlier attempt: find out before the next one.
        errors: The org's errors of the last attempt.
        sent_ms: When the last call began, milliseconds since the Unix epoch, UTC.
        began_ms: The org's clock at that moment; None before the first one.
        written_ms: The org's clock when it answered the write, milliseconds since the Unix epoch, UTC.
        retry_ms: Not to be tried before this time.
    """

    command_id: str
    seq: int = 0
    object: str
    operation: Operation
    record_id: RecordId | None
    external_id: tuple[str, str] | None
    fields: Mapping[str, Any]
    base: Mapping[str, Any] | None
    on_conflict: ConflictPolicy
    expires_ms: int | None
    sender: str | None
    reply_to: str | None
    correlation: str | None
    accepted_ms: int
    record_of: str | None = None
    base_seq: int | None = None
    correlation_data: bytes | None = None
    delivery_key: str | None = None
    status: CommandStatus = CommandStatus.ACCEPTED
    attempts: int = 0
    answer_lost: bool = False
    errors: tuple[OrgProblem, ...] = ()
    conflict: Mapping[str, Any] | None = None
    sent: Mapping[str, Any] | None = None
    carried_by: str | None = None
    ingest: int | None = None
    sent_ms: int | None = None
    began_ms: int | None = None
    written_ms: int | None = None
    retry_ms: int | None = None
    completed_ms: int | None = None

    @property
    def wanted(self) -> Mapping[str, Any]:
        """What of `fields` the next call may set.

        Once an answer was lost, what was sent then: of all else the record had what was wanted, so that it was done,
        and whatever it holds now came later.
        """
        if not self.answer_lost or self.sent is None:
            return self.fields
        return {name: value for name, value in self.fields.items() if name in self.sent}

    def awaited_by(self, record: StoredRecord) -> bool:
        """True if what the command writes is not in the record yet, as far as can be told.

        The org's stamps are whole seconds: a record of a later second than the write's includes it; one of the same
        second may stem from the write before it.
        """
        if self.status is CommandStatus.SUCCEEDED and self.written_ms is not None:
            return self.written_ms // 1000 >= record.modified_ms // 1000
        return self.status is CommandStatus.SUCCEEDED or not self.status.final


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestKind:
    """What one ingest job of the org can hold: one operation on one object.

    Attributes:
        external_id: Field that an upsert goes by, else None.
    """

    object: str
    operation: Operation
    external_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestJob:
    """A Bulk ingest job that carries commands; stored until each of them is settled.

    Attributes:
        number: Our own, by which commands name it.
        job_id: The org's; None until the org has made it, and then nothing has been given to it.
        opened_ms: The org's clock when it made the job: whatever the job writes is written later.
    """

    number: int
    kind: IngestKind
    job_id: str | None = None
    opened_ms: int | None = None


def external_key(object_name: str, field: str, value: object) -> str:
    """The name that an external id gives to a record; the org does not tell capitals in external ids apart."""
    return f"{object_name}.{field.casefold()}:{str(value).strip().casefold()}"


def command_key(command_id: str) -> str:
    """The name that the command which makes a record gives to it."""
    return f"command:{command_id}"
