"""Objects and fields as the rest of the org reads them: typed views of their describe results."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

COMPOUND_TYPES = frozenset({"address", "location"})
"""Types whose value is put together from other fields and has no column."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """One field of an object, after its describe result; compared by identity.

    Attributes:
        picklist_values: The active values, in order.
        compound_name: API name of the compound this field is a part of (`MailingAddress`, `Name`), else None.
        raw: The describe result of the field.

    Source: REST API Developer Guide, "sObject Describe"; SOAP API Developer Guide, "DescribeSObjectResult".
    """

    name: str
    label: str
    type: str
    length: int
    precision: int
    scale: int
    digits: int
    createable: bool
    updateable: bool
    nillable: bool
    defaulted_on_create: bool
    default_value: Any
    restricted_picklist: bool
    picklist_values: tuple[str, ...]
    reference_to: tuple[str, ...]
    relationship_name: str | None
    external_id: bool
    unique: bool
    id_lookup: bool
    calculated: bool
    compound_name: str | None
    filterable: bool
    sortable: bool
    custom: bool
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Field":
        """Return the field that a complete describe result describes."""
        values = tuple(entry["value"] for entry in raw["picklistValues"] if entry["active"])
        # Account.Name is recorded as a part of itself; only a person account's name has parts.
        compound = raw["compoundFieldName"] if raw["compoundFieldName"] != raw["name"] else None
        return cls(
            name=raw["name"],
            label=raw["label"],
            type=raw["type"],
            length=raw["length"],
            precision=raw["precision"],
            scale=raw["scale"],
            digits=raw["digits"],
            createable=raw["createable"],
            updateable=raw["updateable"],
            nillable=raw["nillable"],
            defaulted_on_create=raw["defaultedOnCreate"],
            default_value=raw["defaultValue"],
            restricted_picklist=raw["restrictedPicklist"],
            picklist_values=values,
            reference_to=tuple(raw["referenceTo"]),
            relationship_name=raw["relationshipName"],
            external_id=raw["externalId"],
            unique=raw["unique"],
            id_lookup=raw["idLookup"],
            calculated=raw["calculated"],
            compound_name=compound,
            filterable=raw["filterable"],
            sortable=raw["sortable"],
            custom=raw["custom"],
            raw=raw,
        )

    @property
    def stored(self) -> bool:
        """Whether the field has a column; addresses and geolocations are put together from their parts."""
        return self.type not in COMPOUND_TYPES

    @property
    def required(self) -> bool:
        """Whether a create must bring a value."""
        return self.createable and not self.nillable and not self.defaulted_on_create

    @property
    def indexed(self) -> bool:
        """Whether rows are looked up by this field."""
        return self.stored and (
            self.external_id or self.unique or self.type == "reference" or (self.id_lookup and self.type != "id")
        )


@dataclass(frozen=True)
class ObjectSchema:
    """One object, after its describe result. A changed object is a new `ObjectSchema`: do not keep it for long.

    Attributes:
        fields: By API name, in the describe's order, compound fields included.
        table: Name of the SQLite table; its columns are the API names of the stored fields.
        raw: The describe result.
    """

    name: str
    key_prefix: str
    fields: Mapping[str, Field]
    table: str
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "ObjectSchema":
        """Return the object that a complete describe result describes."""
        fields = {field["name"]: Field.of(field) for field in raw["fields"]}
        return cls(
            name=raw["name"],
            key_prefix=raw["keyPrefix"],
            fields=fields,
            table=f"record_{raw['name'].lower()}",
            raw=raw,
        )

    @cached_property
    def _by_lower_name(self) -> Mapping[str, Field]:
        return {name.lower(): field for name, field in self.fields.items()}

    def field(self, name: str) -> Field | None:
        """Return a field by its API name in any case of letters, or None."""
        return self._by_lower_name.get(name.lower())

    @cached_property
    def stored(self) -> tuple[Field, ...]:
        """The fields that have a column."""
        return tuple(field for field in self.fields.values() if field.stored)

    @cached_property
    def _parts(self) -> Mapping[str, Mapping[str, Field]]:
        parts: dict[str, dict[str, Field]] = {}
        for field in self.fields.values():
            if field.compound_name in self.fields:
                name = component(str(field.compound_name), field.name)
                parts.setdefault(str(field.compound_name), {})[name] = field
        return parts

    def parts(self, compound: str) -> Mapping[str, Field]:
        """Return a compound's parts by the names events use: `{"Street": <MailingStreet>, ...}`; maybe none."""
        return self._parts.get(compound, {})


def component(compound: str, part: str) -> str:
    """Return a part's name inside its compound: (`MailingAddress`, `MailingCity`) gives `City`."""
    if part.endswith("__s"):  # geolocation: Place__c has Place__Latitude__s and Place__Longitude__s
        return part.removeprefix(compound.removesuffix("c")).removesuffix("__s")
    return part.removeprefix(compound.removesuffix("Address"))
