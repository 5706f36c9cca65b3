"""A received change event becomes a `ChangeEvent`: pure, and nothing in the input is believed.

Where the documents leave a point open every variant is taken: `changedFields`, `nulledFields` and `diffFields` may be
there or not, a cleared part of a compound may be nested or its compound null, dates may be text or epoch milliseconds.

Source: Change Data Capture Developer Guide, "Change Event Header Fields", "Change Event Body Fields", "Compound
Fields", "Merged Change Events", "Gap Events", "Overflow Events".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from connector.errors import UndecodableEvent
from connector.inbound.values import empty_value, from_json
from connector.model.change import ChangeEvent, ChangeType, CommitInfo
from connector.model.ids import RecordId, to_record_id
from connector.model.objects import FieldSpec, ObjectSpec
from connector.model.times import to_ms

HEADER = "ChangeEventHeader"
OVERFLOW_ID = "000000000000000AAA"
# Values that no event brings, so that their absence says nothing; the poller keeps them.
NOT_STREAMED = frozenset(
    {
        "ChannelProgramLevelName",
        "ChannelProgramName",
        "Fiscal",
        "FiscalQuarter",
        "FiscalYear",
        "HasOpenActivity",
        "HasOverdueTask",
        "IsCustomerPortal",
        "IsDeleted",
        "IsEmailBounced",
        "IsPartner",
        "LastActivityDate",
        "LastReferencedDate",
        "LastViewedDate",
        "MasterRecordId",
        "PhotoUrl",
        "SystemModstamp",
    }
)
# Documented for platform events beside the fields; not fields of any record.
_NOT_FIELDS = frozenset({HEADER, "EventUuid", "EventApiName", "ReplayId"})
_COMPOUND_TYPES = frozenset({"address", "location"})
_WHOLE_RECORD = frozenset({ChangeType.CREATE, ChangeType.UNDELETE})
_CHANGE_TYPES = {kind.value: kind for kind in ChangeType}
_MAX_IDS = 100_000  # an event has at most 1 MB
_YEAR_10000_MS = 253_402_300_800_000  # ISO text reaches no further


class Header(BaseModel):
    """`ChangeEventHeader`, validated; members that we do not use are ignored."""

    model_config = ConfigDict(frozen=True, strict=True)

    entity: str = Field(alias="entityName", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,79}$")
    record_ids: list[str] = Field(alias="recordIds", min_length=1, max_length=_MAX_IDS)
    change_type: str = Field(alias="changeType")
    change_origin: str | None = Field("", alias="changeOrigin", max_length=1000)
    transaction_key: str | None = Field(None, alias="transactionKey", max_length=200)
    sequence_number: int | None = Field(None, alias="sequenceNumber", ge=0, lt=2**63)
    commit_ms: int = Field(alias="commitTimestamp", ge=0, lt=_YEAR_10000_MS)
    commit_number: int | None = Field(None, alias="commitNumber", ge=-(2**63), lt=2**63)
    commit_user: str | None = Field(None, alias="commitUser", max_length=100)
    changed_fields: list[str] | None = Field(None, alias="changedFields")
    nulled_fields: list[str] | None = Field(None, alias="nulledFields")
    diff_fields: list[str] | None = Field(None, alias="diffFields")


def decode(payload: object, specs: Mapping[str, ObjectSpec]) -> ChangeEvent | None:
    """The event in our terms; None for an entity that is not synced.

    Raises:
        UndecodableEvent: Naming what is wrong, without field values.
    """
    header = _header(payload)
    spec = specs.get(header.entity)
    if spec is None:
        return None
    change_type = _CHANGE_TYPES.get(header.change_type)
    if change_type is None:
        raise UndecodableEvent("changeType: unknown")
    ids, whole_object = _record_ids(header, spec)
    whole_object = whole_object or change_type is ChangeType.GAP_OVERFLOW
    body = _Body(spec, header, change_type)
    assert isinstance(payload, Mapping)  # noqa: S101  # `_header` has seen to it; mypy has not
    body.read(payload)
    return ChangeEvent(
        entity=header.entity,
        record_ids=() if whole_object else ids,
        change_type=change_type,
        values=body.values,
        partial_name=body.partial_name(),
        unclear=frozenset(body.unclear),
        diffs=body.diffs,
        unknown_fields=frozenset(body.unknown),
        whole_object=whole_object,
        commit=CommitInfo(
            timestamp_ms=header.commit_ms,
            number=header.commit_number,
            user=header.commit_user,
            transaction=header.transaction_key,
            sequence=header.sequence_number,
        ),
        change_origin=header.change_origin or "",
        modified_ms=_modified_ms(payload, header),
    )


def salvage(payload: object) -> tuple[str | None, tuple[RecordId, ...]]:
    """Entity and record ids of an event that cannot be decoded, as far as they can be read."""
    header = payload.get(HEADER) if isinstance(payload, Mapping) else None
    if not isinstance(header, Mapping):
        return None, ()
    entity, raw = header.get("entityName"), header.get("recordIds")
    ids: list[RecordId] = []
    for text in raw[:_MAX_IDS] if isinstance(raw, list) else ():
        try:
            ids.append(to_record_id(text))
        except (TypeError, ValueError):
            return entity if isinstance(entity, str) else None, ()
    return entity if isinstance(entity, str) else None, tuple(ids)


def transaction_of(payload: object) -> str | None:
    """The transaction's key, read leniently: events that share one are applied together."""
    header = payload.get(HEADER) if isinstance(payload, Mapping) else None
    key = header.get("transactionKey") if isinstance(header, Mapping) else None
    return key if isinstance(key, str) and key else None


