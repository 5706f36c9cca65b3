"""One record as a user wrote it: read, derived, checked against every rule, stored."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.objects import validation
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.records.derive import defaults, derive
from connector.devorg.records.references import check_references, resolved
from connector.devorg.records.work import Record, Work


def create(work: Work, object_name: str, values: Mapping[str, Any]) -> str:
    """Create a record and return its id.

    Raises:
        OrgError: The values are refused.
    """
    schema = work.object_for(object_name, "create")
    cleaned = validation.clean(schema, resolved(work, schema, values), creating=True)
    with work.atomic():
        row = {**defaults(schema, work.user_id), **cleaned, **_birth(work, schema)}
        _save(work, schema, None, row, list(cleaned))
    return str(row["Id"])


def update(work: Work, object_name: str, record_id: str, values: Mapping[str, Any]) -> None:
    """Set fields of a live record.

    Raises:
        OrgError: There is no such live record, it is locked, or the values are refused.
    """
    schema = work.object_for(object_name, "update")
    before = work.live(schema, record_id)
    cleaned = validation.clean(schema, resolved(work, schema, values), creating=False)
    if before.get("IsConverted"):
        raise OrgError(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", [])
    _keep_amount(work, schema, before, cleaned)
    with work.atomic():
        _save(work, schema, before, {**before, **cleaned, **work.stamps()}, list(cleaned))


def _keep_amount(work: Work, schema: ObjectSchema, before: Record, cleaned: Record) -> None:
    """The amount of an opportunity with products is their sum; whether writing it is an error is left open.

    Source: Object Reference, "Opportunity", field Amount.
    """
    if schema.name != "Opportunity" or "Amount" not in cleaned or not before["HasOpportunityLineItem"]:
        return
    if work.parts.options.products_refuse_amount:
        message = "Amount: cannot be changed on an opportunity that has products"
        raise OrgError(400, "FIELD_INTEGRITY_EXCEPTION", message, ["Amount"])
    del cleaned["Amount"]


def _birth(work: Work, schema: ObjectSchema) -> Record:
    stamps = work.stamps()
    made = {"CreatedDate": stamps["SystemModstamp"], "CreatedById": work.user_id, "IsDeleted": False}
    return {**stamps, **made, "Id": work.parts.ids.make(schema.key_prefix)}


def _save(work: Work, schema: ObjectSchema, before: Record | None, row: Record, written: list[str]) -> None:
    """Derive, check and store one record as a user wrote it."""
    derive(schema, row, written, before)
    automatic = work.parts.rules.automation(schema.name, row)
    if automatic:
        row |= {n: validation.stored_value(schema.fields[n], value) for n, value in automatic.items()}
        derive(schema, row, list(automatic), before)
    validation.check_required(schema, row, None if before is None else written)
    check_references(work, schema, row, written)
    work.parts.rules.check(schema.name, row)
    work.parts.rules.check_duplicates(schema.name, row, partial(_matches, work), allow_save=work.allow_duplicates)
    _check_unique(work, schema, row, written)
    work.write(schema, before, row)


def _matches(work: Work, object_name: str, values: Mapping[str, Any]) -> list[str]:
    schema = work.object_for(object_name, "update")
    found = [set(work.parts.database.ids_where(schema.table, name, value)) for name, value in values.items()]
    return sorted(set.intersection(*found))


def _check_unique(work: Work, schema: ObjectSchema, row: Record, written: list[str]) -> None:
    for name in written:
        if not schema.fields[name].unique or row[name] is None:
            continue
        others = [i for i in work.find(schema, schema.fields[name], row[name]) if i != row["Id"]]
        if others:
            message = f"duplicate value found: {name} duplicates value on record with id: {others[0][:15]}"
            raise OrgError(400, "DUPLICATE_VALUE", message, [])
