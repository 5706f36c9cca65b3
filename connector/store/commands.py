"""The queue of commands and what became of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy, command_key, external_key
from connector.model.ids import RecordId
from connector.model.times import to_ms
from connector.store.columns import from_json, iso, iso_or_none, json_or_none, ms, ms_or_none, to_json
from connector.store.part import Part
from connector.store.queries import load

_SQL = load("commands")
# A look-up by value through the class takes four times as long.
_OPERATIONS = {operation.value: operation for operation in Operation}
_POLICIES = {policy.value: policy for policy in ConflictPolicy}
_STATUSES = {status.value: status for status in CommandStatus}


class Commands(Part):
    """Commands by id, by record and by status."""

    def add_command(self, command: Command, also: Sequence[str] = ()) -> Command | None:
        """Store a new command; if its id is known already, store nothing and return the stored one.

        `also`: further names of its record, see `external_key`.
        """
        self._db.execute(_SQL["add"], _row(command))
        if not self._db.changes():
            return self.command(command.command_id)
        seq, is_open = self._db.last_insert_rowid(), not command.status.final
        keys = dict.fromkeys((*_keys(command), *also))
        self._db.executemany(_SQL["add_key"], ({"seq": seq, "key": key, "open": is_open} for key in keys))
        return None

    def update_command(self, command: Command) -> None:
        """Store what became of the command, with its record and base; what it asks for stays.

        A record id that has become known becomes a name of the record for all that wait for it.

        Raises:
            LookupError: The command was never stored.
        """
        found = next(iter(self._db.execute(_SQL["update"], _progress(command))), None)
        if found is None:
            raise LookupError(f"command {command.command_id} is not in the database")
        seq, found_record, turned = found
        if found_record:
            self._db.execute(_SQL["set_record"], {"seq": seq, "id": command.record_id})
        if command.record_id is not None and command.operation in (Operation.CREATE, Operation.UPSERT):
            self._db.execute(_SQL["spread_key"], {"seq": seq, "id": command.record_id})
        if turned:
            self._db.execute(_SQL["set_open"], {"seq": seq, "open": not command.status.final})

    def begin_commands(self, commands: Sequence[Command]) -> None:
        """Store that the commands are being sent: their record, and what, when and how often; the rest stays.

        As `update_command` for each, in two thirds of its time.
        """
        plain = []
        for command in commands:
            if command.record_of is None and command.operation in (Operation.UPDATE, Operation.DELETE):
                plain.append(_beginning(command))  # its record was known before
            else:
                self.update_command(command)
        self._db.executemany(_SQL["begin"], plain)

    def command(self, command_id: str) -> Command | None:
        """The stored command, or None."""
        return next(iter(self._found("get", (command_id,))), None)

    def command_by_delivery(self, delivery_key: str, since_ms: int) -> Command | None:
        """The newest command accepted since then from a message with this key, or None."""
        found = self._found("by_delivery", {"key": delivery_key, "since": iso(since_ms)})
        return next(iter(found), None)

    def next_commands(self, now_ms: int, limit: int) -> Sequence[Command]:
        """Accepted commands to be tried, oldest first.

        At most one per record: a command waits for every earlier unfinished one on its record, unless it has expired.
        """
        return self._found("next", {"now": iso(now_ms), "limit": limit})

    def wait_no_longer(self, now_ms: int, until_ms: int) -> int:
        """Commands that were tried after `now_ms`, or whose retry is set for after `until_ms`, are due now.

        Returns how many.
        """
        self._db.execute(_SQL["wait_no_longer"], {"now": iso(now_ms), "until": iso(until_ms)})
        return int(self._db.changes())

    def commands_behind(self, command: Command, limit: int) -> Sequence[Command]:
        """Unfinished commands on the command's record that came after it, in order; none if its id is not known."""
        if command.record_id is None:
            return []
        return self._found("behind", {"id": command.record_id, "seq": command.seq, "limit": limit})

    def followed(self, heads: Sequence[Command]) -> frozenset[RecordId]:
        """The records of those commands behind which other unfinished ones wait under the record's id."""
        named = to_json([[c.record_id, c.seq] for c in heads if c.record_id is not None])
        return frozenset(RecordId(str(row[0])) for row in self._db.execute(_SQL["followed"], {"heads": named}))

    def first_open(self, command: Command, also: Sequence[str] = ()) -> int | None:
        """`seq` of the oldest unfinished command on the record of a command that is not stored yet, or None."""
        keys = dict.fromkeys((*_keys(command), *also))
        found = [row[0] for row in self._db.executemany(_SQL["first_open"], ((key,) for key in keys))]
        return min((int(seq) for seq in found if seq is not None), default=None)

    def record_by_key(self, object_name: str, key: str) -> RecordId | None:
        """The record that a command found or made under this name (`external_key`, `command_key`), or None."""
        found = self._db.execute(_SQL["record_by_key"], {"key": key, "object": object_name}).get
        return None if found is None else RecordId(str(found))

    def written_between(
        self, object_name: str, record_id: RecordId, first_seq: int, before_seq: int
    ) -> Sequence[Command]:
        """Succeeded commands on the record with `first_seq` <= seq < `before_seq`, in order."""
        bindings = {"object": object_name, "id": record_id, "first": first_seq, "before": before_seq}
        return self._found("written_between", bindings)

    def unseen_writes(
        self, object_name: str, record_id: RecordId, modified_ms: int, since_ms: int
    ) -> Sequence[Command]:
        """In order: commands that succeeded since then and whose write a row modified at `modified_ms` lacks."""
        bindings = {"object": object_name, "id": record_id, "modified": iso(modified_ms), "since": iso(since_ms)}
        return self._found("unseen", bindings)

    def unseen_records(self, object_name: str, ids: Sequence[RecordId], since_ms: int) -> frozenset[RecordId]:
        """Those of the records that commands have written since then whose change has not come back."""
        bindings = {"object": object_name, "ids": to_json(ids), "since": iso(since_ms)}
        return frozenset(RecordId(str(row[0])) for row in self._db.execute(_SQL["unseen_records"], bindings))

    def overtaken_by(self, object_name: str, record_id: RecordId, seq: int) -> Sequence[Command]:
        """Later commands that have written to the record, or may have, in order."""
        return self._found("overtaken_by", {"object": object_name, "id": record_id, "seq": seq})

    def last_written_ms(self, object_name: str, record_id: RecordId, besides: str) -> int | None:
        """The org's clock at the newest write of ours to the record, those that the command `besides` carried apart."""
        bindings = {"object": object_name, "id": record_id, "besides": besides}
        found = self._db.execute(_SQL["last_written"], bindings).get
        return None if found is None else to_ms(str(found))

    def pending_on(self, object_name: str, ids: Sequence[RecordId], since_ms: int) -> Sequence[Command]:
        """In order: unfinished commands on the records, and those that succeeded since then and were not echoed yet."""
        bindings = {"object": object_name, "ids": to_json(ids), "since": iso(since_ms)}
        return self._found("pending_on", bindings)

    def commands(self, status: CommandStatus | None, limit: int) -> Sequence[Command]:
        """Newest commands first, of one status or of all."""
        return self._found("newest" if status is None else "newest_of_status", {"status": status, "limit": limit})

    def open_creates(self, object_name: str) -> Sequence[Command]:
        """Creates that the org may have taken and whose answer is not there: under way, or lost; in order."""
        return self._found("open_creates", {"object": object_name})

    def claimed(self, object_name: str, ids: Iterable[RecordId]) -> frozenset[RecordId]:
        """Those of the ids that a create or upsert of ours has made, by its result or the change that came back."""
        rows = self._db.execute(_SQL["claimed"], {"object": object_name, "ids": to_json(list(ids))})
        return frozenset(RecordId(str(row[0])) for row in rows)

    def creations_seen(self, command_ids: Sequence[str]) -> Mapping[str, RecordId]:
        """Those of the commands whose creation of a record has come back, with the record."""
        rows = self._db.execute(_SQL["creations_seen"], {"ids": to_json(command_ids)})
        return {str(command_id): RecordId(str(record_id)) for command_id, record_id in rows}

    def accepted_since(self, object_name: str, since_ms: int, limit: int, *, deletes: bool = False) -> int | None:
        """When the `limit`th newest command (delete) on the object was accepted, if that was after `since_ms`.

        None: fewer have been accepted since.
        """
        bindings = {"object": object_name, "since": iso(since_ms), "limit": limit}
        found = self._db.execute(_SQL["deletes_since" if deletes else "accepted_since"], bindings).get
        return None if found is None else to_ms(str(found))

    def awaiting_echo(self, object_name: str, ids: Sequence[RecordId], since_ms: int) -> Sequence[Command]:
        """Commands on the records, sent since then, that have not failed and whose change has not been seen yet.

        Oldest first; one that is being sent counts however old it is. Their `fields` are those that went to the org.
        """
        if len(ids) > 1:
            # Usually no command at all waits: to see that takes a tenth of looking for each record.
            unseen = self._db.execute(_SQL["unseen_ids"], (len(ids),)).fetchall()
            if len(unseen) < len(ids):
                ids = list({RecordId(str(row[0])) for row in unseen}.intersection(ids))
        if not ids:
            return ()
        bindings = {"object": object_name, "ids": to_json(ids), "since": iso(since_ms)}
        return _as_sent(self._found("awaiting_echo", bindings))

    def awaiting_creation(self, object_name: str, since_ms: int) -> Sequence[Command]:
        """The same for commands whose record is not known yet."""
        return _as_sent(self._found("awaiting_creation", {"object": object_name, "since": iso(since_ms)}))

    def echo_seen(self, command_id: str, version: int) -> None:
        """The change of this version was the command's own, and that of those it carried; 0: none will come.

        Nor will one of what was written to the record before a change that was seen.
        """
        self._db.execute(_SQL["echo_seen"], {"command_id": command_id, "version": version})
        if version:
            self._db.execute(_SQL["echo_passed"], {"command_id": command_id})

    def open_command_count(self) -> int:
        """Commands without a final status."""
        return int(self._db.execute(_SQL["depth"]).get)

    def _found(self, query: str, bindings: Any) -> list[Command]:
        return self._queried(_SQL[query], bindings)

    def _queried(self, sql: str, bindings: Any) -> list[Command]:
        return [_command(*row) for row in self._db.execute(sql, bindings)]


