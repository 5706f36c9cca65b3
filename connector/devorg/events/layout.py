"""Where each field of an object stands in its change events."""

from collections.abc import Iterable
from dataclasses import dataclass

from connector.devorg.objects.fields import COMPOUND_TYPES, Field, ObjectSchema, component

ABSENT_FIELDS = frozenset(
    {
        # The record's place in the org, told by the header or by nothing.
        *("Id", "IsDeleted", "SystemModstamp", "MasterRecordId"),
        # Derived from other records or from who looks at the record.
        *("LastActivityDate", "LastViewedDate", "LastReferencedDate", "PhotoUrl"),
        *("IsEmailBounced", "IsPartner", "IsCustomerPortal", "ChannelProgramName", "ChannelProgramLevelName"),
        *("HasOpenActivity", "HasOverdueTask", "Fiscal", "FiscalQuarter", "FiscalYear"),
    }
)
"""Standard fields that the recorded event schemas of the standard objects do not have."""

_NAME_PARTS = ("Salutation", "FirstName", "LastName", "MiddleName", "Suffix", "InformalName")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place of one stored field.

    Attributes:
        name: API name of the field.
        type: Its describe type.
        parent: The compound it is nested in, or None.
        label: Its name inside the compound, else `name`.
        is_calculated: A formula or roll-up summary.
        is_formula: A custom formula.
        is_whole: One part of a geolocation that is always told whole.
    """

    name: str
    type: str
    parent: str | None
    label: str
    is_calculated: bool
    is_formula: bool
    is_whole: bool

    @property
    def path(self) -> str:
        """How `changedFields` names the field: `Phone`, `Name.FirstName`."""
        return self.name if self.parent is None else f"{self.parent}.{self.label}"


def slots_of(schema: ObjectSchema) -> tuple[Slot, ...]:
    """The fields of an object's events, in order; the parts of a compound stand together.

    Source: Change Data Capture Developer Guide, "Change Event Body Fields" and "Compound Fields".
    """
    slots = [_slot(schema, field) for field in schema.stored if _is_told(schema, field)]
    return tuple(_together(slots))


def _is_told(schema: ObjectSchema, field: Field) -> bool:
    composed = field.name == "Name" and bool(schema.parts("Name"))
    return not composed and (field.custom or field.name not in ABSENT_FIELDS)


def _slot(schema: ObjectSchema, field: Field) -> Slot:
    parent = _parent(schema, field)
    return Slot(
        name=field.name,
        type=field.type,
        parent=parent,
        label=field.name if parent is None else component(parent, field.name),
        is_calculated=field.calculated,
        is_formula=field.calculated and field.custom and field.raw.get("calculatedFormula") is not None,
        # Geolocations of custom objects come whole, those of standard objects by the component that changed.
        is_whole=parent is not None and schema.fields[parent].type == "location" and schema.name.endswith("__c"),
    )


def _parent(schema: ObjectSchema, field: Field) -> str | None:
    """The compound that events nest the field in; a fiscal period names a compound as well, but is none."""
    compound = schema.fields.get(field.compound_name or "")
    nested = compound is not None and (compound.type in COMPOUND_TYPES or compound.name == "Name")
    return field.compound_name if nested else None


def _together(slots: Iterable[Slot]) -> list[Slot]:
    """The parts of each compound where its first part stood, those of a person's name as they are spoken."""
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        groups.setdefault(slot.parent or slot.name, []).append(slot)
    if "Name" in groups:
        ranks = {label: rank for rank, label in enumerate(_NAME_PARTS)}
        groups["Name"].sort(key=lambda slot: ranks.get(slot.label, len(ranks)))
    return [slot for group in groups.values() for slot in group]
