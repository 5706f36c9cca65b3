"""Filter expressions: which records' events a channel delivers.

Source: Change Data Capture Developer Guide, "Filter Your Stream of Change Events with Channels". Conditions on the
event's header are not had here.
"""

from collections.abc import Iterator

import orjson

from connector.devorg.database import OrgDatabase
from connector.devorg.errors import OrgError
from connector.devorg.objects.schema import Schema
from connector.devorg.soql.compile import Plan, compile_query
from connector.devorg.soql.parse import parse
from connector.devorg.soql.tree import Condition, Joined, Negated


def filter_fields(entity: str, expression: str, schema: Schema) -> list[str]:
    """Names of the fields that an expression looks at; its channel delivers them always.

    Raises:
        ValueError: It is no expression over the object's fields.
    """
    try:
        _plan(entity, expression, schema)
    except OrgError as error:
        raise ValueError(f"filter of {entity}: {error.message.strip()}") from None
    condition = parse(_query(entity, expression)).where
    return sorted(set(_names(condition))) if condition is not None else []


def passing(
    payload: bytes, entity: str, expression: str, schema: Schema, database: OrgDatabase, *, gaps: bool
) -> bytes | None:
    """The event with those of its records that pass as they stand now; None where none does.

    A record that leaves the filter has no event, so that who listens to the channel alone keeps its old state.
    `gaps`: whether events without a body, which have nothing to be judged by, are delivered.
    """
    event = orjson.loads(payload)
    header = event.get("ChangeEventHeader") if isinstance(event, dict) else None
    if not isinstance(header, dict):
        return payload
    if str(header.get("changeType")).startswith("GAP_"):
        return payload if gaps else None
    statement, parameters = _plan(entity, expression, schema).among(header["recordIds"])
    found = {row[0] for row in database.connection.execute(statement, parameters)}
    kept = [record_id for record_id in header["recordIds"] if record_id in found]
    return orjson.dumps(event | {"ChangeEventHeader": header | {"recordIds": kept}}) if kept else None


def _query(entity: str, expression: str) -> str:
    return f"SELECT Id FROM {entity} WHERE {expression}"  # noqa: S608 - SOQL, which is parsed


def _plan(entity: str, expression: str, schema: Schema) -> Plan:
    return compile_query(parse(_query(entity, expression)), schema, include_deleted=True)


def _names(condition: Condition) -> Iterator[str]:
    if isinstance(condition, Joined):
        for part in condition.parts:
            yield from _names(part)
    elif isinstance(condition, Negated):
        yield from _names(condition.part)
    else:
        yield str(condition.path)
