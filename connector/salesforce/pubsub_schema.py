"""The Avro schema of change events: what of it we can read, and payloads read by it. Nothing in either is believed.

Only what the recorded schemas are made of is taken: a record whose first field is the header, of fields that are plain
or records of plain fields. That bounds what any payload can decode to by its own length.

Source: Pub/Sub API Developer Guide, "Event Deserialization Considerations"; the Avro specification 1.11.
"""

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import fastavro
import orjson

from connector.salesforce.pubsub_bitmaps import Field

HEADER = "ChangeEventHeader"
_PLAIN = frozenset({"boolean", "int", "long", "float", "double", "string"})
# Header, union, compound, union: nothing recorded is deeper.
_DEEPEST = 5
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError, struct.error)


class EventSchema:
    """One schema.

    Args:
        text: As GetSchema answers.

    Attributes:
        fields: In order, the header first.

    Raises:
        ValueError: It is not the schema of a change event.
    """

    def __init__(self, text: str) -> None:
        try:
            cleaned = _Cleaner().record(orjson.loads(text), 0)
            self._whole = fastavro.parse_schema(cleaned)
            header = cleaned["fields"][0]
            if header["name"] != HEADER or header["type"].get("type") != "record":
                raise ValueError("the header is not the first field")
            self._header = fastavro.parse_schema(header["type"])
        except (KeyError, TypeError, AttributeError, IndexError, fastavro.schema.SchemaParseException) as error:
            raise ValueError("not the Avro schema of a change event") from error
        records: dict[str, Sequence[str]] = {}
        self.fields: list[Field] = [(field["name"], _parts(field["type"], records)) for field in cleaned["fields"]]

    def read(self, payload: bytes) -> dict[str, Any]:
        """The members of a payload, empty ones as None.

        Raises:
            ValueError: It was not written by this schema.
        """
        source = BytesIO(payload)
        try:
            members = fastavro.schemaless_reader(source, self._whole, None)
        except _UNREADABLE as error:
            raise ValueError(f"not written by its schema: {type(error).__name__}") from None
        if source.read(1) or not isinstance(members, dict):
            raise ValueError("not written by its schema: longer than it")
        return members

    def read_header(self, payload: bytes) -> dict[str, Any] | None:
        """The header of a payload whose rest cannot be read; None where it cannot either."""
        try:
            header = fastavro.schemaless_reader(BytesIO(payload), self._header, None)
        except _UNREADABLE:
            return None
        return header if isinstance(header, dict) else None


class _Cleaner:
    """Copies what is known of a schema, so that nothing else in it can have an effect."""

    def __init__(self) -> None:
        self._records: dict[str, str] = {}

    def record(self, found: Any, depth: int) -> dict[str, Any]:
        if depth > _DEEPEST or found["type"] != "record":
            raise ValueError("expected a record")
        names = [str(field["name"]) for field in found["fields"]]
        if not names or len(set(names)) != len(names):
            raise ValueError("expected fields with names of their own")
        types = [self._type(field["type"], depth + 1) for field in found["fields"]]
        name = str(found["name"])
        # From here on other fields may name it; never itself, so that nothing is endless.
        self._records[name] = self._records[f"{found.get('namespace', 'com.sforce.eventbus')}.{name}"] = name
        fields = [{"name": own, "type": kind} for own, kind in zip(names, types, strict=True)]
        return {"type": "record", "name": name, "fields": fields}

    def _type(self, found: Any, depth: int) -> Any:
        match found:
            case str():
                return found if found in _PLAIN else self._records[found]
            case [*choices] if not any(isinstance(choice, list) for choice in choices):
                return ["null" if choice == "null" else self._type(choice, depth + 1) for choice in choices]
            case {"type": str(plain)} if plain in _PLAIN:
                return plain
            case {"type": "enum", "name": str(name), "symbols": [*symbols]}:
                return {"type": "enum", "name": name, "symbols": [str(symbol) for symbol in symbols]}
            case {"type": "array", "items": "string" | {"type": "string"}}:
                return {"type": "array", "items": "string"}
            case _:
                return self.record(found, depth)


def _parts(kind: Any, records: dict[str, Sequence[str]]) -> Sequence[str]:
    """The names of a compound's parts; none for anything else. `records` are those defined so far."""
    for choice in kind if isinstance(kind, list) else ():
        if isinstance(choice, dict) and choice["type"] == "record":
            records[choice["name"]] = [field["name"] for field in choice["fields"]]
            return records[choice["name"]]
        if choice in records:
            return records[choice]
    return ()
