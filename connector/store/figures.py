"""The replica in figures, as `status` shows them."""

import apsw

from connector.model.objects import ObjectColumns
from connector.model.times import to_ms
from connector.ports import CursorRow, ObjectFigures, ReplicaFigures
from connector.store.movement import commands_by_status
from connector.store.names import quoted
from connector.store.queries import load
from connector.store.tables import objects
from connector.store.unit import StoreUnit

_POSITIONS = load("positions")


def replica_figures(connection: apsw.Connection, unit: StoreUnit, calls_since: str) -> ReplicaFigures:
    """The figures of the moment that `connection` sees; API calls from the hour `calls_since` on."""
    rows = connection.execute(_POSITIONS["all"])
    return ReplicaFigures(
        version=unit.last_version(),
        published=unit.published_version(),
        objects={o.name: object_figures(connection, o) for o in objects(connection).values()},
        queues=unit.queue_depths(),
        cursors=tuple(CursorRow(str(name), str(value), to_ms(str(at))) for name, value, at in rows),
        calls=unit.calls_since(calls_since),
        holes=unit.open_holes(),
        commands=commands_by_status(connection),
    )


def object_figures(connection: apsw.Connection, columns: ObjectColumns) -> ObjectFigures:
    """How many records the object's table has."""
    table = quoted(columns.table)
    # Both counts walk an index; the table's name was checked when it was made.
    everything = int(connection.execute(f"SELECT count(*) FROM {table}").get)  # noqa: S608
    deleted = int(connection.execute(f"SELECT count(*) FROM {table} WHERE _deleted_at IS NOT NULL").get)  # noqa: S608
    return ObjectFigures(records=everything - deleted, deleted=deleted)
