"""What a command may need next: its end, a question to the org, a wait, or a write."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from connector.model.command import Command
from connector.model.ids import RecordId
from connector.model.noun import dataclass
from connector.ports import RecordWrite

MOST_MERGED = 50
"""Commands that one write carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """A record in the org's recycle bin.

    Attributes:
        values: As it was when it went.
        at_ms: When it went, by the org's clock.
    """

    record_id: RecordId
    values: Mapping[str, Any]
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """The record as the org has it, as far as known.

    Attributes:
        values: None: it is not there.
        ours: True if the org says that our user was the last to modify it; None where it was not asked.
        deleted: What had the key of an upsert and went last, where nothing has it.
    """

    values: Mapping[str, Any] | None
    modified_ms: int
    ours: bool | None = None
    record_id: RecordId | None = None
    deleted: Deleted | None = None


class Question(StrEnum):
    """What the org is to be asked before a command can go on.

    Attributes:
        RECORD: The record as it stands, by its id.
        KEYED: The same by the external id of an upsert.
        CREATED: Whether it took a create.
        CLOCK: What time it is: nothing is sent whose beginning could not be told by the org's clock.
    """

    RECORD = "record"
    KEYED = "keyed"
    CREATED = "created"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Finish:
    """The command has its end, without a call."""

    command: Command


@dataclass(frozen=True, slots=True)
class Ask:
    """The org has to be asked."""

    command: Command
    question: Question


@dataclass(frozen=True, slots=True)
class Wait:
    """It cannot be told yet what became of the command."""

    command: Command


@dataclass(frozen=True, slots=True)
class Send:
    """One write.

    Attributes:
        commands: Those it is the write of, in order; the last one carries the others.
        by_header: The conditional header is guard enough, so that a row call may be made.
    """

    commands: tuple[Command, ...]
    write: RecordWrite
    by_header: bool


Step = Finish | Ask | Wait | Send