def _as_sent(found: Iterable[Command]) -> Sequence[Command]:
    oldest_first = sorted(found, key=lambda command: command.seq)
    return [c if c.sent is None else replace(c, fields=c.sent) for c in oldest_first]


def _keys(command: Command) -> list[str]:
    """The names of a command's record that the command itself tells."""
    keys = []
    if command.record_id is not None:
        keys.append(str(command.record_id))
    if command.record_of is not None:
        keys.append(command_key(command.record_of))
    if command.external_id is not None:
        keys.append(external_key(command.object, *command.external_id))
    if command.operation in (Operation.CREATE, Operation.UPSERT):
        keys.append(command_key(command.command_id))
    return keys


def _row(command: Command) -> dict[str, Any]:
    return _request(command) | _progress(command)


def _request(command: Command) -> dict[str, Any]:
    """What it asks for, as columns."""
    field, value = command.external_id or (None, None)
    return {
        "object": command.object,
        "operation": command.operation,
        "record_of": command.record_of,
        "external_id": None if field is None else to_json({"field": field, "value": value}),
        "fields": to_json(command.fields),
        "on_conflict": command.on_conflict,
        "sender": command.sender,
        "reply_to": command.reply_to,
        "correlation": command.correlation,
        "correlation_data": command.correlation_data,
        "delivery_key": command.delivery_key,
        "accepted_at": iso(command.accepted_ms),
    }


