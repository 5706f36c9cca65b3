"""Records as Python objects: attributes in snake case, values as in messages (dates and date-times are text)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, ClassVar, TypeVar, dataclass_transform

from connector.client.names import Names, attribute
from connector.model.times import to_iso, to_ms

R = TypeVar("R", bound="Record")


@dataclass(frozen=True, slots=True)
class Row:
    """One record as a source tells it.

    Attributes:
        values: Every synced field but `Id` under its API name.
        version: Of the record's last change; 0 if it was loaded.
        modified_at: `LastModifiedDate` of the state, ISO 8601.
        seen_version: The replica's version when it was read.
        pending: Ids of the commands whose effect `values` shows although the org's change has not come back yet.
    """

    id: str
    values: Mapping[str, Any]
    version: int
    modified_at: str | None
    seen_version: int
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a record besides its fields.

    Attributes:
        version: Of its last change; 0 if it was loaded.
        modified_at: `LastModifiedDate` of the state, ISO 8601; None for a record that the org does not have yet.
        seen_version: The replica's version when it was read: the base of an update.
        pending: Ids of the commands on it that are not settled; its fields show what they write.
    """

    version: int = 0
    modified_at: str | None = None
    seen_version: int | None = None
    pending: tuple[str, ...] = ()


@dataclass_transform(kw_only_default=True, eq_default=False)
class Record:
    """A record of any object; `Contact` and the like name their fields for editors and type checkers.

    A field is an attribute (`record.first_name`) or an item under its own name (`record["FirstName"]`). Assigning
    changes this object alone; `update` of the object's records sends what was changed.

    Attributes:
        id: 18 characters; None for one that is not in the org yet.
        meta: What is known of it besides its fields.
    """

    object_name: ClassVar[str] = ""
    _declared: ClassVar[frozenset[str]] = frozenset()

    _id: str | None
    _meta: Meta
    _names: Names | None
    _values: dict[str, Any]
    _original: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared = [name for name in cls.__annotations__ if name != "object_name"]
        for name in declared:
            # The defaults are for type checkers; an attribute is found by `__getattr__`.
            delattr(cls, name)
        cls._declared = frozenset(declared)

    def __init__(self, **fields: Any) -> None:
        """A record that is not in the org yet; fields by attribute or by their own names."""
        _fill(self, None, Meta(), None, {})
        for name, value in fields.items():
            setattr(self, attribute(name), value)

    @property
    def id(self) -> str | None:
        """18 characters; None for a record that is not in the org yet."""
        return self._id

    @property
    def meta(self) -> Meta:
        """What is known of the record besides its fields."""
        return self._meta

    def to_dict(self) -> dict[str, Any]:
        """`id` and every field by attribute."""
        return {"id": self._id, **self._values}

    def _attribute(self, name: str) -> str:
        """The attribute that a name stands for.

        Raises:
            ValueError: A record that was read has no such field.
        """
        if self._names is not None:
            return self._names.attribute(self._names.field(name))
        return attribute(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            known = self._attribute(name)
        except ValueError as error:
            raise AttributeError(str(error)) from None
        if known in self._values or known in self._declared:
            return self._values.get(known)
        raise AttributeError(f"{self._called()} has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{name} cannot be set")
        try:
            known = self._attribute(name)
        except ValueError as error:
            raise AttributeError(str(error)) from None
        self._values[known] = wire(value)

    def __getitem__(self, field: str) -> Any:
        try:
            return self._id if field == "Id" else self.__getattr__(field)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def __setitem__(self, field: str, value: Any) -> None:
        setattr(self, field, value)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.to_dict().items())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Record) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._values, *self._declared})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items() if value is not None)
        return f"{self._called()}({shown})"

    def _called(self) -> str:
        return self.object_name or "Record"


def record_of(kind: type[R], row: Row, names: Names) -> R:
    """The record that a source tells of."""
    made = kind.__new__(kind)
    values = {names.attribute(name): value for name, value in row.values.items()}
    _fill(made, row.id, Meta(row.version, row.modified_at, row.seen_version, row.pending), names, values)
    return made


def changed_in(record: Record) -> dict[str, Any]:
    """What was assigned since the record was read, or since its changes were sent: attribute -> value."""
    values, original = vars(record)["_values"], vars(record)["_original"]
    return {name: value for name, value in values.items() if name not in original or original[name] != value}


def mark_sent(record: Record, command_id: str) -> None:
    """A command with the record's changes was stored: they are no longer to be sent."""
    meta = record.meta
    vars(record)["_original"] = dict(vars(record)["_values"])
    vars(record)["_meta"] = Meta(meta.version, meta.modified_at, None, (*meta.pending, command_id))


def mark_made(record: Record, record_id: str) -> None:
    """The org has made the record."""
    vars(record)["_id"] = record_id


def _fill(record: Record, record_id: str | None, meta: Meta, names: Names | None, values: dict[str, Any]) -> None:
    vars(record).update(_id=record_id, _meta=meta, _names=names, _values=values, _original=dict(values))


def wire(value: Any) -> Any:
    """A value as messages have it: dates and date-times as text.

    Raises:
        ValueError: A date-time without a zone.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a date-time needs a zone: datetime.now(tz=UTC), not datetime.now()")
        return to_iso(to_ms(value.astimezone(UTC).isoformat(timespec="milliseconds")))
    return value.isoformat() if isinstance(value, date) else value


class Contact(Record):
    """A person."""

    object_name = "Contact"
    first_name: str | None = None
    last_name: str | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    account_id: str | None = None
    owner_id: str | None = None


class Lead(Record):
    """A person, or company, who may become a customer."""

    object_name = "Lead"
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    company: str | None = None
    status: str | None = None
    owner_id: str | None = None


class Account(Record):
    """A company."""

    object_name = "Account"
    name: str | None = None
    industry: str | None = None
    revenue: float | None = None
    owner_id: str | None = None


class Opportunity(Record):
    """A deal."""

    object_name = "Opportunity"
    name: str | None = None
    amount: float | None = None
    stage: str | None = None
    close_date: str | None = None
    account_id: str | None = None
    owner_id: str | None = None
