"""From a checked payload to a command in the table: whose record, what base, within which limits."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from connector.errors import CommandRejected
from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy, external_key
from connector.model.ids import RecordId
from connector.model.noun import dataclass
from connector.model.objects import ObjectSpec
from connector.model.times import to_iso, to_ms
from connector.outbound.payload import Base, CommandPayload
from connector.outbound.plan import Planner
from connector.outbound.rules import OutboundRules, WriteRules
from connector.outbound.shown import Shown
from connector.outbound.steps import Finish, Send
from connector.outbound.validate import validate_write
from connector.outbound.view import RecordView
from connector.ports import Unit

_MINUTE_MS = 60 * 1000
_HOUR_MS = 60 * _MINUTE_MS


class Catalog(Protocol):
    """What is known of the objects now."""

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None if it is not synced."""
        ...

    def prefixes(self) -> Mapping[str, str]:
        """Key prefix -> object name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who wants a command, and how it arrived.

    Attributes:
        delivery_key: Recognises the message's redelivery, where the command has no id of its own.
    """

    reply_to: str | None = None
    correlation: str | None = None
    correlation_data: bytes | None = None
    delivery_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command that passed every check which needs no database.

    Attributes:
        base: The state that the sender had seen, if it told.
    """

    command: Command
    spec: ObjectSpec
    base: Base | None


class Admission:
    """Makes commands out of payloads and takes them into the table."""

    def __init__(self, catalog: Catalog, rules: OutboundRules) -> None:
        self._catalog = catalog
        self._rules = rules

    def request(
        self, object_name: str, operation: Operation, payload: CommandPayload, asker: Asker, now_ms: int
    ) -> Request:
        """The command that a payload asks for.

        Raises:
            CommandRejected: With one line per problem.
        """
        spec, rules = self._catalog.spec(object_name), self._rules.objects.get(object_name)
        if spec is None or rules is None:
            raise CommandRejected(not_synced(object_name))
        write = validate_write(operation, payload, spec, rules, self._catalog.prefixes())
        command_id = payload.command_id or f"auto-{uuid.uuid4()}"
        fields = dict(write.fields)
        if operation is Operation.CREATE and rules.external_id and fields.get(rules.external_id) is None:
            fields[rules.external_id] = _own_key(command_id, spec, rules)
        command = Command(
            command_id=command_id,
            object=spec.name,
            operation=operation,
            record_id=write.record_id,
            record_of=payload.record_of,
            external_id=write.external_id,
            fields=fields,
            base=None,
            on_conflict=ConflictPolicy(payload.on_conflict) if payload.on_conflict else rules.on_conflict,
            expires_ms=to_ms(payload.expires_at) if payload.expires_at else None,
            sender=payload.sender,
            reply_to=asker.reply_to,
            correlation=asker.correlation,
            correlation_data=asker.correlation_data,
            accepted_ms=now_ms,
            delivery_key=None if payload.command_id else asker.delivery_key,
        )
        return Request(command=command, spec=spec, base=payload.base)

    def accept(self, unit: Unit, request: Request, shown: Shown | None = None) -> tuple[Command, bool]:
        """Store the command; what is stored under its id, and whether that is new.

        `shown`: of the unit, if several are accepted in it.

        Raises:
            CommandRejected: A limit is reached, or what it names is not there.
        """
        known = unit.command(request.command.command_id)
        if known is not None:
            return known, False
        command = self.complete(unit, request, shown or Shown(unit, request.command.accepted_ms))
        self._check_limits(unit, command)
        unit.add_command(command, _names(command, request.spec))
        return command, True

    def rehearse(self, unit: Unit, request: Request) -> tuple[CommandStatus, Mapping[str, Any], Command]:
        """What would become of a command, as far as the replica tells, and what would be sent.

        Returns the status that it would have next, the write, and the command (with its conflict).

        Raises:
            CommandRejected: It would not be accepted.
        """
        shown = Shown(unit, request.command.accepted_ms)
        command = self.complete(unit, request, shown)
        self._check_limits(unit, command)
        planner = Planner(unit, request.spec, self._rules.objects[command.object], command.accepted_ms, shown)
        step = planner.plan(command)
        nothing = {"sends": False, "operation": None, "id": None, "external_id": None, "fields": None}
        match step:
            case Send(commands, write):
                key = (
                    None if write.external_id is None else dict(zip(("field", "value"), write.external_id, strict=True))
                )
                told = {"id": write.record_id, "external_id": key, "fields": dict(write.fields)}
                return CommandStatus.ACCEPTED, {"sends": True, "operation": str(write.operation), **told}, commands[-1]
            case Finish(done) if done.status is not CommandStatus.SUCCEEDED and command.record_of is None:
                return done.status, nothing, done
            case _:
                return CommandStatus.ACCEPTED, nothing, command

    def complete(self, unit: Unit, request: Request, shown: Shown) -> Command:
        """The command with its record, as far as that is known, and with its base.

        Raises:
            CommandRejected: What it names is not there.
        """
        command, spec = request.command, request.spec
        if command.record_of is not None:
            command = _of_command(unit, command)
        command = RecordView(unit, spec, shown).resolved(command)
        if request.base is not None:
            return replace(command, base=_seen(unit, shown, spec, command, request.base))
        return based_on_replica(unit, shown, spec, command)

    def _check_limits(self, unit: Unit, command: Command) -> None:
        """Refuse what goes beyond the settings' limits; a limit counts what was accepted, whatever became of it."""
        if self._rules.per_minute:
            limit, since_ms = self._rules.per_minute, command.accepted_ms - _MINUTE_MS
            first_ms = unit.accepted_since(command.object, since_ms, limit)
            _refuse_beyond("commands.per_minute", "commands", limit, command, first_ms, _MINUTE_MS)
        if self._rules.deletes_per_hour and command.operation is Operation.DELETE:
            limit, since_ms = self._rules.deletes_per_hour, command.accepted_ms - _HOUR_MS
            first_ms = unit.accepted_since(command.object, since_ms, limit, deletes=True)
            _refuse_beyond("commands.deletes_per_hour", "deletes", limit, command, first_ms, _HOUR_MS)


