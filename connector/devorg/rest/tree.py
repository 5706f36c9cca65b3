"""sObject Tree: records with their children made in one call, all of them or none.

Source: REST API Developer Guide, "sObject Tree", "sObject Tree Response Body".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.objects.schema import Schema
from connector.devorg.records.transaction import Transaction
from connector.devorg.rest.calls import Call, Reply, not_allowed

MAX_RECORDS = 200
MAX_LEVELS = 5
MAX_TYPES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """One record of a tree; `parent` is its parent's reference id, stored in `parent_field`."""

    reference_id: str
    object: str
    values: Mapping[str, Any]
    parent: str | None
    parent_field: str


class Tree:
    """Answers `/composite/tree/<Object>`, at once and without an `await`."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def answer(self, call: Call, name: str) -> Reply:
        """Answer one call: 201 with the ids, or 400 with what is wrong.

        Raises:
            OrgError: The call as a whole is malformed.
        """
        if call.method != "POST":
            raise not_allowed(call.method, "POST")
        schema = self._schema.require(name)
        nodes = list(self._nodes(schema, call.object_body().get("records"), None, "", 1))
        _check(nodes)
        try:
            with call.begin() as transaction, transaction.atomic():
                ids = _plant(transaction, nodes)
        except _RefusedError as refused:
            return Reply(400, {"hasErrors": True, "results": refused.results})
        results = [{"referenceId": node.reference_id, "id": ids[node.reference_id]} for node in nodes]
        return Reply(201, {"hasErrors": False, "results": results})

    def _nodes(
        self, schema: ObjectSchema, records: Any, parent: str | None, parent_field: str, level: int
    ) -> Iterator[_Node]:
        """Yield the records of a tree, parents before their children."""
        if not isinstance(records, list):
            raise OrgError(400, "JSON_PARSER_ERROR", "The records property is required to be a list")
        if level > MAX_LEVELS:
            raise OrgError(400, "LIMIT_EXCEEDED", f"A tree has at most {MAX_LEVELS} levels")
        for record in records:
            reference_id = _reference_id(record, schema.name)
            children = {name: value for name, value in record.items() if _is_branch(name, value)}
            values = {name: value for name, value in record.items() if name not in children}
            yield _Node(
                reference_id=reference_id,
                object=schema.name,
                values=values,
                parent=parent,
                parent_field=parent_field,
            )
            for name, branch in children.items():
                child, field = self._relationship(schema, name)
                yield from self._nodes(child, branch["records"], reference_id, field, level + 1)

    def _relationship(self, schema: ObjectSchema, name: str) -> tuple[ObjectSchema, str]:
        for declared in schema.raw["childRelationships"]:
            child = self._schema.get(declared["childSObject"])
            if str(declared["relationshipName"]).lower() == name.lower() and child is not None:
                return child, str(declared["field"])
        raise OrgError(400, "INVALID_FIELD", f"No such relationship '{name}' on sobject of type {schema.name}")


class _RefusedError(Exception):
    def __init__(self, results: list[dict[str, Any]]) -> None:
        super().__init__()
        self.results = results


def _is_branch(name: str, value: Any) -> bool:
    return name != "attributes" and isinstance(value, dict) and "records" in value


def _reference_id(record: Any, name: str) -> str:
    attributes = record.get("attributes") if isinstance(record, dict) else None
    if not isinstance(attributes, dict) or str(attributes.get("type", "")).lower() != name.lower():
        raise OrgError(400, "INVALID_INPUT", f"Each record needs attributes with the type {name}")
    reference_id = attributes.get("referenceId")
    if not isinstance(reference_id, str) or not reference_id:
        raise OrgError(400, "INVALID_INPUT", "Each record needs attributes with a referenceId")
    return reference_id


def _check(nodes: list[_Node]) -> None:
    """Check the limits of a whole tree.

    Raises:
        OrgError: 400: a reference id is used twice, or there are too many records or types.
    """
    if not nodes or len(nodes) > MAX_RECORDS:
        raise OrgError(400, "LIMIT_EXCEEDED", f"A tree has 1 to {MAX_RECORDS} records")
    if len({node.object for node in nodes}) > MAX_TYPES:
        raise OrgError(400, "LIMIT_EXCEEDED", f"A tree has at most {MAX_TYPES} types of records")
    if len({node.reference_id for node in nodes}) < len(nodes):
        raise OrgError(400, "INVALID_INPUT", "A referenceId is used twice")


def _plant(transaction: Transaction, nodes: list[_Node]) -> dict[str, str]:
    """Make the records; one that cannot be made keeps its children from being tried.

    Raises:
        _RefusedError: With all that is wrong.
    """
    ids: dict[str, str] = {}
    refused: list[dict[str, Any]] = []
    for node in nodes:
        if node.parent is not None and node.parent not in ids:
            continue
        values = dict(node.values)
        if node.parent is not None:
            values[node.parent_field] = ids[node.parent]
        try:
            ids[node.reference_id] = transaction.create(node.object, values)
        except OrgError as error:
            refused.append({"referenceId": node.reference_id, "errors": [error.item()]})
    if refused:
        raise _RefusedError(refused)
    return ids
