"""Objects and their fields, as the org's describe result tells them and as the settings select them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "boolean", "integer", "number", "date", "datetime"]
_SHORT_TEXT_AREA = 255

_KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "int": "integer",
    "long": "integer",
    "double": "number",
    "currency": "number",
    "percent": "number",
    "date": "date",
    "datetime": "datetime",
}
_COMPOUND_TYPES = frozenset({"address", "location"})
# Binary and untyped values have no column form and are never in change events.
_UNSYNCED_TYPES = frozenset({"base64", "anyType", "complexvalue"})
# Read with every record under names of our own; `Id` is the key.
SYSTEM_FIELDS = frozenset({"Id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """One field of an object.

    Attributes:
        type: The org's type name (`string`, `picklist`, `currency`, ...).
        length: In characters; 0 where the type has none, or where the description may not tell the real one.
        compound: API name of the compound it is a part of (`MailingAddress`, `Name`), else None.
        values: Allowed values of a restricted picklist, else None.
        reference_to: Objects that a reference may point at.
        calculated: A formula or roll-up: changes without any event.

    Source: REST API Developer Guide, "sObject Describe".
    """

    name: str
    type: str
    length: int
    precision: int
    scale: int
    nillable: bool
    createable: bool
    updateable: bool
    defaulted_on_create: bool
    calculated: bool
    filterable: bool
    unique: bool
    external_id: bool
    compound: str | None
    values: frozenset[str] | None
    reference_to: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """How its values look in SQLite and in messages."""
        return _KINDS.get(self.type, "text")

    @property
    def searched(self) -> bool:
        """True if its words are found by a text search: every text but ids of other records.

        A full-text index of SQLite has names of its own for columns.
        """
        own = self.name.lower() in ("rank", "rowid")
        return self.kind == "text" and self.type not in ("reference", "id") and not own

    @property
    def looked_up(self) -> bool:
        """True if records are likely to be looked up by it; the org indexes the same fields.

        Source: Salesforce, "Working with Very Large SOQL Queries" (standard and custom indexes).
        """
        return self.name == "Name" or self.type in ("reference", "email") or self.unique or self.external_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSpec:
    """One synced object.

    Attributes:
        fields: The synced fields in the order of their columns, without `Id`.
        described: Every field the describe result tells, synced or not, compounds included.
        missing: Fields that the settings name and the org does not have (or does not show to us).
        modified_field: The field that says when a user last changed the record.
        modstamp_field: The field that the poller goes by.
        has_is_deleted: False for objects without a recycle bin.
        names: Of the synced fields, in the order of their columns.
        by_name: The synced fields by name.
        booleans: The synced fields that are true or false.
        searched: The synced fields whose words a text search finds.
        name_parts: The fields a person's `Name` is composed of, in order; empty where `Name` is a plain field.
    """

    name: str
    key_prefix: str
    fields: tuple[FieldSpec, ...]
    described: Mapping[str, FieldSpec]
    missing: tuple[str, ...]
    modified_field: str
    modstamp_field: str
    has_is_deleted: bool
    createable: bool
    updateable: bool
    deletable: bool
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    by_name: Mapping[str, FieldSpec] = field(init=False, repr=False, compare=False)
    booleans: frozenset[str] = field(init=False, repr=False, compare=False)
    searched: tuple[str, ...] = field(init=False, repr=False, compare=False)
    name_parts: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Asked for with every event: not worked out anew each time.
        person = "LastName" in self.described and "Name" in self.described
        parts = ("FirstName", "MiddleName", "LastName", "Suffix") if person else ()
        object.__setattr__(self, "name_parts", tuple(part for part in parts if part in self.described))
        object.__setattr__(self, "names", tuple(f.name for f in self.fields))
        object.__setattr__(self, "by_name", {f.name: f for f in self.fields})
        object.__setattr__(self, "booleans", frozenset(f.name for f in self.fields if f.kind == "boolean"))
        object.__setattr__(self, "searched", tuple(f.name for f in self.fields if f.searched))

    @property
    def table(self) -> str:
        """Name of its table in the replica."""
        return self.name.lower()

    def event_field(self, compound: str, part: str) -> str | None:
        """The field that a part of a nested compound stands for, or None.

        `Name.FirstName` is `FirstName`; `MailingAddress.City` is `MailingCity`; Lead's `Address.City` is `City`;
        `Location__c.Latitude` is `Location__Latitude__s`.

        Source: Change Data Capture Developer Guide, "Compound Fields".
        """
        if compound == "Name":
            candidates: tuple[str, ...] = (part,)
        elif compound.endswith("__c"):
            candidates = (f"{compound[:-3]}__{part}__s",)
        else:
            candidates = (compound.removesuffix("Address") + part,)
        return next((c for c in candidates if c in self.described), None)

    def read_fields(self) -> tuple[str, ...]:
        """What a query selects: the synced fields and those that order and date a record."""
        system = ["Id", self.modified_field, self.modstamp_field]
        if self.has_is_deleted:
            system.append("IsDeleted")
        return tuple(dict.fromkeys([*system, *(f.name for f in self.fields)]))


@dataclass(frozen=True, slots=True)
class ObjectColumns:
    """An object as its table has it.

    Attributes:
        fields: API name -> kind of every column but `Id` and our own, in order.
        searched: Those whose words a text search finds.
        looked_up: Those with an index of their own.
    """

    name: str
    table: str
    key_prefix: str
    fields: Mapping[str, Kind]
    searched: tuple[str, ...] = ()
    looked_up: tuple[str, ...] = ()


def field_spec(raw: Mapping[str, Any]) -> FieldSpec:
    """A field from one entry of a describe result's `fields`.

    Raises:
        KeyError, TypeError: The entry does not have the documented members.
    """
    restricted = raw.get("restrictedPicklist") and raw["type"] in ("picklist", "multipicklist")
    return FieldSpec(
        name=str(raw["name"]),
        type=str(raw["type"]),
        length=_length(raw),
        precision=int(raw.get("precision") or 0),
        scale=int(raw.get("scale") or 0),
        nillable=bool(raw.get("nillable", True)),
        createable=bool(raw.get("createable", False)),
        updateable=bool(raw.get("updateable", False)),
        defaulted_on_create=bool(raw.get("defaultedOnCreate", False)),
        calculated=bool(raw.get("calculated", False)),
        filterable=bool(raw.get("filterable", True)),
        unique=bool(raw.get("unique", False)),
        external_id=bool(raw.get("externalId", False)),
        compound=raw.get("compoundFieldName") or None,
        values=frozenset(str(v["value"]) for v in raw["picklistValues"] if v.get("active", True))
        if restricted
        else None,
        reference_to=tuple(raw.get("referenceTo") or ()),
    )


def _length(raw: Mapping[str, Any]) -> int:
    """In characters; 0 for a text area of 255, which may be a long one: some describes tell no more than that.

    Source: SOAP API Developer Guide, "DescribeSObjectResult", `length`; recorded describes contradict it.
    """
    length = int(raw.get("length") or 0)
    return 0 if raw["type"] == "textarea" and length == _SHORT_TEXT_AREA else length


def object_spec(describe: Mapping[str, Any], wanted: Sequence[str] | Literal["all"]) -> ObjectSpec:
    """The object that `wanted` selects out of a describe result.

    A compound address or geolocation among `wanted` stands for its parts, which is what the replica has columns for.

    Raises:
        KeyError, TypeError, ValueError: The describe result does not have the documented shape.
    """
    described = {f.name: f for f in (field_spec(raw) for raw in describe["fields"])}
    names = list(described) if wanted == "all" else list(wanted)
    chosen: dict[str, FieldSpec] = {}
    missing: list[str] = []
    for name in names:
        spec = described.get(name)
        if spec is None:
            missing.append(name)
        else:
            chosen.update({f.name: f for f in _columns(spec, described.values())})
    return ObjectSpec(
        name=str(describe["name"]),
        key_prefix=str(describe.get("keyPrefix") or ""),
        fields=tuple(chosen.values()),
        described=described,
        missing=tuple(missing),
        modified_field=_first(described, "LastModifiedDate", "SystemModstamp", "CreatedDate"),
        modstamp_field=_first(described, "SystemModstamp", "LastModifiedDate", "CreatedDate"),
        has_is_deleted="IsDeleted" in described,
        createable=bool(describe.get("createable")),
        updateable=bool(describe.get("updateable")),
        deletable=bool(describe.get("deletable")),
    )


def _columns(spec: FieldSpec, described: Iterable[FieldSpec]) -> list[FieldSpec]:
    if spec.type in _COMPOUND_TYPES:
        return [f for f in described if f.compound == spec.name and f.type not in _COMPOUND_TYPES]
    return [] if spec.type in _UNSYNCED_TYPES or spec.name in SYSTEM_FIELDS else [spec]


def _first(described: Mapping[str, FieldSpec], *names: str) -> str:
    for name in names:
        if name in described:
            return name
    raise ValueError(f"the object has none of {', '.join(names)}: it cannot be kept in step")