def sequence_of(payload: object) -> int | None:
    """The event's number in its transaction, read leniently."""
    header = payload.get(HEADER) if isinstance(payload, Mapping) else None
    number = header.get("sequenceNumber") if isinstance(header, Mapping) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


@dataclass(slots=True)
class _Body:
    """Collects the record fields of one payload."""

    spec: ObjectSpec
    header: Header
    change_type: ChangeType
    values: dict[str, Any] = field(default_factory=dict)
    diffs: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    parts: set[str] = field(default_factory=set)  # of a person's name, that came nested
    unclear: set[str] = field(default_factory=set)

    def read(self, payload: Mapping[str, Any]) -> None:
        if self.change_type is ChangeType.DELETE or self.change_type.startswith("GAP_"):
            return
        for name, value in payload.items():
            if name not in _NOT_FIELDS:
                self._member(name, value)
        self._nulled()
        if "LastModifiedDate" in payload and "SystemModstamp" in self.spec.by_name:
            # Never in an event, and moved by every change that has one; a later system change is found by the poller.
            self._set(self.spec.by_name["SystemModstamp"], payload["LastModifiedDate"])
        if self.change_type in _WHOLE_RECORD:
            self._complete()
        else:
            self._check_changed()

    def partial_name(self) -> bool:
        return bool(self.parts) and "Name" not in self.values and "Name" in self.spec.by_name

    def _member(self, name: str, value: object) -> None:
        if not isinstance(name, str):
            raise UndecodableEvent("a field's name is not text")
        known = self.spec.described.get(name)
        if isinstance(value, Mapping):
            if set(value) == {"diff"}:
                self._diff(name, known, value["diff"])
            elif known is None or known.type in _COMPOUND_TYPES or (name == "Name" and self.spec.name_parts):
                self._compound(name, value)
            else:
                raise UndecodableEvent(f"{name}: parts, where a plain value is described")
        elif known is None:
            self.unknown.add(name)
        elif value is None and (known.type in _COMPOUND_TYPES or (name == "Name" and self.spec.name_parts)):
            self._null_compound(name)
        elif self.header.diff_fields and name in self.header.diff_fields:
            self._diff(name, known, value)
        else:
            self._set(known, value)

    def _set(self, known: FieldSpec, value: object) -> None:
        # Name's parts are kept even without a column: `Name` is composed of them.
        if known.name not in self.spec.by_name and known.name not in self.spec.name_parts:
            return
        if value is None and not self._is_nulled(known.name):
            return
        try:
            self.values[known.name] = from_json(known, value)
        except ValueError as error:
            raise UndecodableEvent(str(error)) from None

    def _is_nulled(self, name: str) -> bool:
        """Whether a null means "cleared": where `nulledFields` is given, only what it lists."""
        listed = self.header.nulled_fields
        return listed is None or self.change_type in _WHOLE_RECORD or any(self._field(n) == name for n in listed)

    def _field(self, listed: str) -> str | None:
        """The field that an entry of a header list stands for (`Name.FirstName`, `Phone`)."""
        compound, dot, part = listed.partition(".")
        return self.spec.event_field(compound, part) if dot else listed

    def _diff(self, name: str, known: FieldSpec | None, diff: object) -> None:
        if known is None:
            self.unknown.add(name)
        elif not isinstance(diff, str):
            raise UndecodableEvent(f"{name}: the diff is not text")
        elif name in self.spec.by_name:
            self.diffs[name] = diff

    def _compound(self, name: str, parts: Mapping[str, Any]) -> None:
        for part, value in parts.items():
            target = self.spec.event_field(name, str(part))
            if target is None:
                self.unknown.add(f"{name}.{part}")
                continue
            if isinstance(value, Mapping | list):
                raise UndecodableEvent(f"{name}.{part}: not a plain value")
            self._set(self.spec.described[target], value)
            if name == "Name" and target in self.values and target in self.spec.name_parts:
                self.parts.add(target)

    def _null_compound(self, name: str) -> None:
        """A compound that is null as a whole: the parts that `changedFields` names are cleared.

        Where it names none, nobody can tell whether the others were empty already.
        """
        if self.header.nulled_fields is not None or self.change_type in _WHOLE_RECORD:
            return  # `nulledFields` tells which; of a whole record everything is empty that is not listed
        named = {self._field(n) for n in self.header.changed_fields or () if n.startswith(f"{name}.")}
        for part in self._parts_of(name):
            if part in named:
                self._clear(name, part)
            elif not named:
                self.unclear.add(part)

    def _parts_of(self, compound: str) -> list[str]:
        """Columns of a compound's parts; those of a person's name even without a column."""
        return [
            part.name
            for part in self.spec.described.values()
            if part.compound == compound
            and part.name != compound
            and part.type not in _COMPOUND_TYPES
            and (part.name in self.spec.by_name or part.name in self.spec.name_parts)
        ]

    def _clear(self, compound: str, part: str) -> None:
        self.values[part] = None
        if compound == "Name":
            self.parts.add(part)

    def _nulled(self) -> None:
        for listed in self.header.nulled_fields or ():
            known = self.spec.described.get(listed)
            if known is not None and known.type in _COMPOUND_TYPES:
                for part in self._parts_of(listed):
                    self._clear(listed, part)
                continue
            name = self._field(listed)
            if name is not None and (name in self.spec.by_name or name in self.spec.name_parts):
                self.values[name] = None
                if listed.startswith("Name."):
                    self.parts.add(name)

    def _complete(self) -> None:
        """CREATE and UNDELETE replace the row: what they do not list is empty, where they could have listed it."""
        if "Name" in self.spec.by_name and "Name" not in self.values and self.spec.name_parts:
            self.values["Name"] = compose_name(self.spec, self.values)
        for known in self.spec.fields:
            if known.name not in self.values and known.name not in self.diffs and known.name not in NOT_STREAMED:
                self.values[known.name] = empty_value(known)

    def _check_changed(self) -> None:
        """A synced field that is said to have changed must have come with its value."""
        for listed in self.header.changed_fields or ():
            name = self._field(listed)
            if name not in self.spec.by_name or name in self.values or name in self.diffs:
                continue
            is_compound_name = name == "Name" and (self.parts or self.spec.name_parts)
            if not is_compound_name and name != self.spec.modified_field:
                raise UndecodableEvent(f"{name}: listed in changedFields, but its value is missing")


