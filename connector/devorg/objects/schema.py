"""The org's objects and fields: the recorded describe results and what is added to them at run time."""

import base64
import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import resources
from typing import Any

import orjson

from connector.devorg.clock import wall_ms
from connector.devorg.database import OrgDatabase
from connector.devorg.errors import OrgError
from connector.devorg.objects.describes import complete_field, complete_object
from connector.devorg.objects.fields import Field, ObjectSchema
from connector.devorg.objects.residents import MINIMAL_OBJECTS
from connector.devorg.objects.validation import stored_value

__all__ = ["RECORDED_OBJECTS", "Field", "ObjectSchema", "Schema"]

_DESCRIBES = resources.files("connector.devorg.objects") / "describe"
RECORDED_OBJECTS = tuple(
    sorted(file.name.removesuffix(".json") for file in _DESCRIBES.iterdir() if file.name.endswith(".json"))
)
"""The objects that the folder describes."""
_SYSTEM_FIELDS = frozenset(
    {"Id", "IsDeleted", "CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById", "SystemModstamp"}
)
_GLOBAL_MEMBERS = (
    "activateable",
    "createable",
    "custom",
    "customSetting",
    "deepCloneable",
    "deletable",
    "deprecatedAndHidden",
    "feedEnabled",
    "hasSubtypes",
    "isInterface",
    "isSubtype",
    "keyPrefix",
    "label",
    "labelPlural",
    "layoutable",
    "mergeable",
    "mruEnabled",
    "name",
    "queryable",
    "replicateable",
    "retrieveable",
    "searchable",
    "triggerable",
    "undeletable",
    "updateable",
    "urls",
)


