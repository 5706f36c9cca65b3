"""Own echoes: a change that is what a command of ours wrote carries the command's id.

`changeOrigin` does not settle it: triggers write under our origin and composite calls may not carry it. A change is
the echo of a command if it is on the command's record (for a create: has its values) and shows every value sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from connector.model.change import Change, Operation, Origin
from connector.model.command import Command
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.ports import Unit

# Change with every write of a record, whoever makes it.
_STAMPS = frozenset({"LastModifiedDate", "LastModifiedById", "SystemModstamp"})
# Which commands make which change; none undeletes.
_CAUSES: Mapping[Operation, tuple[Operation, ...]] = {
    Operation.CREATE: (Operation.CREATE, Operation.UPSERT),
    Operation.UPDATE: (Operation.UPDATE, Operation.UPSERT),
}


class Echoes:
    """The commands of one object whose change is awaited; for one unit."""

    def __init__(self, unit: Unit, spec: ObjectSpec, since_ms: int, ids: Iterable[RecordId]) -> None:
        """`ids`: the records that may be asked for; their commands are read at once when the first one is."""
        self._unit = unit
        self._spec = spec
        self._since_ms = since_ms
        self._ids = ids
        self._by_record: dict[RecordId, list[Command]] | None = None
        # Those whose record is not known yet.
        self._nameless: list[Command] | None = None

    def match(self, change: Change) -> Command | None:
        """The oldest command that the change is the echo of; it is not matched again."""
        return self._take(change.id, change.operation, change.record)

    def match_unchanged(self, record_id: RecordId, values: Mapping[str, Any]) -> Command | None:
        """The same for an event that changed nothing visible: the org had the values already."""
        return self._take(record_id, Operation.UPDATE, values)

    def _take(self, record_id: RecordId, operation: Operation, record: Mapping[str, Any] | None) -> Command | None:
        for waiting in (self._on_record, self._on_no_record):
            commands = waiting(record_id)
            for at, command in enumerate(commands):
                if self._is_echo(command, operation, record):
                    return commands.pop(at)
        return None

    def _on_record(self, record_id: RecordId) -> list[Command]:
        if self._by_record is None:
            self._by_record = {}
            for command in self._unit.awaiting_echo(self._spec.name, list(self._ids), self._since_ms):
                if command.record_id is not None:
                    self._by_record.setdefault(command.record_id, []).append(command)
        return self._by_record.get(record_id, [])

    def _on_no_record(self, _record_id: RecordId) -> list[Command]:
        if self._nameless is None:
            self._nameless = list(self._unit.awaiting_creation(self._spec.name, self._since_ms))
        return self._nameless

    def _is_echo(self, command: Command, operation: Operation, record: Mapping[str, Any] | None) -> bool:
        if operation is Operation.DELETE or record is None:
            return command.operation is Operation.DELETE and operation is Operation.DELETE
        return command.operation in _CAUSES.get(operation, ()) and self._shows(command, record)

    def _shows(self, command: Command, record: Mapping[str, Any]) -> bool:
        sent = dict([command.external_id]) if command.external_id else {}
        sent.update(command.fields)
        synced = [name for name in sent if name in self._spec.by_name]
        if not synced and command.record_id is None:
            return False
        return all(_same(sent[name], record.get(name)) for name in synced)


def split(spec: ObjectSpec, change: Change, command: Command) -> Sequence[Change]:
    """The change as the mesh is to see it: what the command wrote, and what the event changed besides.

    A trigger's changes come in the same event as ours; they are an ordinary change behind the echo.
    """
    echo = replace(change, origin=Origin.COMMAND, command_id=command.command_id)
    if change.operation is not Operation.UPDATE or change.before is None or change.after is None:
        return (echo,)
    own = _STAMPS.union(command.fields)
    if own.intersection(spec.name_parts):
        own = own.union({"Name"})
    others = tuple(name for name in change.changed if name not in own)
    mine = tuple(name for name in change.changed if name in own)
    if not others:
        return (echo,)
    if _STAMPS.issuperset(mine):
        return (change,)  # what was sent had been there before: all of it is somebody else's
    between = {**(change.record or {}), **{name: change.before[name] for name in others}}
    return (
        replace(echo, changed=mine, before=_of(change.before, mine), after=_of(change.after, mine), record=between),
        replace(change, changed=others, before=_of(change.before, others), after=_of(change.after, others)),
    )


def _of(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names}


def _same(sent: object, stored: object) -> bool:
    """The org trims text, and keeps no empty text."""
    if isinstance(sent, str):
        sent = sent.strip() or None
    return sent == (stored.strip() if isinstance(stored, str) else stored)
