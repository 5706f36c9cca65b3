"""The schemas in schemas/ are those of the models, and the models take the contract's own examples."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from connector.model.documents import Document
from connector.model.objects import object_spec
from connector.schemas import DOCUMENTS, main, object_schema, schemas, text_of
from tests.fakes import real_describe

DIRECTORY = Path(__file__).parents[2] / "schemas"

CHANGE: Mapping[str, Any] = {
    "object": "Contact",
    "id": "0037e00000XyzAbAAB",
    "operation": "update",
    "version": 1042,
    "changed": ["Phone"],
    "before": {"Phone": None},
    "after": {"Phone": "555-1234"},
    "record": {"Id": "0037e00000XyzAbAAB", "FirstName": "Jane"},
    "origin": "stream",
    "command_id": None,
    "commit": {
        "timestamp": "2026-11-22T17:26:39.120Z",
        "number": 92847272780,
        "user": "0057e00000RmwSWAAZ",
        "transaction": "001b7375-0086-250e-e6ca-b99bc3a8b69f",
        "sequence": 1,
    },
}
CHANGE_EVENT: Mapping[str, Any] = {
    "specversion": "1.0",
    "id": "lucidia/1042",
    "source": "/lucidia/salesforce/00D7e000000abcdEAA",
    "type": "blackroad.salesforce.record.update",
    "subject": "Contact/0037e00000XyzAbAAB",
    "time": "2026-11-22T17:26:39.157Z",
    "datacontenttype": "application/json",
    "dataschema": "urn:blackroad:salesforce:change:1",
    "data": CHANGE,
}
COMMAND: Mapping[str, Any] = {
    "command_id": "9b2e6d0c-6a4e-4a57-9d5f-0d7a1c1e8b11",
    "id": "0037e00000XyzAbAAB",
    "fields": {"Phone": "555-1234"},
    "external_id": {"field": "BlackRoad_Key__c", "value": "crm-77"},
    "base": {"version": 1041},
    "on_conflict": "merge",
    "expires_at": "2026-11-22T18:00:00Z",
    "sender": "billing",
    "reply_to": "billing/inbox",
    "correlation": "abc",
}
RESULT: Mapping[str, Any] = {
    "command_id": "9b2e6d0c-6a4e-4a57-9d5f-0d7a1c1e8b11",
    "status": "succeeded",
    "object": "Contact",
    "operation": "update",
    "id": "0037e00000XyzAbAAB",
    "attempts": 1,
    "correlation": "abc",
    "errors": [],
    "conflict": None,
    "accepted_at": "2026-11-22T17:26:38.000Z",
    "completed_at": "2026-11-22T17:26:39.000Z",
}
HEALTH: Mapping[str, Any] = {
    "state": "ok",
    "node": "lucidia",
    "as_of": "2026-11-22T17:26:40.000Z",
    "version": 1042,
    "uptime_s": 86400,
    "stream": {
        "state": "live",
        "transport": "cometd",
        "since": "2026-11-21T17:26:40.000Z",
        "last_frame_at": "2026-11-22T17:26:39.000Z",
        "last_event_at": None,
    },
    "objects": {
        "Contact": {
            "records": 1200,
            "streamed": True,
            "last_polled_at": "2026-11-22T17:20:00.000Z",
            "verified_at": None,
            "drift": 0,
            "held": 0,
            "untold": 0,
            "holes": 0,
            "calculated_at": None,
        }
    },
    "queues": {"outbox": 0, "commands": 0, "quarantine": 0},
    "api": {"used": 812, "max": 15000, "own": {"command": 12, "repair": 3, "catch_up": 96, "verify": 8, "load": 9}},
    "lag_ms": {"p50": 4, "p99": 31},
    "last_error": None,
}
SIGNAL: Mapping[str, Any] = {
    "ts": "2026-11-22T17:26:40.000Z",
    "signal": "sync_complete",
    "from": "FND",
    "to": "OS",
    "msg": "sync_complete",
    "text": "✔️ FND → OS : sync_complete",
    "data": {"kind": "poll", "objects": ["Contact"], "records": 3, "duration_s": 0.4, "api_calls": 1},
}
HOLE: Mapping[str, Any] = {
    "object": "Lead",
    "from": "2026-11-22T17:26:40.000Z",
    "to": None,
    "reason": "the replay id is too old",
    "state": "open",
    "corrected": 0,
}
STATUS: Mapping[str, Any] = {"state": "online", "node": "lucidia", "version": "0.1.0", "since": SIGNAL["ts"]}
QUERY_REPLY: Mapping[str, Any] = {
    "ok": True,
    "object": "Contact",
    "verb": "get",
    "records": [{"Id": "0037e00000XyzAbAAB", "Phone": None, "_version": 7, "_modstamp": "2026-11-22T17:26:39.000Z"}],
    "next": None,
    "version": 1042,
    "replica": "5f1d7a84e92a4f0c8f7c2f6d6c1b9e30",
    "as_of": "2026-11-22T17:26:40.000Z",
    "stream": "live",
    "verified_at": None,
    "pending": [
        {
            "command_id": "crm-1",
            "id": "0037e00000XyzAbAAB",
            "operation": "update",
            "status": "accepted",
            "fields": {"Phone": "555-1234"},
            "accepted_at": "2026-11-22T17:26:38.000Z",
        }
    ],
    "correlation": "abc",
}
REPLY: Mapping[str, Any] = {"ok": True, "verb": "sync", "state": "started", "data": {}, "correlation": "abc"}
CREATED = {**CHANGE, "operation": "create", "before": None, "after": CHANGE["record"], "commit": None}
DELETED = {**CHANGE, "operation": "delete", "changed": [], "after": None, "record": None}
CONFLICT = {"Phone": {"base": None, "local": "555-1234", "remote": "555-9999"}}
REFUSED = {"code": "STRING_TOO_LONG", "message": "too long", "fields": ["Phone"]}

EXAMPLES = [
    ("change_event", CHANGE_EVENT),
    ("change", CHANGE),
    ("change", CREATED),
    ("change", DELETED),
    ("change", {**CHANGE, "origin": "command", "command_id": "crm-1"}),
    ("command", COMMAND),
    ("command", {"fields": {"LastName": "Doe"}}),
    ("command", {"id": "0037e00000XyzAbAAB", "base": {"last_modified": "2026-11-22T17:26:39.000+0000"}}),
    ("result", RESULT),
    ("result", {**RESULT, "status": "accepted", "attempts": 0, "completed_at": None}),
    ("result", {**RESULT, "status": "conflict", "conflict": CONFLICT}),
    ("result", {**RESULT, "status": "failed", "errors": [REFUSED]}),
    ("reply", REPLY),
    ("reply", {**REPLY, "verb": "status", "state": "done", "data": HEALTH}),
    (
        "reply",
        {"ok": False, "verb": "sync", "error": {"code": "unknown_object", "message": "X"}, "correlation": None},
    ),
    ("query", {"id": "0037e00000XyzAbAAB"}),
    ("query", {"limit": 5, "after": "x", "order_by": "Name desc", "fields": ["Name"]}),
    ("query", {"text": "acme", "reply_to": "a/b", "correlation": "c"}),
    ("query", {"where": {"Company": "Acme", "Amount": {"gte": 1000}}, "limit": 10}),
    ("query", {"since": 1042, "limit": 10}),
    ("query_reply", QUERY_REPLY),
    ("query_reply", {**QUERY_REPLY, "verb": "count", "records": [], "count": 3}),
    ("query_reply", {**QUERY_REPLY, "verb": "changes", "records": [CHANGE], "next": 1042, "pending": []}),
    (
        "query_reply",
        {
            "ok": False,
            "object": "Contact",
            "verb": "changes",
            "error": {"code": "snapshot_required", "message": "X"},
            "correlation": None,
        },
    ),
    ("status", STATUS),
    ("status", {**STATUS, "state": "offline", "since": None}),
    ("health", HEALTH),
    ("hole", HOLE),
    ("hole", {**HOLE, "state": "closed", "to": "2026-11-22T18:00:00.000Z", "corrected": 2}),
    (
        "rejected",
        {"topic": "blackroad/salesforce/command/Contact/update", "reason": "payload: not JSON", "payload": "{"},
    ),
    ("signal", SIGNAL),
    ("signal", {**SIGNAL, "signal": "records_updated", "msg": "records_updated, count=3"}),
]

WRONG = [
    ("change", {**CHANGE, "version": 0}),
    ("change", {**CHANGE, "operation": "upsert"}),
    ("change", {**CHANGE, "id": "0037e00000XyzAb"}),
    ("change_event", {**CHANGE_EVENT, "time": "2026-11-22T17:26:39Z"}),
    ("command", {**COMMAND, "command_id": "a/b"}),
    ("command", {**COMMAND, "base": {"version": 1041, "last_modified": "2026-11-22T17:26:39.000Z"}}),
    ("command", {**COMMAND, "colour": "red"}),
    ("result", {**RESULT, "status": "sending"}),
    ("query", {"since": -1}),
    ("query", {"id": "0037e00000XyzAbAAB", "order_by": "Name"}),
    ("query", {"where": {"Name": {"nope": 1}}}),
    ("query_reply", {**QUERY_REPLY, "stream": "fine"}),
    ("reply", {"ok": True, "verb": "sync", "error": {"code": "x", "message": "y"}, "correlation": None}),
    ("health", {**HEALTH, "state": "fine"}),
    ("hole", {name: value for name, value in HOLE.items() if name != "to"}),
]


def _validate(name: str, document: Mapping[str, Any]) -> None:
    TypeAdapter(DOCUMENTS[name][1]).validate_json(json.dumps(document))


@pytest.mark.parametrize(("name", "document"), EXAMPLES)
def test_the_contracts_examples_fit(name: str, document: Mapping[str, Any]) -> None:
    """What services were promised is what the models, and so the schemas, describe."""
    _validate(name, document)


@pytest.mark.parametrize(("name", "document"), WRONG)
def test_what_the_contract_rules_out_does_not_fit(name: str, document: Mapping[str, Any]) -> None:
    """A schema that takes everything would guard nothing."""
    with pytest.raises(ValidationError):
        _validate(name, document)


def test_the_files_are_those_of_the_models() -> None:
    """After a change of a model: `make schemas`."""
    files = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.iterdir()}
    assert files == {f"{name}.json": text_of(schema) for name, schema in schemas().items()}


def test_every_published_document_has_its_schema() -> None:
    """A new message, or part of one, is described as soon as it has a model."""
    described = {name for schema in schemas().values() for name in schema.get("$defs", ())}
    messages = {model for _, model in DOCUMENTS.values() if isinstance(model, type)}
    models = {model for model in Document.__subclasses__() if model not in messages}
    assert {model.__name__ for model in models} <= described


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_stands_alone(name: str) -> None:
    """It says which dialect it is in and what it is called, and refers to nothing outside of itself."""
    schema = schemas()[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:blackroad:salesforce:{name}:1"
    assert all(ref.removeprefix("#/$defs/") in schema["$defs"] for ref in _references(schema))


def test_a_change_event_names_the_schema_of_its_data() -> None:
    """`dataschema` of the CloudEvent leads to schemas/change.json."""
    named = schemas()["change_event"]["properties"]["dataschema"]["const"]
    assert named == schemas()["change"]["$id"]


def test_main_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m connector.schemas`: all of them in one object, or one file each."""
    assert main([]) == 0
    assert json.loads(capsys.readouterr().out) == schemas()
    assert main([str(tmp_path)]) == 0
    assert {path.stem: json.loads(path.read_bytes()) for path in tmp_path.iterdir()} == schemas()