def compose_name(spec: ObjectSpec, values: Mapping[str, Any]) -> str | None:
    """A person's `Name` out of its parts, as orgs in Western locales compose it."""
    return " ".join(str(values[p]) for p in spec.name_parts if values.get(p)) or None


def _header(payload: object) -> Header:
    if not isinstance(payload, Mapping):
        raise UndecodableEvent("the payload is not an object")
    try:
        return Header.model_validate(payload.get(HEADER))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        places = (".".join((HEADER, *map(str, e["loc"][:1]))) + f": {e['type']}" for e in found[:5])
        raise UndecodableEvent("; ".join(places)) from None


def _record_ids(header: Header, spec: ObjectSpec) -> tuple[tuple[RecordId, ...], bool]:
    ids: dict[RecordId, None] = {}
    for text in header.record_ids:
        if text == OVERFLOW_ID or (text.endswith("*") and text[:-1] in (spec.key_prefix, "")):
            return (), True
        try:
            ids[to_record_id(text)] = None
        except ValueError as error:
            raise UndecodableEvent(f"recordIds: {error}") from None
        if spec.key_prefix and not text.startswith(spec.key_prefix):
            raise UndecodableEvent("recordIds: an id of another object")
    return tuple(ids), False


def _modified_ms(payload: Mapping[str, Any], header: Header) -> int:
    """`LastModifiedDate`, else the commit time cut to the second, which is the resolution of the former."""
    value = payload.get("LastModifiedDate")
    if isinstance(value, str):
        try:
            return to_ms(value)
        except ValueError:
            raise UndecodableEvent("LastModifiedDate: not a date-time") from None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _YEAR_10000_MS:
        return value
    return header.commit_ms // 1000 * 1000
