"""A create whose answer was lost: did the org take it?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connector.model.command import Command, CommandStatus
from connector.model.ids import RecordId, to_record_id
from connector.model.objects import FieldSpec, ObjectSpec
from connector.model.times import to_iso
from connector.ports import OrgClient, Purpose

# A transaction of the org may run ten minutes before its record becomes visible; clocks may differ by some.
BEFORE_MS = 5 * 60 * 1000
MAX_COMPARED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found out.

    Attributes:
        settled: SUCCEEDED (there it is), UNKNOWN (it cannot be told), or None: it is safe to send it again.
    """

    settled: CommandStatus | None
    record_id: RecordId | None = None


async def find_created(org: OrgClient, command: Command, spec: ObjectSpec, external_id: str | None) -> Found:
    """Look for the record that an earlier attempt may have made.

    With an external id the org itself can tell, and a repeat cannot make a second record: the field is unique.
    Without one the record is looked for by the fields sent; exactly one is ours, none or several are no proof.

    Raises:
        TransientError: The org could not be asked; ask again.
    """
    key = command.fields.get(external_id) if external_id else None
    if external_id and key is not None:
        page = await org.query(
            f"SELECT Id FROM {spec.name} WHERE {external_id} = {literal(spec.described[external_id], key)}",  # noqa: S608
            Purpose.COMMAND,
            deleted=True,
        )
        if page.records:
            return Found(settled=CommandStatus.SUCCEEDED, record_id=_id_of(page.records[0]))
        return Found(settled=None)
    page = await org.query(_by_fields(command, spec), Purpose.COMMAND, deleted=True)
    if len(page.records) == 1:
        return Found(settled=CommandStatus.SUCCEEDED, record_id=_id_of(page.records[0]))
    return Found(settled=CommandStatus.UNKNOWN)


def _by_fields(command: Command, spec: ObjectSpec) -> str:
    since = to_iso((command.accepted_ms - BEFORE_MS) // 1000 * 1000).replace(".000Z", "Z")
    tests = [f"CreatedDate >= {since}"]
    for name, value in command.fields.items():
        field = spec.described.get(name)
        if field is not None and field.filterable and len(tests) <= MAX_COMPARED:
            tests.append(f"{name} = {literal(field, value)}")
    return f"SELECT Id FROM {spec.name} WHERE {' AND '.join(tests)} LIMIT 2"  # noqa: S608 - literals are escaped


def _id_of(row: Mapping[str, Any]) -> RecordId:
    return to_record_id(str(row["Id"]))


def literal(field: FieldSpec, value: Any) -> str:
    """A value in wire form as a SOQL literal.

    Source: SOQL and SOSL Reference, "Quoted String Escape Sequences", "Date Formats and Date Literals".
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if field.kind in ("number", "integer"):
        return repr(value)
    if field.kind == "datetime":
        return str(value).replace(".000Z", "Z")
    if field.kind == "date":
        return str(value)
    return "'" + str(value).translate(_ESCAPES) + "'"


_ESCAPES = str.maketrans(
    {
        "\\": "\\\\",
        "'": "\\'",
        '"': '\\"',
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\b": "\\b",
        "\f": "\\f",
    }
)