def test_an_object_is_described_field_by_field() -> None:
    """From a real describe result: kinds, lengths, picklists, references, what nobody may write."""
    wanted = [
        "FirstName",
        "Name",
        "Email",
        "AccountId",
        "Birthdate",
        "IsEmailBounced",
        "LastModifiedDate",
        "LeadSource",
    ]
    schema = object_schema(object_spec(real_describe("Contact"), wanted))
    assert (schema["title"], schema["$id"]) == ("Contact", "urn:blackroad:salesforce:object:Contact:1")
    assert schema["required"] == ["Id", *wanted]
    assert schema["properties"]["Id"] == {"type": "string", "pattern": "^003[A-Za-z0-9]+$", "readOnly": True}
    fields = schema["properties"]
    assert fields["FirstName"] == {"$comment": "string", "type": ["string", "null"], "maxLength": 40}
    assert fields["Name"]["readOnly"] is True
    assert "readOnly" not in fields["Email"]
    assert fields["AccountId"]["$comment"] == "reference to Account"
    assert fields["Birthdate"] == {"$comment": "date", "type": ["string", "null"], "format": "date"}
    assert fields["IsEmailBounced"]["type"] == ["boolean", "null"]
    assert fields["LastModifiedDate"]["format"] == "date-time"
    assert "enum" not in fields["LeadSource"]  # not restricted: anything is taken
    restricted = object_schema(object_spec(real_describe("Contact"), ["CleanStatus"]))["properties"]["CleanStatus"][
        "enum"
    ]
    assert restricted[-1] is None
    assert "Matched" in restricted


def _references(part: object) -> Iterator[str]:
    match part:
        case dict():
            for name, value in part.items():
                if name == "$ref":
                    yield value
                else:
                    yield from _references(value)
        case list():
            for value in part:
                yield from _references(value)