def not_synced(object_name: str) -> str:
    """The problem of a command on an object that is not in the settings."""
    return f"{object_name[:80]}: not a synced object"


def _own_key(command_id: str, spec: ObjectSpec, rules: WriteRules) -> str:
    """The command's id as its record's external id.

    Raises:
        CommandRejected: The configured field does not take it.
    """
    field = spec.described.get(rules.external_id)
    if field is None or not field.createable or field.kind != "text":
        raise CommandRejected(f"objects.{spec.name}.external_id: {spec.name} has no such text field that we may set")
    if field.length and len(command_id) > field.length:
        text = f"{len(command_id)} characters; {field.name}, which takes it, holds {field.length}"
        raise CommandRejected(f"command_id: {text}")
    return command_id


def _names(command: Command, spec: ObjectSpec) -> Sequence[str]:
    """The external ids that a create gives its record: what names it by one of them has to wait."""
    if command.operation is not Operation.CREATE:
        return ()
    return [
        external_key(command.object, name, value)
        for name, value in command.fields.items()
        if value is not None and name in spec.described and spec.described[name].external_id
    ]


def _of_command(unit: Unit, command: Command) -> Command:
    made = unit.command(command.record_of or "")
    if made is None or made.object != command.object:
        raise CommandRejected(f"record_of: no command of this id on {command.object} is known")
    if made.operation not in (Operation.CREATE, Operation.UPSERT):
        raise CommandRejected("record_of: that command makes no record; name the record by its id")
    if made.status.final and made.record_id is None:
        raise CommandRejected(f"record_of: that command made no record ({made.status})")
    return replace(command, record_id=made.record_id)


def based_on_replica(unit: Unit, shown: Shown, spec: ObjectSpec, command: Command) -> Command:
    """The replica is what the sender had seen, with what commands before this one write.

    Those are not in the replica yet; from the first of them on they are laid over it when the command's turn comes.
    """
    first = unit.first_open(command, _names(command, spec))
    if command.record_id is None:
        return replace(command, base_seq=first)
    stored = shown.stored(spec, command.record_id)
    if stored is None:
        return replace(command, base_seq=first)
    firsts = [c.seq for c in shown.unseen(spec, command.record_id)] + ([first] if first is not None else [])
    return replace(command, base=stored.values, base_seq=min(firsts, default=None))


def _seen(unit: Unit, shown: Shown, spec: ObjectSpec, command: Command, base: Base) -> Mapping[str, Any] | None:
    """The record at the state that the sender names; None where the replica does not have the record.

    Raises:
        CommandRejected: The change log does not reach back to that state.
    """
    if command.record_id is None:
        return None
    record_id: RecordId = command.record_id
    stored = shown.stored(spec, record_id)
    if stored is None:
        return None
    version = base.version
    if version is None:
        seen_ms = to_ms(base.last_modified or "")
        if seen_ms >= stored.modified_ms:
            return stored.values
        version = unit.version_at(spec.name, record_id, seen_ms)
    changed = unit.changed_since(spec.name, record_id, version)
    if changed is None:
        raise CommandRejected("base: the change log does not reach back to it; read the record again")
    return {**stored.values, **changed}


def _refuse_beyond(setting: str, what: str, limit: int, command: Command, first_ms: int | None, window_ms: int) -> None:
    if first_ms is None:
        return
    again = to_iso(first_ms + window_ms)
    raise CommandRejected(f"{setting} = {limit}: so many {what} of {command.object} were accepted; try after {again}")
