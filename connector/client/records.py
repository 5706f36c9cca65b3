"""The records of one object: `sync.contacts` and `sync.object(name)`."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Generic

from connector.client.history import RecordHistory
from connector.client.models import R, Record, changed_in, mark_sent, record_of, wire
from connector.client.names import Names, names_of
from connector.client.pending import Pending
from connector.client.source import Selection, Source
from connector.model.ids import to_record_id
from connector.model.objects import Kind
from connector.model.query import containing

PAGE = 500
_OPTIONS = ("command_id", "on_conflict", "expires_at")


class Results(Generic[R]):
    """Records that are read while one goes through them, a page at a time; a second time they are read again."""

    def __init__(self, records: "Records[R]", wanted: Selection, limit: int | None) -> None:
        self._records = records
        self._wanted = wanted
        self._limit = limit

    def __iter__(self) -> Iterator[R]:
        return self._records.read(self._wanted, self._limit)

    def first(self) -> R | None:
        """The first one, or None."""
        return next(self._records.read(self._wanted, 1), None)

    def __repr__(self) -> str:
        return f"<records of {self._records.name}>"


class Records(Generic[R]):
    """The records of one object.

    Names of fields are attributes (`account_id`) or the org's own (`AccountId`).

    Attributes:
        name: The object's, as Salesforce spells it.
    """

    def __init__(self, source: Source, name: str, model: type[R]) -> None:
        self.name = name
        self._source = source
        self._model = model

    def all(self, *, order_by: str | None = None, limit: int | None = None) -> Results[R]:
        """Every record that is not deleted, read a page at a time.

        Args:
            order_by: A field, with ` desc` for the other way round; else by id.
            limit: So many at most.
        """
        return self.search(order_by=order_by, limit=limit)

    def get(self, record_id: str) -> R | None:
        """The record with this id (15 or 18 characters), or None if the replica does not have it.

        Raises:
            ValueError: It is no record id.
        """
        row = self._source.get(self.name, to_record_id(record_id))
        # A row has all the fields of its object.
        return None if row is None else record_of(self._model, row, names_of(self.name, tuple(row.values)))

    def search(
        self,
        text: str | None = None,
        /,
        *,
        where: Mapping[str, Any] | None = None,
        order_by: str | None = None,
        limit: int | None = None,
        **fields: Any,
    ) -> Results[R]:
        """The records that fit everything that is asked for.

        Args:
            text: Words, or beginnings of words, somewhere in the record's text fields; the best fit comes first.
            where: A condition: `{"amount": {"gte": 1000}, "or": [{"stage": "New"}, {"stage": None}]}`.
            order_by: A field, with ` desc` for the other way round.
            limit: So many at most.
            **fields: A text anywhere in the field, without regard to case; any other value by equality.

        Raises:
            ValueError: When the first record is read: a field that the object does not have, or a wrong value.
        """
        return Results(self, self._selection(text, where, order_by, fields), limit)

    def count(self, text: str | None = None, /, *, where: Mapping[str, Any] | None = None, **fields: Any) -> int:
        """How many records fit; see `search`."""
        return self._source.count(self.name, self._selection(text, where, None, fields))

    def history(self, record_id: str, *, limit: int = 1000) -> RecordHistory[R]:
        """What happened to a record, as far back as the change log reaches: who changed what, and when.

        Args:
            record_id: 15 or 18 characters; also of a deleted record.
            limit: Its newest changes, so many at most.

        Raises:
            ValueError: It is no record id.
        """
        full = to_record_id(record_id)
        return RecordHistory(full, self._source.history(self.name, full, limit), self._model, self._named()[0])

    def create(self, record: R | None = None, /, **fields: Any) -> Pending:
        """Queue a new record, on disk; the daemon sends it.

        Args:
            record: With the fields that are set on it.
            **fields: Or the fields themselves; `command_id`, `on_conflict`, `expires_at` as in section 3.

        Raises:
            CommandRejected: The org could not take it; with every wrong field. Nothing is queued.
            ValueError: A field that the object does not have.
        """
        options = _options(fields)
        values = {**(changed_in(record) if record is not None else {}), **fields}
        command_id = self._submit("create", {**options, "fields": self._named_values(values)})
        return Pending(self._source, command_id, record)

    def upsert(self, field: str, value: str, record: R | None = None, /, **fields: Any) -> Pending:
        """Queue what the record with this external id is to hold, made if there is none; the daemon sends it.

        Args:
            field: An external id field of the object, synced or not.
            value: Its value.
            record: With the fields that are set on it.
            **fields: Or the fields themselves; `command_id`, `on_conflict`, `expires_at` as in section 3.

        Raises:
            CommandRejected: The org could not take it; with every wrong field. Nothing is queued.
            ValueError: A field that the object does not have.
        """
        options = _options(fields)
        names, _ = self._named()
        values = {**(changed_in(record) if record is not None else {}), **fields}
        key = {"field": names.field(field) if field in names else field, "value": value}
        command_id = self._submit("upsert", {**options, "external_id": key, "fields": self._named_values(values)})
        return Pending(self._source, command_id, record)

    def update(self, record: R | str, /, **fields: Any) -> Pending:
        """Queue what was changed of a record, on disk; the daemon sends it.

        What somebody else changed in the org since the record was read is merged, or a conflict.

        Args:
            record: With the changes assigned to it; or its id, with the changes as `fields`.
            **fields: Further changes; `command_id`, `on_conflict`, `expires_at` as in section 3.

        Raises:
            CommandRejected: The org could not take it; with every wrong field. Nothing is queued.
            ValueError: Nothing was changed, or a field that the object does not have.
        """
        options = _options(fields)
        if isinstance(record, str):
            data = {"id": record, "fields": self._named_values(fields)}
        else:
            for name, value in fields.items():
                setattr(record, name, value)
            data = {"id": _id_of(record), "fields": self._named_values(changed_in(record)), **_base(record)}
        if not data["fields"]:
            raise ValueError("nothing was changed: assign to its fields first")
        command_id = self._submit("update", {**options, **data})
        if not isinstance(record, str):
            mark_sent(record, command_id)
        return Pending(self._source, command_id)

    def delete(self, record: R | str, /, **options: Any) -> Pending:
        """Queue a deletion, on disk; the daemon sends it.

        Args:
            record: The record, or its id.
            **options: `command_id`, `expires_at` as in section 3.

        Raises:
            CommandRejected: The org could not take it. Nothing is queued.
        """
        data = {"id": record if isinstance(record, str) else _id_of(record), **_options(options)}
        if options:
            raise TypeError(f"unknown options: {', '.join(options)}")
        return Pending(self._source, self._submit("delete", data))

    def pending(self, command_id: str) -> Pending:
        """A command that was queued before, by its id."""
        return Pending(self._source, command_id)

    def _submit(self, operation: str, data: Mapping[str, Any]) -> str:
        return self._source.submit(self.name, operation, data)

    def _named_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        names, _ = self._named()
        return {names.field(name): wire(value) for name, value in values.items()}

    def read(self, wanted: Selection, limit: int | None) -> Iterator[R]:
        """The records, a page at a time."""
        names, _ = self._named()
        left, after = limit, None
        while left is None or left > 0:
            page = self._source.page(self.name, wanted, PAGE if left is None else min(PAGE, left), after)
            for row in page.rows:
                yield record_of(self._model, row, names)
            left = None if left is None else left - len(page.rows)
            after = page.next
            if after is None:
                return

    def __iter__(self) -> Iterator[R]:
        return iter(self.all())

    def __repr__(self) -> str:
        return f"<{self.name}: {self.count()} records>"

    def _named(self) -> tuple[Names, Mapping[str, Kind]]:
        kinds = self._source.fields(self.name)
        return names_of(self.name, tuple(kinds)), kinds

    def _selection(
        self, text: str | None, where: Mapping[str, Any] | None, order_by: str | None, fields: Mapping[str, Any]
    ) -> Selection:
        names, kinds = self._named()
        parts = [names.where(_wired(where))] if where else []
        parts += [_field(name := names.field(given), kinds.get(name, "text"), wire(v)) for given, v in fields.items()]
        if order_by is not None:
            field, _, direction = order_by.strip().partition(" ")
            order_by = f"{names.field(field)} {direction}".strip()
        return Selection(text=text, where={"and": parts} if parts else None, order_by=order_by)


def _options(fields: dict[str, Any]) -> dict[str, Any]:
    """What of the arguments is about the command; taken out of them."""
    return {name: wire(fields.pop(name)) for name in _OPTIONS if name in fields}


def _id_of(record: Record) -> str:
    if record.id is None:
        raise ValueError("the record is not in the org yet: create it, and wait for its id")
    return record.id


def _base(record: Record) -> dict[str, Any]:
    """What was seen, where that was the org's state and not what commands of ours are about to make of it."""
    seen = record.meta.seen_version
    return {} if seen is None or record.meta.pending else {"base": {"version": seen}}


def _field(name: str, kind: Kind, value: Any) -> dict[str, Any]:
    if kind == "text" and isinstance(value, str):
        return {name: {"like": containing(value)}}
    return {name: {"eq": value}}


def _wired(part: Any) -> Any:
    match part:
        case Mapping():
            return {name: _wired(inner) for name, inner in part.items()}
        case list() | tuple():
            return [_wired(inner) for inner in part]
        case date():
            return wire(part)
        case _:
            return part
