"""The replica in a file on this machine, with or without a daemon at work on it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import TYPE_CHECKING, Any

from connector.client.models import Row
from connector.client.source import RowPage, Selection
from connector.mesh.envelope import result_document
from connector.model.change import Operation
from connector.model.command import ECHO_WINDOW_MS, Command, CommandStatus
from connector.model.history import History
from connector.model.ids import RecordId
from connector.model.objects import Kind
from connector.model.query import EVERYTHING, Where
from connector.model.record import StoredRecord
from connector.model.times import to_iso
from connector.model.where import parse_where
from connector.settings import Settings
from connector.store.reader import ReadOnlyReplica

if TYPE_CHECKING:
    from connector.app.queueing import CommandQueue

# How often it is looked for a result; ten times as long once it takes longer than a second.
_LOOK_S = 0.01
_QUEUE_KEPT_S = 60.0
_WRITES = (Operation.UPDATE, Operation.UPSERT, Operation.CREATE)


class LocalSource:
    """Reads the file; what commands of this machine's replica write is shown before the org's change comes back."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._replica = ReadOnlyReplica(settings.storage.path)
        self._open = False
        self._lock = Lock()
        self._queues = ExitStack()
        self._queue: CommandQueue | None = None
        self._queued_s = 0.0

    def fields(self, object_name: str) -> Mapping[str, Kind]:
        """See `Source`."""
        known = self._opened().objects()
        if object_name not in known:
            raise ValueError(f"{object_name[:80]!r} is not a synced object; these are: {', '.join(sorted(known))}")
        return known[object_name].fields

    def page(self, object_name: str, wanted: Selection, limit: int, after: str | None) -> RowPage:
        """See `Source`."""
        replica = self._opened()
        with replica.snapshot() as unit:
            page = replica.search(
                object_name, wanted.text, where=_where(wanted), limit=limit, after=after, order_by=wanted.order_by
            )
            return RowPage(self._shown(object_name, page.records, unit.last_version()), page.next)

    def get(self, object_name: str, record_id: str) -> Row | None:
        """See `Source`."""
        replica = self._opened()
        with replica.snapshot() as unit:
            record = replica.get(object_name, record_id)
            if record is not None:
                return next(iter(self._shown(object_name, [record], unit.last_version())), None)
            return self._made(object_name, RecordId(record_id), unit.last_version())

    def count(self, object_name: str, wanted: Selection) -> int:
        """See `Source`."""
        return self._opened().count(object_name, _where(wanted), text=wanted.text)

    def history(self, object_name: str, record_id: str, limit: int) -> History:
        """See `Source`."""
        return self._opened().history(object_name, record_id, limit)

    def submit(self, object_name: str, operation: str, data: Mapping[str, Any]) -> str:
        """See `Source`."""
        with self._lock:
            return self._writable().add(object_name, Operation(operation), data).command_id

    def result(self, command_id: str) -> Mapping[str, Any]:
        """See `Source`."""
        with self._opened().snapshot() as unit:
            command = unit.command(command_id)
        if command is None:
            raise LookupError(f"no command {command_id} is stored")
        return result_document(command)

    def wait(self, command_id: str, timeout_s: float | None) -> Mapping[str, Any] | None:
        """See `Source`."""
        began_s = time.monotonic()
        while (result := self.result(command_id))["status"] == CommandStatus.ACCEPTED.value:
            waited_s = time.monotonic() - began_s
            if timeout_s is not None and waited_s >= timeout_s:
                return None
            time.sleep(_LOOK_S if waited_s < 1 else 10 * _LOOK_S)
        return result

    def sql(self, query: str, bindings: Sequence[Any] | Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """Rows of the replica by SQL."""
        return self._opened().sql(query, bindings)

    def close(self) -> None:
        """See `Source`."""
        with self._lock:
            self._queues.close()
        self._replica.close()
        self._open = False

    def _writable(self) -> "CommandQueue":
        """The command table; opened anew from time to time, to know what has become of the objects."""
        from connector.app.queueing import CommandQueue  # noqa: PLC0415 - with all that it needs: not for reading

        if self._queue is None or time.monotonic() - self._queued_s > _QUEUE_KEPT_S:
            self._queues.close()
            self._queue = self._queues.enter_context(CommandQueue(self._settings))
            self._queued_s = time.monotonic()
        return self._queue

    def _opened(self) -> ReadOnlyReplica:
        if not self._open:
            self._replica.open()
            self._open = True
        return self._replica

    def _shown(self, object_name: str, records: Sequence[StoredRecord], version: int) -> Sequence[Row]:
        """The records with what is under way on them; without those that are being deleted."""
        by_record: dict[str, list[Command]] = {}
        for command in self._commands(object_name, [record.id for record in records]):
            by_record.setdefault(str(command.record_id), []).append(command)
        rows = []
        for record in records:
            pending = [c for c in by_record.get(record.id, ()) if c.awaited_by(record)]
            if not any(c.operation is Operation.DELETE for c in pending):
                rows.append(_row(record, pending, version))
        return rows

    def _made(self, object_name: str, record_id: RecordId, version: int) -> Row | None:
        """A record that a command has made in the org and whose change has not come back yet."""
        commands = self._commands(object_name, [record_id])
        if not any(c.operation in (Operation.CREATE, Operation.UPSERT) for c in commands):
            return None
        if any(c.operation is Operation.DELETE for c in commands):
            return None
        values = {**dict.fromkeys(self.fields(object_name)), **_written(commands)}
        return Row(record_id, values, 0, None, version, tuple(c.command_id for c in commands))

    def _commands(self, object_name: str, ids: Sequence[RecordId]) -> Sequence[Command]:
        return self._replica.pending(object_name, ids, time.time_ns() // 1_000_000 - ECHO_WINDOW_MS)


def _where(wanted: Selection) -> Where:
    return EVERYTHING if wanted.where is None else parse_where(wanted.where)


def _row(record: StoredRecord, pending: Sequence[Command], version: int) -> Row:
    written = {name: value for name, value in _written(pending).items() if name in record.values}
    return Row(
        record.id,
        {**record.values, **written},
        record.version,
        to_iso(record.modified_ms),
        version,
        tuple(command.command_id for command in pending),
    )


def _written(commands: Iterable[Command]) -> Mapping[str, Any]:
    return {name: value for c in commands if c.operation in _WRITES for name, value in c.fields.items()}
