"""What the connector publishes and answers, checked: nothing that comes from the mesh is believed as it is. Pure.

Members that are not known here are let pass, so that a mirror understands a newer connector.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from connector.errors import PoisonError
from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.documents import ChangeDocument, Iso
from connector.model.ids import RecordId
from connector.model.objects import FieldSpec, Kind, ObjectSpec
from connector.model.record import StoredRecord
from connector.model.times import to_ms

T = TypeVar("T")

_ApiName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,79}$")]
_MAX_INTEGER = 2**63
# The org's types that make columns of these kinds; texts that are not searched have the type of an id.
_TYPES: Mapping[Kind, str] = {
    "text": "string",
    "boolean": "boolean",
    "integer": "int",
    "number": "double",
    "date": "date",
    "datetime": "datetime",
}


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, defer_build=True)


class Reply(_Document):
    """The reply to a query that was answered."""

    ok: Literal[True]
    replica: str = Field(min_length=1, max_length=64)
    version: int = Field(ge=0, lt=_MAX_INTEGER)
    next: str | int | None
    records: list[dict[str, Any]]


class _Error(_Document):
    code: str
    message: str


class Refusal(_Document):
    """The reply to a query that was not."""

    ok: Literal[False]
    error: _Error


class TableField(_Document):
    """One column of an object's table."""

    name: _ApiName
    kind: Kind
    searched: bool
    looked_up: bool


class Table(_Document):
    """An object as the connector's table has it.

    Attributes:
        loaded: Which load its rows are of; None while they are not all there.
    """

    object: _ApiName
    key_prefix: str = Field(pattern=r"^[A-Za-z0-9]{0,3}$")
    loaded: str | None = Field(max_length=200)
    fields: tuple[TableField, ...] = Field(strict=False, max_length=1900)

    def spec(self) -> ObjectSpec:
        """The object as far as its table goes."""
        return ObjectSpec(
            name=self.object,
            key_prefix=self.key_prefix,
            fields=tuple(_field_spec(field) for field in self.fields),
            described={},
            missing=(),
            modified_field="LastModifiedDate",
            modstamp_field="SystemModstamp",
            has_is_deleted=True,
            createable=False,
            updateable=False,
            deletable=False,
        )


class _ChangeData(ChangeDocument):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, defer_build=True)

    object: _ApiName


class _ChangeEvent(_Document):
    time: Iso
    data: _ChangeData


class _Status(_Document):
    state: str
    since: str | None


class _Row(_Document):
    id: str = Field(alias="Id", pattern=r"^[A-Za-z0-9]{18}$")
    version: int = Field(alias="_version", ge=0, lt=_MAX_INTEGER)
    modstamp: Iso = Field(alias="_modstamp")


_ANSWER: TypeAdapter[Reply | Refusal] = TypeAdapter(Reply | Refusal)


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a page.

    Attributes:
        values: Every field but `Id`, not yet fitted to the table.
    """

    id: RecordId
    version: int
    modified_ms: int
    values: Mapping[str, Any]


def document(payload: bytes) -> dict[str, Any]:
    """A payload as a JSON object.

    Raises:
        PoisonError: It is none.
    """
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise PoisonError("not JSON") from error
    if not isinstance(found, dict):
        raise PoisonError("not a JSON object")
    return found


def answer(told: Mapping[str, Any]) -> Reply | Refusal:
    """A reply to a query; PoisonError if it has not the form of one."""
    return _checked(_ANSWER.validate_python, told)


def table(told: Mapping[str, Any]) -> Table:
    """A record of the reply to `describe`; PoisonError if it has not the form of one."""
    return _checked(Table.model_validate, told)


def row(told: Mapping[str, Any]) -> Row:
    """A record of the reply to `list`; PoisonError if it has not the form of one."""
    own = _checked(_Row.model_validate, told)
    values = {name: value for name, value in told.items() if name not in ("Id", "_version", "_modstamp")}
    return Row(RecordId(own.id), own.version, to_ms(own.modstamp), values)


def change(told: Mapping[str, Any], now_ms: int) -> Change:
    """A record of the reply to `changes`, applied when it was committed, else now; PoisonError if it is none."""
    data = _checked(_ChangeData.model_validate, told)
    return _change(data, to_ms(data.commit.timestamp) if data.commit is not None else now_ms)


def change_event(payload: bytes) -> Change:
    """A published change; PoisonError if it is none."""
    event = _checked(_ChangeEvent.model_validate, document(payload))
    return _change(event.data, to_ms(event.time))


def birth(payload: bytes) -> str | None:
    """Since when the connector is there, as its status says; None where it is not."""
    status = _checked(_Status.model_validate, document(payload))
    return status.since if status.state == "online" else None


def stored(spec: ObjectSpec, read: Row, now_ms: int) -> StoredRecord:
    """A record of a page as a row of the table."""
    return StoredRecord(
        id=read.id,
        values=fitted(spec, read.values),
        version=read.version,
        synced_ms=now_ms,
        deleted_ms=None,
        modified_ms=read.modified_ms,
    )


def fitted(spec: ObjectSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every column's value; null where there is none, or one of another kind: the table is about to change then."""
    return {f.name: value if _fits(f.kind, value := values.get(f.name)) else None for f in spec.fields}


def _fits(kind: Kind, value: object) -> bool:
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_INTEGER
        case "number":
            return isinstance(value, float) or _fits("integer", value)
        case _:
            return isinstance(value, str)


def _change(data: _ChangeData, applied_ms: int) -> Change:
    commit = None
    if data.commit is not None:
        told = data.commit
        commit = CommitInfo(to_ms(told.timestamp), told.number, told.user, told.transaction, told.sequence)
    return Change(
        version=data.version,
        object=data.object,
        id=RecordId(data.id),
        operation=Operation(data.operation),
        changed=tuple(data.changed),
        before=_without_id(data.before),
        after=_without_id(data.after),
        record=_without_id(data.record),
        origin=Origin(data.origin),
        command_id=data.command_id,
        commit=commit,
        applied_ms=applied_ms,
    )


def _without_id(values: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if values is None else {name: value for name, value in values.items() if name != "Id"}


def _field_spec(field: TableField) -> FieldSpec:
    return FieldSpec(
        name=field.name,
        type="id" if field.kind == "text" and not field.searched else _TYPES[field.kind],
        length=0,
        precision=0,
        scale=0,
        nillable=True,
        createable=False,
        updateable=False,
        defaulted_on_create=False,
        calculated=False,
        filterable=True,
        unique=field.looked_up,
        external_id=False,
        compound=None,
        values=None,
        reference_to=(),
    )


def _checked(validate: Callable[[Any], T], told: Mapping[str, Any]) -> T:
    try:
        return validate(told)
    except ValidationError as error:
        # The places alone: values must not reach a log.
        places = sorted({".".join(map(str, item["loc"]))[:80] for item in error.errors(include_url=False)})
        raise PoisonError(f"not of the documented form: {', '.join(places[:5])}") from None
