"""What comes over MQTT as what the client works with. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from connector.client.models import Row
from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.objects import Kind
from connector.model.times import to_ms


def rows_of(reply: Mapping[str, Any]) -> Sequence[Row]:
    """The records of a reply with what is under way on them; without those that are being deleted."""
    pending: dict[str, list[Mapping[str, Any]]] = {}
    for command in reply["pending"]:
        pending.setdefault(command["id"], []).append(command)
    return [
        _row(record, pending.get(record["Id"], ()), reply["version"])
        for record in reply["records"]
        if not any(command["operation"] == "delete" for command in pending.get(record["Id"], ()))
    ]


def _row(record: Mapping[str, Any], pending: Sequence[Mapping[str, Any]], version: int) -> Row:
    values = {name: value for name, value in record.items() if name not in ("Id", "_version", "_modstamp")}
    for command in pending:
        values.update({name: value for name, value in command["fields"].items() if name in values})
    ids = tuple(command["command_id"] for command in pending)
    return Row(record["Id"], values, record["_version"], record["_modstamp"], version, ids)


def kinds_of(schema: Mapping[str, Any]) -> Mapping[str, Kind]:
    """The kinds of an object's fields, out of its JSON Schema."""
    return {name: _kind(field) for name, field in schema["properties"].items() if name != "Id"}


def _kind(field: Mapping[str, Any]) -> Kind:
    match field["type"][0], field.get("format"):
        case "boolean", _:
            return "boolean"
        case "integer", _:
            return "integer"
        case "number", _:
            return "number"
        case _, "date":
            return "date"
        case _, "date-time":
            return "datetime"
        case _:
            return "text"


def change_of(document: Mapping[str, Any]) -> Change:
    """A change, out of the reply to `changes` of one record."""
    told = document["commit"]
    commit = None
    if told is not None:
        commit = CommitInfo(
            to_ms(told["timestamp"]), told["number"], told["user"], told["transaction"], told["sequence"]
        )
    return Change(
        version=document["version"],
        object=document["object"],
        id=document["id"],
        operation=Operation(document["operation"]),
        changed=tuple(document["changed"]),
        before=document["before"],
        after=document["after"],
        record=document["record"],
        origin=Origin(document["origin"]),
        command_id=document["command_id"],
        commit=commit,
        applied_ms=to_ms(document["applied_at"]),
    )