def _progress(command: Command) -> dict[str, Any]:
    """Which it is, what became of it, and what may change on the way."""
    return {
        "command_id": command.command_id,
        "record_id": command.record_id,
        "base": json_or_none(command.base),
        "base_seq": command.base_seq,
        "status": command.status,
        "attempts": command.attempts,
        "answer_lost": command.answer_lost,
        "errors": to_json(command.errors),
        "conflict": json_or_none(command.conflict),
        "sent": json_or_none(command.sent),
        "carried_by": command.carried_by,
        "ingest": command.ingest,
        "expires_at": iso_or_none(command.expires_ms),
        "sent_at": iso_or_none(command.sent_ms),
        "began_at": iso_or_none(command.began_ms),
        "written_at": iso_or_none(command.written_ms),
        "retry_at": iso_or_none(command.retry_ms),
        "completed_at": iso_or_none(command.completed_ms),
    }


def _beginning(command: Command) -> dict[str, Any]:
    return {
        "command_id": command.command_id,
        "status": command.status,
        "attempts": command.attempts,
        "sent": json_or_none(command.sent),
        "carried_by": command.carried_by,
        "ingest": command.ingest,
        "sent_at": iso_or_none(command.sent_ms),
        "began_at": iso_or_none(command.began_ms),
    }


def _command(*row: Any) -> Command:
    (seq, command_id, name, operation, record_id, record_of, external_id, fields, base, base_seq) = row[:10]
    (on_conflict, sender, reply_to, correlation, correlation_data, delivery_key, status, attempts) = row[10:18]
    (answer_lost, errors, conflict, sent, carried_by, ingest) = row[18:24]
    (accepted_at, expires_at, sent_at, began_at, written_at, retry_at, completed_at, _change_version) = row[24:]
    key = from_json(external_id)
    return Command(
        command_id=command_id,
        seq=seq,
        object=name,
        operation=_OPERATIONS[operation],
        record_id=record_id,
        record_of=record_of,
        external_id=None if key is None else (key["field"], key["value"]),
        fields=from_json(fields),
        base=from_json(base),
        base_seq=base_seq,
        on_conflict=_POLICIES[on_conflict],
        sender=sender,
        reply_to=reply_to,
        correlation=correlation,
        correlation_data=correlation_data,
        delivery_key=delivery_key,
        status=_STATUSES[status],
        attempts=attempts,
        answer_lost=bool(answer_lost),
        errors=tuple(from_json(errors)),
        conflict=from_json(conflict),
        sent=from_json(sent),
        carried_by=carried_by,
        ingest=ingest,
        accepted_ms=ms(accepted_at),
        expires_ms=ms_or_none(expires_at),
        sent_ms=ms_or_none(sent_at),
        began_ms=ms_or_none(began_at),
        written_ms=ms_or_none(written_at),
        retry_ms=ms_or_none(retry_at),
        completed_ms=ms_or_none(completed_at),
    )
