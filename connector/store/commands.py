"""The queue of commands and what became of them."""

from collections.abc import Sequence
from typing import Any

from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy
from connector.model.ids import RecordId
from connector.model.times import to_ms
from connector.store.columns import from_json, iso, iso_or_none, json_or_none, ms_or_none, to_json
from connector.store.part import Part
from connector.store.queries import load

_SQL = load("commands")


class Commands(Part):
    """Commands by id, by record and by status."""

    def add_command(self, command: Command) -> Command | None:
        """Store a new command; if its id is known already, store nothing and return the stored one."""
        self._db.execute(_SQL["add"], _row(command))
        return None if self._db.changes() else self.command(command.command_id)

    def update_command(self, command: Command) -> None:
        """Store status, record id, attempts, errors, conflict and times.

        Raises:
            LookupError: The command was never stored.
        """
        self._db.execute(_SQL["update"], _row(command))
        if not self._db.changes():
            raise LookupError(f"command {command.command_id} is not in the database")

    def command(self, command_id: str) -> Command | None:
        """The stored command, or None."""
        return next(iter(self._found("get", (command_id,))), None)

    def command_by_delivery(self, delivery_key: str, since_ms: int) -> Command | None:
        """The newest command accepted since then from a message with this key, or None."""
        found = self._found("by_delivery", {"key": delivery_key, "since": iso(since_ms)})
        return next(iter(found), None)

    def next_commands(self, now_ms: int, limit: int) -> Sequence[Command]:
        """Accepted commands to be tried, oldest first.

        At most one per record: a command waits for every earlier unfinished one on its record.
        """
        return self._found("next", {"now": iso(now_ms), "limit": limit})

    def pending_commands(self, object_name: str, record_id: RecordId, since_ms: int) -> Sequence[Command]:
        """In order: unfinished commands on the record, and those that succeeded since then and were not echoed yet."""
        return self._found("pending", {"object": object_name, "id": record_id, "since": iso(since_ms)})

    def commands(self, status: CommandStatus | None, limit: int) -> Sequence[Command]:
        """Newest commands first, of one status or of all."""
        return self._found("newest" if status is None else "newest_of_status", {"status": status, "limit": limit})

    def awaiting_echo(self, object_name: str, since_ms: int) -> Sequence[Command]:
        """Commands sent since then (sending or succeeded) whose change has not been seen yet, oldest first."""
        return self._found("awaiting_echo", {"object": object_name, "since": iso(since_ms)})

    def echo_seen(self, command_id: str, version: int) -> None:
        """The change of this version was the command's own."""
        self._db.execute(_SQL["echo_seen"], (version, command_id))

    def open_command_count(self) -> int:
        """Commands without a final status."""
        return int(self._db.execute(_SQL["depth"]).get)

    def _found(self, query: str, bindings: Any) -> list[Command]:
        return [_command(*row) for row in self._db.execute(_SQL[query], bindings)]


def _record_key(command: Command) -> str | None:
    """What commands on the same record have in common; None for a create, which none can follow yet."""
    if command.external_id is not None:
        field, value = command.external_id
        return to_json([command.object, field, value])
    return command.record_id if command.operation is not Operation.CREATE else None


def _row(command: Command) -> dict[str, Any]:
    field, value = command.external_id or (None, None)
    return {
        "command_id": command.command_id,
        "object": command.object,
        "operation": command.operation,
        "record_key": _record_key(command),
        "record_id": command.record_id,
        "external_id": None if field is None else to_json({"field": field, "value": value}),
        "fields": to_json(command.fields),
        "base": json_or_none(command.base),
        "on_conflict": command.on_conflict,
        "sender": command.sender,
        "reply_to": command.reply_to,
        "correlation": command.correlation,
        "correlation_data": command.correlation_data,
        "delivery_key": command.delivery_key,
        "status": command.status,
        "attempts": command.attempts,
        "answer_lost": command.answer_lost,
        "errors": to_json(command.errors),
        "conflict": json_or_none(command.conflict),
        "accepted_at": iso(command.accepted_ms),
        "expires_at": iso_or_none(command.expires_ms),
        "sent_at": iso_or_none(command.sent_ms),
        "retry_at": iso_or_none(command.retry_ms),
        "completed_at": iso_or_none(command.completed_ms),
    }


def _command(*row: Any) -> Command:
    (seq, command_id, name, operation, record_id, external_id, fields, base, on_conflict, sender, reply_to) = row[:11]
    (correlation, correlation_data, delivery_key, status, attempts, answer_lost, errors, conflict) = row[11:19]
    (accepted_at, expires_at, sent_at, retry_at, completed_at) = row[19:]
    key = from_json(external_id)
    return Command(
        command_id=command_id,
        seq=seq,
        object=name,
        operation=Operation(operation),
        record_id=record_id,
        external_id=None if key is None else (key["field"], key["value"]),
        fields=from_json(fields),
        base=from_json(base),
        on_conflict=ConflictPolicy(on_conflict),
        sender=sender,
        reply_to=reply_to,
        correlation=correlation,
        correlation_data=correlation_data,
        delivery_key=delivery_key,
        status=CommandStatus(status),
        attempts=attempts,
        answer_lost=bool(answer_lost),
        errors=tuple(from_json(errors)),
        conflict=from_json(conflict),
        accepted_ms=to_ms(accepted_at),
        expires_ms=ms_or_none(expires_at),
        sent_ms=ms_or_none(sent_at),
        retry_ms=ms_or_none(retry_at),
        completed_ms=ms_or_none(completed_at),
    )
