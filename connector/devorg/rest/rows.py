"""The sObject resources: describes, single records, records by external id.

Source: REST API Developer Guide, "sObject Describe", "sObject Rows", "sObject Rows by External ID".
"""

from collections.abc import Sequence
from typing import Any

import orjson

from connector.devorg.clock import http_date, http_date_ms, stamp_ms
from connector.devorg.errors import OrgError
from connector.devorg.ids import is_id, normal_id
from connector.devorg.objects.fields import Field, ObjectSchema
from connector.devorg.objects.schema import Schema
from connector.devorg.objects.validation import stored_value
from connector.devorg.records.org import Org, Record
from connector.devorg.records.transaction import key_field
from connector.devorg.rest import conditions
from connector.devorg.rest.calls import Call, Reply, not_allowed

_ID_LENGTHS = (15, 18)
_UPSERT_BODY_SINCE = 46.0
_PRECONDITION_FAILED = 412
_CAPPED_LENGTH = 255
_RECORDED_BASE = b"/services/data/vxx.0/"


class Rows:
    """Answers calls below `/sobjects`, each of them at once and without an `await`."""

    def __init__(self, org: Org, schema: Schema) -> None:
        self._org = org
        self._schema = schema

    def answer(self, call: Call) -> Reply:
        """Answer one call.

        Raises:
            OrgError: It is refused.
        """
        match call.path:
            case ("sobjects",):
                return self._described(call, self._schema.describe_global())
            case ("sobjects", name):
                return self._object(call, self._schema.require(name))
            case ("sobjects", name, "describe"):
                return self._described(call, self._description(name))
            case ("sobjects", name, record_id):
                return self._row(call, self._schema.require(name), record_id)
            case ("sobjects", name, field, value):
                return self._keyed(call, self._schema.require(name), field, value)
            case _:
                raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")

    # Describes.

    def _described(self, call: Call, body: dict[str, Any]) -> Reply:
        """Answer with a describe; the recorded URLs get the version that was asked for."""
        if call.method != "GET":
            raise not_allowed(call.method, "HEAD", "GET")
        modified = self._schema.modified_ms // 1000 * 1000
        headers = {"Last-Modified": http_date(modified)}
        if modified <= _http_date_or_zero(call.headers.get("If-Modified-Since")):
            return Reply(304, headers=headers)
        versioned = orjson.dumps(body).replace(_RECORDED_BASE, f"/services/data/v{call.version}/".encode())
        return Reply(200, orjson.Fragment(versioned), headers)

    def _description(self, name: str) -> dict[str, Any]:
        described = self._schema.describe(name)
        if self._org.options.long_text_lengths:
            return described
        return described | {"fields": [_capped(field) for field in described["fields"]]}

    def _object(self, call: Call, schema: ObjectSchema) -> Reply:
        if call.method == "GET":
            entries = self._schema.describe_global()["sobjects"]
            entry = next(entry for entry in entries if entry["name"] == schema.name)
            return Reply(200, {"objectDescribe": entry, "recentItems": []})
        if call.method != "POST":
            raise not_allowed(call.method, "HEAD", "GET", "POST")
        with call.begin() as transaction:
            record_id = transaction.create(schema.name, call.object_body())
        location = f"/services/data/v{call.version}/sobjects/{schema.name}/{record_id}"
        return Reply(201, {"id": record_id, "success": True, "errors": []}, {"Location": location})

    # One record.

    def _row(self, call: Call, schema: ObjectSchema, record_id: str) -> Reply:
        if call.method not in ("GET", "PATCH", "DELETE"):
            raise not_allowed(call.method, "HEAD", "GET", "PATCH", "DELETE")
        record = self._existing(schema, record_id)
        if call.method == "GET":
            return self._read(call, schema, record)
        if call.method == "DELETE":
            return self._delete(call, schema, record)
        return self._update(call, schema, record)

    def _existing(self, schema: ObjectSchema, record_id: str) -> Record:
        """Return the record a URL names.

        Raises:
            OrgError: 404 NOT_FOUND or ENTITY_IS_DELETED, 400 MALFORMED_ID.
        """
        absent = f"Provided external ID field does not exist or is not accessible: {record_id}"
        if not record_id.isalnum() or len(record_id) not in _ID_LENGTHS:
            raise OrgError(404, "NOT_FOUND", absent)
        if not is_id(record_id) or not record_id.startswith(schema.key_prefix):
            message = f"{schema.raw['label']} ID: id value of incorrect type: {record_id}"
            raise OrgError(400, "MALFORMED_ID", message, ["Id"])
        record = self._org.get(schema.name, normal_id(record_id), include_deleted=True)
        if record is None:
            raise OrgError(404, "NOT_FOUND", absent)
        if record["IsDeleted"]:
            raise OrgError(404, "ENTITY_IS_DELETED", "entity is deleted", [])
        return record

    def _read(self, call: Call, schema: ObjectSchema, record: Record) -> Reply:
        has_etag = schema.name == conditions.ETAG_OBJECT
        headers = {"Last-Modified": http_date(stamp_ms(record["LastModifiedDate"]))}
        headers |= {"ETag": conditions.etag(record)} if has_etag else {}
        if (changed := self._changed(call, record, has_etag=has_etag, writing=False)) is not None:
            return changed
        if conditions.not_modified(call.headers, record, has_etag=has_etag):
            return Reply(304, headers=headers)
        names = [name.strip() for name in call.query.get("fields", "").split(",") if name.strip()]
        if names and "id" not in (name.lower() for name in names):
            names.append("Id")
        body = self._org.row_to_rest(schema.name, record, names or None, call.version)
        return Reply(200, body, headers)

    def _update(self, call: Call, schema: ObjectSchema, record: Record) -> Reply:
        has_etag = schema.name == conditions.ETAG_OBJECT
        if (changed := self._changed(call, record, has_etag=has_etag, writing=True)) is not None:
            return changed
        with call.begin() as transaction:
            transaction.update(schema.name, record["Id"], call.object_body())
        return Reply(204)

    def _changed(self, call: Call, record: Record, *, has_etag: bool, writing: bool) -> Reply | None:
        """The answer to a condition that does not hold where it has no body; None where the condition holds.

        Raises:
            OrgError: It does not hold, and the answer says so.
        """
        try:
            conditions.check_unchanged(call.headers, record, has_etag=has_etag, writing=writing)
        except OrgError as error:
            if error.status != _PRECONDITION_FAILED or self._org.options.precondition_bodies:
                raise
            return Reply(_PRECONDITION_FAILED)
        return None

    def _delete(self, call: Call, schema: ObjectSchema, record: Record) -> Reply:
        with call.begin() as transaction:
            transaction.delete(schema.name, record["Id"])
        return Reply(204)

    # Records by external id.

    def _keyed(self, call: Call, schema: ObjectSchema, field_name: str, value: str) -> Reply:
        if call.method not in ("GET", "PATCH", "DELETE"):
            raise not_allowed(call.method, "HEAD", "GET", "PATCH", "DELETE")
        key = key_field(schema, field_name)
        found = self._matching(schema, key, value)
        if len(found) > 1:
            urls = [f"/services/data/v{call.version}/sobjects/{schema.name}/{i}" for i in found]
            return Reply(300, urls)
        if call.method == "PATCH":
            return self._upsert(call, schema, key, value, found)
        if not found:
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        record = self._existing(schema, found[0])
        if call.method == "GET":
            return self._read(call, schema, record)
        return self._delete(call, schema, record)

    def _matching(self, schema: ObjectSchema, key: Field, value: str) -> list[str]:
        if key.type == "id":
            return [str(self._existing(schema, value)["Id"])]
        return self._org.find(schema.name, key.name, stored_value(key, value))

    def _upsert(self, call: Call, schema: ObjectSchema, key: Field, value: str, found: Sequence[str]) -> Reply:
        body = call.object_body()
        if any(name.lower() == key.name.lower() for name in body):
            message = f"The {key.name} field should not be specified in the sobject data."
            raise OrgError(400, "INVALID_FIELD", message)
        if found:
            self._update(call, schema, self._existing(schema, found[0]))
            if float(call.version) < _UPSERT_BODY_SINCE:
                return Reply(204)
            return Reply(200, {"id": found[0], "success": True, "errors": [], "created": False})
        if call.query.get("updateOnly", "").lower() == "true":
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        with call.begin() as transaction:
            record_id = transaction.create(schema.name, {**body, key.name: value})
        return Reply(201, {"id": record_id, "success": True, "errors": [], "created": True})


def _http_date_or_zero(text: str | None) -> int:
    """Return the milliseconds of an HTTP date; a malformed condition is no condition."""
    try:
        return 0 if text is None else http_date_ms(text)
    except (ValueError, OverflowError):
        return 0


def _capped(field: dict[str, Any]) -> dict[str, Any]:
    """A field with the length that some describes tell of a long text."""
    return field | {"length": min(field["length"], _CAPPED_LENGTH)} if field["type"] == "textarea" else field
