"""Change events as the org tells them, and changes as the replica applied them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NewType

from connector.model.ids import RecordId
from connector.model.jsontext import JsonText
from connector.model.noun import dataclass

ReplayId = NewType("ReplayId", bytes)  # opaque: store it, send it back, never compare or compute
# The one that is a word: behind it comes every event that the org still keeps. Source: Streaming API Developer Guide,
# "Message Durability".
OLDEST_KEPT = ReplayId(b"-2")


class ChangeType(StrEnum):
    """`changeType` of a change event. Source: Change Data Capture Developer Guide, "ChangeEventHeader Fields"."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    UNDELETE = "UNDELETE"
    GAP_CREATE = "GAP_CREATE"
    GAP_UPDATE = "GAP_UPDATE"
    GAP_DELETE = "GAP_DELETE"
    GAP_UNDELETE = "GAP_UNDELETE"
    GAP_OVERFLOW = "GAP_OVERFLOW"


class Operation(StrEnum):
    """What a change did to a record; also the operation of a command, with `upsert`."""

    CREATE = "create"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"
    UNDELETE = "undelete"


class Origin(StrEnum):
    """Where the replica learned of a change."""

    STREAM = "stream"
    POLL = "poll"
    BACKFILL = "backfill"
    REPAIR = "repair"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One change event as a source received it, not yet decoded.

    Attributes:
        replay_id: Position just behind this event.
        payload: `ChangeEventHeader` and the record fields in the JSON form of the Streaming API: a field that is
            absent did not change, an explicit null was cleared, and so was what the header's `nulledFields` names.
            May be anything: it has not been validated.
        error: Why the source could not read it; `payload` is then what is left of it.
        held_back: The org sends nothing behind it, be it of the same transaction, until more is asked for.
    """

    replay_id: ReplayId
    payload: Any
    error: str | None = None
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The source is subscribed; every event behind `position` follows.

    Attributes:
        position: Replay id subscribed with; None: new events only.
    """

    position: ReplayId | None


@dataclass(frozen=True, slots=True)
class Reached:
    """The org has nothing more up to `position`: all that came before it is what there was."""

    position: ReplayId


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What the org tells of the transaction that made a change.

    Attributes:
        timestamp_ms: Commit time in the org, milliseconds since the Unix epoch, UTC. Not an ordering key.
        number: The org's commit number; None where not told. Diagnostic, not unique across instances.
        user: Id of the user who wrote; None where not told.
        transaction: Key shared by all events of one transaction; None where not told.
        sequence: Order within the transaction, from 1, holes allowed; None where not told.
    """

    timestamp_ms: int
    number: int | None = None
    user: str | None = None
    transaction: str | None = None
    sequence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEvent:
    """One committed change to one or more records of an entity.

    Identity is (transaction, sequence, record); the replay id only says where to resume.

    Attributes:
        entity: API name of the object.
        record_ids: Never empty but for overflow and wildcard events; equal changes of one transaction arrive merged.
        change_type: What happened.
        values: Column -> value in wire form, compounds flattened (`Name.FirstName` -> `FirstName`). For UPDATE only
            what changed (None: cleared); for CREATE and UNDELETE whatever is not listed is empty. Parts of a
            person's name are in it even where they have no column: `Name` is composed of them.
        partial_name: True if an UPDATE brought parts of a person's name without `Name`, so that must be derived.
        unclear: Columns whose compound an UPDATE brought as null without saying which of its parts were cleared.
        diffs: Column -> unified diff of a long text, to be applied to the stored value.
        unknown_fields: Fields of the payload that the object's description does not know.
        whole_object: True if the event concerns every record of the entity (overflow, id wildcard).
        commit: The transaction.
        change_origin: `changeOrigin`, empty where not told.
        modified_ms: `LastModifiedDate` of the event, else the commit time cut to seconds.

    Source: Change Data Capture Developer Guide, "ChangeEventHeader Fields" and "Change Event Body Fields".
    """

    entity: str
    record_ids: tuple[RecordId, ...]
    change_type: ChangeType
    values: Mapping[str, Any]
    partial_name: bool
    unclear: frozenset[str]
    diffs: Mapping[str, str]
    unknown_fields: frozenset[str]
    whole_object: bool
    commit: CommitInfo
    change_origin: str
    modified_ms: int

    @property
    def is_gap(self) -> bool:
        """True if the event tells that something changed but not what."""
        return self.change_type.startswith("GAP_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One committed change of one record, as the replica applied it; section 2 of the interface.

    Attributes:
        version: The replica's counter over all objects; 0 until the store has numbered it.
        operation: create, update, delete or undelete.
        changed: Fields that changed (update) or are not null (create, undelete); empty for delete.
        before: update: the changed fields; delete: the record as it was; else None.
        after: update: the changed fields; create, undelete: the record; delete: None.
        record: Every synced field after the change; None for delete.
        applied_ms: When the replica applied it, milliseconds since the Unix epoch, UTC.
    """

    version: int = 0
    object: str
    id: RecordId
    operation: Operation
    changed: tuple[str, ...]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    record: Mapping[str, Any] | None
    origin: Origin
    command_id: str | None
    commit: CommitInfo | None
    applied_ms: int

    def numbered(self, version: int) -> "Change":
        """The change under its number, as the log keeps it and the mesh is told: its values are JSON already.

        Raises:
            TypeError: A value has no JSON form.
        """
        record = None if self.record is None else JsonText.of(self.record)
        after = None if self.after is None or self.after is self.record else JsonText.of(self.after)
        return Change(
            version=version,
            object=self.object,
            id=self.id,
            operation=self.operation,
            changed=self.changed,
            before=None if self.before is None else JsonText.of(self.before),
            after=record if self.after is self.record else after,
            record=record,
            origin=self.origin,
            command_id=self.command_id,
            commit=self.commit,
            applied_ms=self.applied_ms,
        )
