"""What records are read from and commands are given to: the local replica, or another node over MQTT."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from connector.client.models import Row
from connector.model.history import History
from connector.model.objects import Kind


@dataclass(frozen=True, slots=True)
class RowPage:
    """Some records in order; `next` is the `after` of the next page, None at the end."""

    rows: Sequence[Row]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records, in which order.

    Attributes:
        where: A condition as in section 4 of the interface, with the fields' own names; None: all.
    """

    text: str | None = None
    where: Mapping[str, Any] | None = None
    order_by: str | None = None


class Source(Protocol):
    """Reads are answered from a replica; a command is durable once `submit` returns."""

    def fields(self, object_name: str) -> Mapping[str, Kind]:
        """The synced fields but `Id`, with their kinds.

        Raises:
            ValueError: The object is not synced.
        """
        ...

    def page(self, object_name: str, wanted: Selection, limit: int, after: str | None) -> RowPage:
        """A page of records; ValueError for what the object does not have."""
        ...

    def get(self, object_name: str, record_id: str) -> Row | None:
        """One record, or None."""
        ...

    def count(self, object_name: str, wanted: Selection) -> int:
        """How many records."""
        ...

    def history(self, object_name: str, record_id: str, limit: int) -> History:
        """The newest changes of a record."""
        ...

    def submit(self, object_name: str, operation: str, data: Mapping[str, Any]) -> str:
        """Store a command, `data` being what a service would publish; its id. On disk when this returns.

        Raises:
            CommandRejected: With one line per problem; nothing is stored.
        """
        ...

    def result(self, command_id: str) -> Mapping[str, Any]:
        """A command's result as it stands; LookupError if there is no such command."""
        ...

    def wait(self, command_id: str, timeout_s: float | None) -> Mapping[str, Any] | None:
        """A command's final result; None if there is none in time."""
        ...

    def sql(self, query: str, bindings: Sequence[Any] | Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """Rows of the replica's tables; ValueError where there is no file, or SQLite does not take the statement."""
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...