class Schema:
    """Every object of the org by name; names are found in any case of letters, as Salesforce does.

    Attributes:
        selected: API names of the objects selected for Change Data Capture.
        modified_ms: When objects or fields last changed, milliseconds since the Unix epoch.

    Args:
        database: Where tables are made and changes are kept; None for a schema in memory only.
    """

    def __init__(self, database: OrgDatabase | None = None) -> None:
        self._database = database
        self._objects: dict[str, ObjectSchema] = {}
        self.selected: set[str] = set(RECORDED_OBJECTS)
        self.modified_ms = wall_ms()
        with self._unit():
            for describe in _bodies(database):
                self._put(describe)
        if database is not None:
            saved = database.meta("selected")
            self.selected = set(orjson.loads(saved)) if saved is not None else self.selected

    def _unit(self) -> AbstractContextManager[None]:
        """Make a change of tables and describes whole, or not at all."""
        return nullcontext() if self._database is None else self._database.transaction()

    def _put(self, describe: Mapping[str, Any]) -> ObjectSchema:
        schema = ObjectSchema.of(describe)
        self._objects[schema.name.lower()] = schema
        if self._database is not None:
            columns = {field.name: field.type for field in schema.stored}
            indexed = [field.name for field in schema.stored if field.indexed]
            self._database.create_table(schema.table, columns, indexed)
        return schema

    def _save(self, describe: dict[str, Any], now_ms: int | None) -> None:
        self._put(describe)
        self.modified_ms = wall_ms() if now_ms is None else now_ms
        if self._database is not None:
            body = orjson.dumps(describe).decode()
            self._database.connection.execute("INSERT OR REPLACE INTO describe VALUES (?, ?)", (describe["name"], body))

    def get(self, name: str) -> ObjectSchema | None:
        """Return an object by its API name in any case of letters, or None."""
        return self._objects.get(name.lower())

    def require(self, name: str) -> ObjectSchema:
        """Return an object.

        Raises:
            OrgError: 404 NOT_FOUND: there is no such object.
        """
        found = self.get(name)
        if found is None:
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        return found

    def by_prefix(self, key_prefix: str) -> ObjectSchema | None:
        """Return the object whose ids begin with `key_prefix`, or None."""
        return next((found for found in self._objects.values() if found.key_prefix == key_prefix), None)

    def names(self) -> list[str]:
        """Return the API names of all objects."""
        return [found.name for found in self._objects.values()]

    def describe(self, name: str) -> dict[str, Any]:
        """Return an object's describe result, the recorded one plus what was added.

        Raises:
            OrgError: 404 NOT_FOUND: there is no such object.
        """
        return dict(self.require(name).raw)

    def describe_global(self) -> dict[str, Any]:
        """Return the body of the global describe."""
        sobjects = [{key: found.raw[key] for key in _GLOBAL_MEMBERS} for found in self._objects.values()]
        return {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": sobjects}

    def event_schema_id(self, name: str) -> str:
        """Return the schema id of an object's change events: 22 URL-safe characters, others for other fields.

        Source: Change Data Capture Developer Guide, "Change Event Message Structure".
        """
        found = self.require(name)
        shape = [found.name, [(field.name, field.type) for field in found.fields.values()]]
        digest = hashlib.sha256(orjson.dumps(shape)).digest()[:16]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def select(self, *names: str) -> None:
        """Make `names` the objects selected for Change Data Capture, and remember it."""
        self.selected = {self.require(name).name for name in names}
        if self._database is not None:
            self._database.set_meta("selected", orjson.dumps(sorted(self.selected)).decode())

    def add_object(self, describe: Mapping[str, Any], now_ms: int | None = None) -> None:
        """Add an object; `name` and `keyPrefix` are enough, `fields` may be partial (see `add_field`).

        Raises:
            ValueError: The object exists, or cannot be described.
        """
        complete = complete_object(describe)
        if self.get(complete["name"]) is not None or self.by_prefix(complete["keyPrefix"]) is not None:
            raise ValueError(f"there is an object {complete['name']} or prefix {complete['keyPrefix']} already")
        with self._unit():
            self._save(complete, now_ms)

    def add_field(self, name: str, field: Mapping[str, Any], now_ms: int | None = None) -> None:
        """Add a field; `name` and `type` are enough, other describe members override what follows from them.

        Raises:
            OrgError: There is no such object.
            ValueError: The field exists, or cannot be described.
        """
        found = self.require(name)
        complete = complete_field(field)
        if found.field(complete["name"]) is not None:
            raise ValueError(f"{found.name} has a field {complete['name']} already")
        with self._unit():
            self._save({**found.raw, "fields": [*found.raw["fields"], complete]}, now_ms)

    def remove_field(self, name: str, field: str, now_ms: int | None = None) -> None:
        """Remove a field and its values.

        Raises:
            OrgError: There is no such object.
            ValueError: There is no such field, or the org cannot do without it.
        """
        found, old = self._existing(name, field)
        rest = [raw for raw in found.raw["fields"] if raw["name"] != old.name]
        with self._unit():
            if self._database is not None and old.stored:
                self._database.drop_column(found.table, old.name)
            self._save({**found.raw, "fields": rest}, now_ms)

    def change_field(self, name: str, field: str, now_ms: int | None = None, **members: Any) -> None:
        """Change describe members of a field; with another `type`, stored values are kept where they fit.

        Raises:
            OrgError: There is no such object.
            ValueError: There is no such field, or the org cannot do without it, or it cannot be described.
        """
        found, old = self._existing(name, field)
        kept = old.raw if members.get("type", old.type) == old.type else _kept_on_retype(old.raw)
        new = complete_field({**kept, **members, "name": old.name})
        fields = [new if raw["name"] == old.name else raw for raw in found.raw["fields"]]
        with self._unit():
            if self._database is not None and new["type"] != old.type:
                target = Field.of(new)
                self._database.retype_column(
                    found.table, old.name, target.type, lambda value: _converted(target, value)
                )
            self._save({**found.raw, "fields": fields}, now_ms)

    def _existing(self, name: str, field: str) -> tuple[ObjectSchema, Field]:
        found = self.require(name)
        old = found.field(field)
        if old is None:
            raise ValueError(f"{found.name} has no field {field}")
        if old.name in _SYSTEM_FIELDS:
            raise ValueError(f"{old.name} is a system field")
        return found, old


def _converted(field: Field, value: object) -> str | float | None:
    """Return a stored value in the type of another field, null (or false) where it does not fit."""
    try:
        converted: str | float | None = stored_value(field, str(value))
    except OrgError:
        return False if field.type == "boolean" else None
    return converted


def _kept_on_retype(raw: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("label", "nillable", "createable", "updateable", "externalId", "unique", "inlineHelpText")
    return {key: raw[key] for key in kept}


def _bodies(database: OrgDatabase | None) -> list[dict[str, Any]]:
    """Return all describe results: recorded, minimal, and in their place or behind them the saved ones."""
    recorded = [orjson.loads((_DESCRIBES / f"{name}.json").read_bytes()) for name in RECORDED_OBJECTS]
    bodies = {body["name"]: body for body in [*recorded, *map(complete_object, MINIMAL_OBJECTS)]}
    if database is not None:
        for row in database.connection.execute("SELECT body FROM describe ORDER BY rowid"):
            saved = orjson.loads(row["body"])
            bodies[saved["name"]] = saved
    return list(bodies.values())
