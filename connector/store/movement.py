"""What moves in the replica, told by the change log and the command table; for those who look at it."""

from collections.abc import Mapping

import apsw

from connector.model.change import Operation, Origin
from connector.ports import ChangeCount, Moved, Movement
from connector.store.queries import load

_SQL = load("movement")


def movement(connection: apsw.Connection, since: Moved, now: Moved, most: int) -> Movement:
    """What was applied and published behind `since`; of more than `most` changes the newest ones."""
    applied = connection.execute(_SQL["applied"], {"since": since.version, "most": most})
    bindings = {"since": since.published, "published": now.published, "most": most}
    return Movement(
        upto=now,
        applied=tuple((int(second), int(count)) for second, count in applied),
        lags=tuple((int(second), int(lag_ms)) for second, lag_ms in connection.execute(_SQL["lags"], bindings)),
    )


def change_counts(connection: apsw.Connection, since: int, most: int) -> tuple[int, tuple[ChangeCount, ...]]:
    """The oldest `most` changes behind a version, counted; and the version that they end with."""
    bindings = {"since": since, "most": most}
    counts = tuple(
        ChangeCount(str(name), Operation(operation), Origin(origin), int(count))
        for name, operation, origin, count in connection.execute(_SQL["counts"], bindings)
    )
    return int(connection.execute(_SQL["counted_to"], bindings).get or since), counts


def commands_by_status(connection: apsw.Connection) -> Mapping[str, int]:
    """How many commands the table holds, by status."""
    return {str(status): int(count) for status, count in connection.execute(_SQL["commands_by_status"])}
