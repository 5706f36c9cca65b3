"""The schemas in schemas/ are those of the models, and the models take the contract's own examples."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from connector.model.documents import Document
from connector.model.objects import object_spec
from connector.schemas import DOCUMENTS, object_schema, schemas
from connector.schemas.__main__ import contract, main
from connector.schemas.messages import MESSAGES, examples
from tests.fakes import DESCRIBES, real_describe

DIRECTORY = Path(__file__).parents[2] / "schemas"
SCHEMAS = schemas()

CHANGE_EVENT, COMMAND, RESULT = (examples()[name][1]["payload"] for name in ("change", "command", "result"))
CHANGE = CHANGE_EVENT["data"]
QUERY_REPLY, HEALTH, HOLE = (examples()[name][0]["payload"] for name in ("query_reply", "health", "hole"))

EXAMPLES = [
    (message.document, example["payload"])
    for name, message in MESSAGES.items()
    if message.document is not None
    for example in examples()[name]
] + [("change", example["payload"]["data"]) for example in examples()["change"]]

WRONG = [
    ("change", {**CHANGE, "version": 0}),
    ("change", {**CHANGE, "operation": "upsert"}),
    ("change", {**CHANGE, "id": "0037e00000XyzAb"}),
    ("change_event", {**CHANGE_EVENT, "time": "2026-11-22T17:26:39Z"}),
    ("record", {"Name": "Jane Doe"}),
    ("command", {**COMMAND, "command_id": "a/b"}),
    ("command", {**COMMAND, "base": {"version": 1041, "last_modified": "2026-11-22T17:26:39.000Z"}}),
    ("command", {**COMMAND, "base": {}}),
    ("command", {**COMMAND, "colour": "red"}),
    ("result", {**RESULT, "status": "sending"}),
    ("query", {"since": -1}),
    ("query", {"id": "0037e00000XyzAbAAB", "order_by": "Name"}),
    ("control", {"objects": []}),
    ("control", {"command_id": "a/b"}),
    ("query_reply", {**QUERY_REPLY, "stream": "fine"}),
    ("reply", {"ok": True, "verb": "sync", "error": {"code": "x", "message": "y"}, "correlation": None}),
    ("health", {**HEALTH, "state": "fine"}),
    ("hole", {name: value for name, value in HOLE.items() if name != "to"}),
]


def _validate(name: str, document: Mapping[str, Any]) -> None:
    TypeAdapter(DOCUMENTS[name].model).validate_json(json.dumps(document))


@pytest.mark.parametrize(("name", "document"), EXAMPLES)
def test_the_contracts_examples_fit(name: str, document: Mapping[str, Any]) -> None:
    """What services were promised is what the models describe, and what the files say."""
    _validate(name, document)
    Draft202012Validator(SCHEMAS[name]).validate(document)


@pytest.mark.parametrize(("name", "document"), WRONG)
def test_what_the_contract_rules_out_does_not_fit(name: str, document: Mapping[str, Any]) -> None:
    """A model, and a schema, that take everything would guard nothing."""
    with pytest.raises(ValidationError):
        _validate(name, document)
    assert not Draft202012Validator(SCHEMAS[name]).is_valid(document)


def test_conditions_are_checked_beyond_their_schema() -> None:
    """Operators are told in words: the model knows them."""
    with pytest.raises(ValidationError):
        _validate("query", {"where": {"Name": {"nope": 1}}})


def test_the_files_are_those_of_the_models() -> None:
    """After a change of a model: `make schemas`."""
    files = {
        str(path.relative_to(DIRECTORY)): path.read_text(encoding="utf-8")
        for path in DIRECTORY.rglob("*")
        if path.is_file() and "released" not in path.parts
    }
    assert files == contract(DESCRIBES)


def test_every_published_document_has_its_schema() -> None:
    """A new message, or part of one, is described as soon as it has a model."""
    described = {name for schema in SCHEMAS.values() for name in schema.get("$defs", ())}
    messages = {described.model for described in DOCUMENTS.values() if isinstance(described.model, type)}
    models = {model for model in Document.__subclasses__() if model not in messages}
    assert {model.__name__ for model in models} <= described


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_stands_alone(name: str) -> None:
    """It says which dialect it is in and what it is called, and refers to nothing outside of itself."""
    schema = SCHEMAS[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:blackroad:salesforce:{name}:1"
    assert all(ref.removeprefix("#/$defs/") in schema["$defs"] for ref in _references(schema))


def test_a_change_event_names_the_schema_of_its_data() -> None:
    """`dataschema` of the CloudEvent leads to schemas/change.json."""
    named = SCHEMAS["change_event"]["properties"]["dataschema"]["const"]
    assert named == SCHEMAS["change"]["$id"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_is_one(name: str) -> None:
    """By the dialect's own schema."""
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_main_writes_the_files(tmp_path: Path) -> None:
    """`make schemas`."""
    assert main([str(tmp_path), str(DESCRIBES)]) == 0
    assert json.loads((tmp_path / "change.json").read_bytes()) == SCHEMAS["change"]
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert written == contract(DESCRIBES).keys()
    assert {"asyncapi.yaml", "objects/Contact.json"} <= written


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
