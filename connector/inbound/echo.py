"""Own echoes: a change that is what a command of ours wrote carries the command's id.

`changeOrigin` does not settle it: triggers write under our origin and composite calls may not carry it. A change is
the echo of a command if it is on the command's record (for a create: has its values) and shows every value sent.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
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
        self._nameless: _Nameless | None = None

    def match(self, change: Change) -> Command | None:
        """The oldest command that the change is the echo of; it is not matched again."""
        return self._take(change.id, change.operation, change.record)

    def match_unchanged(self, record_id: RecordId, values: Mapping[str, Any]) -> Command | None:
        """The same for an event that changed nothing visible: the org had the values already."""
        return self._take(record_id, Operation.UPDATE, values)

    def _take(self, record_id: RecordId, operation: Operation, record: Mapping[str, Any] | None) -> Command | None:
        commands = self._on_record(record_id)
        for at, command in enumerate(commands):
            if self._is_echo(command, operation, record):
                return commands.pop(at)
        if record is None or operation not in _CAUSES:
            return None
        if self._nameless is None:
            self._nameless = _Nameless(self._spec, self._unit.awaiting_creation(self._spec.name, self._since_ms))
        return self._nameless.take(_CAUSES[operation], record)

    def _on_record(self, record_id: RecordId) -> list[Command]:
        if self._by_record is None:
            self._by_record = {}
            for command in self._unit.awaiting_echo(self._spec.name, list(self._ids), self._since_ms):
                if command.record_id is not None:
                    self._by_record.setdefault(command.record_id, []).append(command)
        return self._by_record.get(record_id, [])

    def _is_echo(self, command: Command, operation: Operation, record: Mapping[str, Any] | None) -> bool:
        if operation is Operation.DELETE or record is None:
            return command.operation is Operation.DELETE and operation is Operation.DELETE
        sent = _sent(self._spec, command)
        shown = all(_plain(value) == _plain(record.get(name)) for name, value in sent.items())
        return command.operation in _CAUSES.get(operation, ()) and shown


class _Nameless:
    """Commands whose record is not known yet, by what they set: an ingest job may have thousands under way."""

    def __init__(self, spec: ObjectSpec, commands: Iterable[Command]) -> None:
        self._by_names: dict[tuple[str, ...], dict[tuple[Any, ...], deque[Command]]] = {}
        for command in commands:
            sent = _sent(spec, command)
            if sent:
                values = (command.operation, *(_plain(value) for value in sent.values()))
                self._by_names.setdefault(tuple(sent), {}).setdefault(values, deque()).append(command)

    def take(self, operations: Collection[Operation], record: Mapping[str, Any]) -> Command | None:
        """The oldest one with one of these operations whose values the record has; it is not given again."""
        found: list[deque[Command]] = []
        for names, by_values in self._by_names.items():
            values = tuple(_plain(record.get(name)) for name in names)
            found += [waiting for operation in operations if (waiting := by_values.get((operation, *values)))]
        return min(found, key=lambda waiting: waiting[0].seq).popleft() if found else None


def _sent(spec: ObjectSpec, command: Command) -> dict[str, Any]:
    """The synced fields that the command sets, in the order of their names."""
    sent = dict([command.external_id]) if command.external_id else {}
    sent.update(command.fields)
    return {name: sent[name] for name in sorted(sent) if name in spec.by_name}


def _plain(value: Any) -> Any:
    """A value as the org keeps it: it trims text, and keeps no empty text. To be compared and hashed."""
    if isinstance(value, str):
        return value.strip() or None
    return repr(value) if isinstance(value, dict | list) else value


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
