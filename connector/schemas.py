"""JSON Schemas of the messages on the mesh, made of the models that check them.

`python -m connector.schemas` prints them all, `python -m connector.schemas schemas` writes one file each there.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from connector.model.documents import (
    ChangeDocument,
    ChangeEventDocument,
    HealthDocument,
    HoleDocument,
    MirrorDocument,
    QueryRefusalDocument,
    QueryReplyDocument,
    RefusalDocument,
    RejectedDocument,
    ReplyDocument,
    ResultDocument,
    SignalDocument,
    StatusDocument,
)
from connector.model.objects import FieldSpec, Kind, ObjectSpec
from connector.outbound.payload import CommandPayload
from connector.serve.query.payload import QueryPayload

DIALECT = "https://json-schema.org/draft/2020-12/schema"
URN = "urn:blackroad:salesforce"
VERSION = 1

# Name -> where it stands, and the model. `change` is what the `dataschema` of a change event names.
DOCUMENTS: Mapping[str, tuple[str, Any]] = {
    "change_event": ("on {root}/change/{Object}/{operation}/{Id}", ChangeEventDocument),
    "change": ("`data` of a change event", ChangeDocument),
    "command": ("on {root}/command/{Object}/{operation}", CommandPayload),
    "result": ("on {root}/result/{command_id} and the command's reply address", ResultDocument),
    "query": ("on {root}/query/{Object}/{verb}: get, list, search, count, changes, describe", QueryPayload),
    "query_reply": ("on the query's reply address", QueryReplyDocument | QueryRefusalDocument),
    "reply": ("on the reply address, else on {root}/reply/{verb}", ReplyDocument | RefusalDocument),
    "status": ("on {root}/status, retained", StatusDocument),
    "mirror": ("on {root}/mirror/{node}, retained", MirrorDocument),
    "health": ("on {root}/health, retained; also `data` of the reply to `status`", HealthDocument),
    "hole": ("on {root}/hole/{Object}, retained while open", HoleDocument),
    "rejected": ("on {root}/rejected", RejectedDocument),
    "signal": ("on blackroad/signals/{FROM}/{TO}", SignalDocument),
}


_TYPES: Mapping[Kind, Mapping[str, str]] = {
    "text": {"type": "string"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}


class _Plain(GenerateJsonSchema):
    """Without titles that only repeat the members' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def schemas() -> dict[str, dict[str, Any]]:
    """Name -> JSON Schema 2020-12 of the message; each stands alone."""
    return {name: _schema(name, where, model) for name, (where, model) in DOCUMENTS.items()}


def _schema(name: str, where: str, model: Any) -> dict[str, Any]:
    made = TypeAdapter(model).json_schema(schema_generator=_Plain)
    head = {"$schema": DIALECT, "$id": f"{URN}:{name}:{VERSION}", "title": name, "$comment": where}
    return head | made | {"title": name}


def object_schema(spec: ObjectSpec) -> dict[str, Any]:
    """JSON Schema 2020-12 of a record of the object as changes and replies carry it.

    `readOnly` are the fields that no command may set, whatever the settings allow.
    """
    fields = {field.name: _field_schema(field) for field in spec.fields}
    return {
        "$schema": DIALECT,
        "$id": f"{URN}:object:{spec.name}:{VERSION}",
        "title": spec.name,
        "type": "object",
        "properties": {"Id": {"type": "string", "pattern": f"^{spec.key_prefix}[A-Za-z0-9]+$", "readOnly": True}}
        | fields,
        "required": ["Id", *fields],
    }


def _field_schema(field: FieldSpec) -> dict[str, Any]:
    schema: dict[str, Any] = {"$comment": field.type, **_TYPES[field.kind]}
    if field.kind == "text" and field.length:
        schema["maxLength"] = field.length
    if field.values is not None and field.type == "picklist":
        schema["enum"] = sorted(field.values)
    if field.reference_to:
        schema["$comment"] = f"reference to {', '.join(field.reference_to)}"
    # What the org keeps empty for now is null, whether a user may leave it so or not.
    schema["type"] = [schema["type"], "null"]
    if "enum" in schema:
        schema["enum"].append(None)
    if not (field.createable or field.updateable):
        schema["readOnly"] = True
    return schema


def text_of(schema: Mapping[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the schemas, or write them."""
    parser = argparse.ArgumentParser(prog="python -m connector.schemas", description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", help="where to write one file per schema")
    directory = parser.parse_args(arguments).directory
    if directory is None:
        sys.stdout.write(text_of(schemas()))
        return 0
    for name, schema in schemas().items():
        (directory / f"{name}.json").write_text(text_of(schema), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
