"""Is a command one that the org could take? Decided from the settings and the last describe, at no API cost."""

from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from connector.errors import CommandRejected
from connector.model.change import Operation
from connector.model.ids import RecordId, key_prefix, to_record_id
from connector.model.noun import dataclass
from connector.model.objects import FieldSpec, ObjectSpec
from connector.model.times import to_iso, to_ms
from connector.outbound.payload import CommandPayload
from connector.outbound.rules import WriteRules

_INT_LIMIT = 2**31
_NUMBER_LIMIT = 1e300  # and neither infinite nor NaN
_EMAIL_PARTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidWrite:
    """The part of a command that goes to the org, normalised."""

    record_id: RecordId | None
    external_id: tuple[str, str] | None
    fields: Mapping[str, Any]


def validate_write(
    operation: Operation, payload: CommandPayload, spec: ObjectSpec, rules: WriteRules, prefixes: Mapping[str, str]
) -> ValidWrite:
    """The write that `payload` asks for.

    Args:
        operation: From the topic.
        payload: Of the right shape already.
        spec: The object.
        rules: What the settings allow.
        prefixes: Key prefix -> object, as far as known, to check references.

    Raises:
        CommandRejected: With one line per problem.
    """
    problems = _forbidden(operation, spec, rules)
    problems += _wrong_members(operation, payload)
    record_id, wrong_id = _record_id(payload.id, spec)
    external_id, wrong_external = _external_id(operation, payload, spec)
    fields, wrong_fields = _fields(operation, payload, spec, rules, prefixes)
    if external_id is not None and fields.pop(external_id[0], external_id[1]) != external_id[1]:
        wrong_fields.append(f"fields.{external_id[0]}: differs from external_id")
    problems += wrong_id + wrong_fields + wrong_external
    if problems:
        raise CommandRejected(*problems)
    return ValidWrite(record_id=record_id, external_id=external_id, fields=fields)


def _forbidden(operation: Operation, spec: ObjectSpec, rules: WriteRules) -> list[str]:
    allowed = {
        Operation.CREATE: spec.createable,
        Operation.UPDATE: spec.updateable,
        Operation.UPSERT: spec.createable and spec.updateable,
        Operation.DELETE: spec.deletable,
    }
    if not rules.writable:
        return [f"{spec.name}: commands may not write this object (objects.{spec.name}.writable)"]
    if operation not in rules.operations:
        return [f"{spec.name}: commands may not {operation} this object (objects.{spec.name}.operations)"]
    if not allowed.get(operation, False):
        return [f"{spec.name}: the org does not let us {operation} this object"]
    return []


def _wrong_members(operation: Operation, payload: CommandPayload) -> list[str]:
    by_id = operation in (Operation.UPDATE, Operation.DELETE)
    if payload.record_of is not None and (payload.id is not None or not by_id):
        return ["record_of: not allowed in " + (f"{operation}" if not by_id else f"{operation} with an id")]
    needed = {
        "id": by_id and payload.record_of is None,
        "external_id": operation is Operation.UPSERT,
        "fields": operation is not Operation.DELETE,
    }
    problems = []
    for member, wanted in needed.items():
        given = getattr(payload, member) is not None
        if given != wanted:
            problems.append(f"{member}: {'missing' if wanted else 'not allowed'} in {operation}")
    return problems


def _record_id(text: str | None, spec: ObjectSpec) -> tuple[RecordId | None, list[str]]:
    if text is None:
        return None, []
    try:
        record_id = to_record_id(text)
    except ValueError as error:
        return None, [f"id: {error}"]
    if spec.key_prefix and key_prefix(record_id) != spec.key_prefix:
        return None, [f"id: begins with {key_prefix(record_id)}, but ids of {spec.name} begin with {spec.key_prefix}"]
    return record_id, []


def _external_id(
    operation: Operation, payload: CommandPayload, spec: ObjectSpec
) -> tuple[tuple[str, str] | None, list[str]]:
    if payload.external_id is None or operation is not Operation.UPSERT:
        return None, []
    field = spec.described.get(payload.external_id.field)
    if field is None or not field.external_id:
        return None, [f"external_id.field: {spec.name} has no such external id field"]
    value = payload.external_id.value.strip()
    if not value:
        return None, ["external_id.value: empty"]
    if field.length and len(value) > field.length:
        return None, [f"external_id.value: {len(value)} characters; at most {field.length} are taken"]
    if field.kind != "text" and not _is_number(value):
        return None, ["external_id.value: expected a number, as text"]
    return (field.name, value), []


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < _NUMBER_LIMIT
    except ValueError:
        return False


