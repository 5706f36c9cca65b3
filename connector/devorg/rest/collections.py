"""sObject Collections: up to 200 records in one call, each of them with its own outcome.

Source: REST API Developer Guide, "sObject Collections", "allOrNone Parameters in Composite and Collections Requests".
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from connector.devorg.context import Context
from connector.devorg.errors import OrgError
from connector.devorg.ids import is_id, normal_id
from connector.devorg.objects.schema import Schema
from connector.devorg.records.org import Org
from connector.devorg.records.transaction import Transaction, key_field
from connector.devorg.rest.calls import Call, Reply, call_of, not_allowed, response_of

MAX_RECORDS = 200
MAX_READ_RECORDS = 2000
MAX_CHUNKS = 10
_ROLLED_BACK = OrgError(
    400,
    "ALL_OR_NONE_OPERATION_ROLLED_BACK",
    "Record rolled back because not all records were valid and the request was using AllOrNone header",
    [],
)
Item = dict[str, Any]
Work = Callable[[Transaction, Any], Item]
"""Writes one record of a request and returns what is said of it."""


class Collections:
    """Answers calls below `/composite/sobjects`, each of them at once and without an `await`."""

    def __init__(self, org: Org, schema: Schema) -> None:
        self._org = org
        self._schema = schema

    def answer(self, call: Call) -> Reply:
        """Answer one call; the status is 200 even if every record was refused.

        Raises:
            OrgError: The call as a whole is malformed.
        """
        match (call.method, *call.path):
            case ("POST", "composite", "sobjects"):
                return self._write(call, _records(call), _create)
            case ("PATCH", "composite", "sobjects"):
                return self._write(call, _records(call), _update)
            case ("DELETE", "composite", "sobjects"):
                return self._write(call, _listed(call.query.get("ids", "")), self._delete)
            case ("PATCH", "composite", "sobjects", name, field):
                return self._upsert(call, self._schema.require(name).name, field)
            case ("GET" | "POST", "composite", "sobjects", name):
                return self._read(call, self._schema.require(name).name)
            case _:
                raise not_allowed(call.method, "DELETE", "GET", "PATCH", "POST")

    def _write(self, call: Call, records: Sequence[Any], work: Work) -> Reply:
        """Write every record in one transaction; one that is refused leaves the others alone."""
        if len(records) > MAX_RECORDS:
            message = f"record limit reached. cannot submit more than {MAX_RECORDS} records in this transaction"
            raise OrgError(400, "EXCEEDED_ID_LIMIT", message)
        with call.begin() as transaction:
            try:
                with transaction.atomic():
                    items = [_attempt(transaction, record, work) for record in records]
                    if _all_or_none(call):
                        _undo_unless_all(items)
            except _RolledBackError as rolled_back:
                items = [_undone(item) for item in rolled_back.items]
        return Reply(200, items)

    def _upsert(self, call: Call, name: str, field_name: str) -> Reply:
        field = key_field(self._schema.require(name), field_name).name

        records = _records(call)
        seen = Counter(_folded(_value_of(record, field)) for record in records)

        def work(transaction: Transaction, record: Any) -> Item:
            values = _values(record)
            _type_of(record, expected=name)
            value = _value_of(record, field)
            if value is not None and seen[_folded(value)] > 1:
                raise OrgError(400, "DUPLICATE_VALUE", f"Duplicate external id specified: {value}", [field])
            record_id, created = transaction.upsert(name, field, value, values)
            return {"id": record_id, "success": True, "errors": [], "created": created}

        return self._write(call, records, work)

    def _delete(self, transaction: Transaction, record_id: str) -> Item:
        schema = self._schema.by_prefix(record_id[:3])
        if not is_id(record_id) or schema is None:
            raise OrgError(400, "MALFORMED_ID", f"malformed id {record_id}", [])
        transaction.delete(schema.name, record_id)
        return {"id": normal_id(record_id), "success": True, "errors": []}

    def _read(self, call: Call, name: str) -> Reply:
        """Return records in the order of their ids, null for one that is not there."""
        if call.method == "GET":
            ids, fields = _listed(call.query.get("ids", "")), _listed(call.query.get("fields", ""))
        else:
            body = call.object_body()
            ids, fields = _texts(body.get("ids")), _texts(body.get("fields"))
        if len(ids) > MAX_READ_RECORDS:
            message = f"record limit reached. cannot submit more than {MAX_READ_RECORDS} records in this transaction"
            raise OrgError(400, "EXCEEDED_ID_LIMIT", message)
        if not ids or not fields:
            raise OrgError(400, "MISSING_ARGUMENT", "The ids and fields parameters are required")
        if "id" not in (field.lower() for field in fields):
            fields = [*fields, "Id"]
        found = [self._org.get(name, record_id) for record_id in ids]
        body_of = self._org.row_to_rest
        return Reply(200, [None if r is None else body_of(name, r, fields, call.version) for r in found])


class _RolledBackError(Exception):
    def __init__(self, items: list[Item]) -> None:
        super().__init__()
        self.items = items


def _undo_unless_all(items: list[Item]) -> None:
    if not all(item["success"] for item in items):
        raise _RolledBackError(items)


def _attempt(transaction: Transaction, record: Any, work: Work) -> Item:
    try:
        return work(transaction, record)
    except OrgError as error:
        return {"success": False, "errors": [error.item()]}


def _undone(item: Item) -> Item:
    """Return what is said of a record that would have been written but for the others; it keeps its id."""
    if not item["success"]:
        return item
    kept = {key: value for key, value in item.items() if key == "id"}
    return {**kept, "success": False, "errors": [_ROLLED_BACK.item()]}


def _create(transaction: Transaction, record: Any) -> Item:
    values = _values(record)
    return {"id": transaction.create(_type_of(record), values), "success": True, "errors": []}


def _update(transaction: Transaction, record: Any) -> Item:
    values = _values(record)
    record_id = next((values.pop(name) for name in list(values) if name.lower() == "id"), None)
    if not isinstance(record_id, str) or not record_id:
        raise OrgError(400, "MISSING_ARGUMENT", "Id not specified in an update call", [])
    transaction.update(_type_of(record), record_id, values)
    return {"id": normal_id(record_id), "success": True, "errors": []}


def _values(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise OrgError(400, "JSON_PARSER_ERROR", "Each of the records is required to be a JSON object", [])
    return {name: value for name, value in record.items() if name != "attributes"}


def _value_of(record: Any, field: str) -> Any:
    """Return what a record brings for a field, its name in any case of letters."""
    members = record.items() if isinstance(record, dict) else ()
    return next((value for name, value in members if name.lower() == field.lower()), None)


def _folded(value: Any) -> str:
    return str(value).strip().casefold()


def _type_of(record: dict[str, Any], expected: str = "") -> str:
    attributes = record.get("attributes")
    name = attributes.get("type") if isinstance(attributes, dict) else None
    if not isinstance(name, str):
        raise OrgError(400, "INVALID_TYPE", "sObject type is required in the attributes of each record", [])
    if expected and name.lower() != expected.lower():
        raise OrgError(400, "INVALID_TYPE", f"sObject type '{name}' is not '{expected}'", [])
    return name


def _records(call: Call) -> list[Any]:
    """Return the records of a request.

    Raises:
        OrgError: There is no list of records, or its object changes too often from one to the next.
    """
    records = call.object_body().get("records")
    if not isinstance(records, list):
        raise OrgError(400, "JSON_PARSER_ERROR", "The records property is required to be a list")
    types = [_type_or_empty(record) for record in records]
    chunks = sum(1 for place, name in enumerate(types) if place == 0 or name != types[place - 1])
    if chunks > MAX_CHUNKS:
        message = (
            f"Cannot have more than {MAX_CHUNKS} chunks in a single operation."
            " Please rearrange the data to reduce chunking."
        )
        raise OrgError(400, "LIMIT_EXCEEDED", message)
    return records


def _type_or_empty(record: Any) -> str:
    attributes = record.get("attributes") if isinstance(record, dict) else None
    return str(attributes.get("type", "")).lower() if isinstance(attributes, dict) else ""


def _all_or_none(call: Call) -> bool:
    if call.method == "DELETE":
        return call.query.get("allOrNone", "").lower() == "true"
    return call.object_body().get("allOrNone") is True


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def routes(context: Context) -> list[web.RouteDef]:
    """The collections resources."""
    resource = Collections(context.org, context.schema)

    async def handle(request: web.Request) -> web.Response:
        return response_of(resource.answer(await call_of(request, context)))

    base = "/services/data/{version}/composite/sobjects"
    paths = (base, f"{base}/", f"{base}/{{object}}", f"{base}/{{object}}/{{field}}")
    return [web.route("*", path, handle) for path in paths]