def _fields(
    operation: Operation,
    payload: CommandPayload,
    spec: ObjectSpec,
    rules: WriteRules,
    prefixes: Mapping[str, str],
) -> tuple[dict[str, Any], list[str]]:
    if operation is Operation.DELETE or payload.fields is None:
        return {}, []
    fields: dict[str, Any] = {}
    problems = [] if payload.fields else ["fields: empty"]
    for name, value in payload.fields.items():
        problem = _not_writable(name, operation, spec, rules)
        if problem is None:
            try:
                fields[name] = wire_value(spec.described[name], value, prefixes)
            except ValueError as error:
                problem = str(error)
        if problem is not None:
            problems.append(f"fields.{name[:80]}: {problem}")
    if operation is Operation.CREATE:
        problems += [
            f"fields.{f.name}: missing; {spec.name} needs it"
            for f in spec.fields
            if f.createable and not f.nillable and not f.defaulted_on_create and payload.fields.get(f.name) is None
            if f.kind != "boolean" and f"fields.{f.name}: null is not allowed" not in problems
        ]
    return fields, problems


def _not_writable(name: str, operation: Operation, spec: ObjectSpec, rules: WriteRules) -> str | None:
    field = spec.described.get(name)
    if field is None:
        return f"{spec.name} has no such field"
    if name not in spec.by_name and name != rules.external_id:
        return "not synced; add it to the object's fields in the settings"
    if rules.fields and name not in rules.fields:
        return f"commands may not write it (objects.{spec.name}.writable_fields)"
    if operation in (Operation.CREATE, Operation.UPSERT) and not field.createable:
        return "the org does not let us set it"
    if operation in (Operation.UPDATE, Operation.UPSERT) and not field.updateable:
        return "the org does not let us change it"
    return None


def wire_value(field: FieldSpec, value: object, prefixes: Mapping[str, str]) -> Any:  # noqa: PLR0911 - one per kind
    """`value` in wire form, as the org will store it.

    Raises:
        ValueError: Wrong type, too long or not allowed; the text does not repeat the value.
    """
    if value is None or value == "":
        if not field.nillable:
            raise ValueError("null is not allowed")
        return None
    match field.kind:
        case "boolean":
            return _boolean(value)
        case "integer":
            return _integer(field, value)
        case "number":
            return _number(field, value)
        case "date":
            return _date(value)
        case "datetime":
            return _datetime(value)
        case "text":
            return _text(field, value, prefixes)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 - one error type for every wrong value
    return value


def _integer(field: FieldSpec, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise ValueError("expected a whole number")
    if abs(value) >= _INT_LIMIT and field.type == "int":
        raise ValueError("outside the range of a whole number field")
    return int(value)


def _number(field: FieldSpec, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _NUMBER_LIMIT:
        raise ValueError("expected a number")
    if field.precision and abs(value) >= 10 ** (field.precision - field.scale):
        raise ValueError(f"at most {field.precision - field.scale} digits before the decimal point")
    # The org rounds on save: what is compared later is what it stores.
    if not field.precision:
        return float(value)
    return float(Decimal(str(value)).quantize(Decimal(1).scaleb(-field.scale), ROUND_HALF_UP))


def _date(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a date, YYYY-MM-DD")  # noqa: TRY004 - one error type for every wrong value
    try:
        return date.fromisoformat(value).isoformat() if len(value) == len("2026-01-01") else _no_date()
    except ValueError:
        return _no_date()


def _no_date() -> str:
    raise ValueError("expected a date, YYYY-MM-DD")


def _datetime(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected an ISO 8601 date-time with a zone")  # noqa: TRY004 - one error type for every wrong value
    # The org keeps whole seconds.
    return to_iso(to_ms(value) // 1000 * 1000)


def _text(field: FieldSpec, value: object, prefixes: Mapping[str, str]) -> str | None:
    if not isinstance(value, str):
        raise ValueError("expected text")  # noqa: TRY004 - one error type for every wrong value
    if field.type == "reference":
        return _reference(field, value, prefixes)
    text = value.replace("\0", "").strip()  # the org trims on save: what is compared later is what it stores
    if field.length and len(text) > field.length:
        raise ValueError(f"{len(text)} characters; at most {field.length} are taken")
    if field.type == "email" and len([p for p in text.split("@") if p]) != _EMAIL_PARTS:
        raise ValueError("expected an email address")
    chosen = text.split(";") if field.type == "multipicklist" else [text]
    if field.values is not None and not field.values.issuperset(chosen):
        raise ValueError("not a value of this picklist")
    if not text and not field.nillable:
        raise ValueError("null is not allowed")
    return text or None


def _reference(field: FieldSpec, value: str, prefixes: Mapping[str, str]) -> RecordId:
    record_id = to_record_id(value)
    target = prefixes.get(key_prefix(record_id))
    if target is not None and field.reference_to and target not in field.reference_to:
        raise ValueError(f"an id of {target}, expected one of {' or '.join(field.reference_to)}")
    return record_id
