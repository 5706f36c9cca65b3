"""Payloads of the event log in Avro's binary form.

They are written by the text of a schema alone, so that an event of long ago is written by the schema of its time.

Source: Pub/Sub API Developer Guide, "Event Deserialization Considerations".
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from io import BytesIO
from typing import Any

import fastavro

from connector.devorg.clock import stamp_ms
from connector.devorg.events.avro import HEADER, Avro

_HEADER_DEFAULTS = {"changeOrigin": "", "transactionKey": "", "sequenceNumber": 1, "commitNumber": 0, "commitUser": ""}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventWriter:
    """Writes payloads by one schema.

    Args:
        schema: As `avro_schema` makes it.
    """

    def __init__(self, schema: Avro) -> None:
        self._parsed = fastavro.parse_schema(schema)
        self._fields: dict[str, tuple[str, list[Avro]]] = {}
        parts_of: dict[str, list[Avro]] = {}
        for field in schema["fields"][1:]:
            kind = field["type"][1]
            if isinstance(kind, dict):
                parts_of[kind["name"]] = kind["fields"]
            name = kind["name"] if isinstance(kind, dict) else kind
            self._fields[field["name"]] = (name, parts_of.get(name, []))
        self._positions = {field["name"]: index for index, field in enumerate(schema["fields"])}

    def write(self, payload: Mapping[str, Any]) -> bytes:
        """A payload of the event log in Avro's binary form.

        Raises:
            ValueError, TypeError, KeyError: It is none that the schema could hold.
        """
        header = payload[HEADER]
        body: Avro = {name: self._value(name, payload.get(name)) for name in self._fields}
        changed: list[str] = []
        if header["changeType"] == "UPDATE":
            changed = header.get("changedFields", list(_paths(payload)))
        diffs = [name for name in self._fields if self._is_diff(name, payload.get(name))]
        told = {
            **_HEADER_DEFAULTS,
            **header,
            "changedFields": self._bitmaps(changed),
            "nulledFields": self._bitmaps(path for path in changed if _at(payload, path) is None),
            "diffFields": self._bitmaps(diffs),
        }
        out = BytesIO()
        fastavro.schemaless_writer(out, self._parsed, {HEADER: told, **body}, strict=True)
        return out.getvalue()

    def _value(self, name: str, value: Any) -> Any:
        kind, parts = self._fields[name]
        if self._is_diff(name, value):
            return value["diff"]
        if value is None or not parts:
            return _plain(kind, value)
        return {part["name"]: _plain(part["type"][1], value.get(part["name"])) for part in parts}

    def _is_diff(self, name: str, value: Any) -> bool:
        return isinstance(value, dict) and not self._fields[name][1]

    def _bitmaps(self, paths: Iterable[str]) -> list[str]:
        """The header's form of field names; a field that the schema does not have has no bit."""
        top: list[int] = []
        nested: dict[int, list[int]] = {}
        for path in paths:
            name, _, part = path.partition(".")
            if name not in self._fields:
                continue
            parts = [each["name"] for each in self._fields[name][1]]
            if not parts:
                top.append(self._positions[name])
            elif part in parts or not part:
                nested.setdefault(self._positions[name], []).extend([parts.index(part)] if part else range(len(parts)))
        return [*([bitmap(top)] if top else []), *(f"{at}-{bitmap(bits)}" for at, bits in sorted(nested.items()))]


def bitmap(positions: Iterable[int]) -> str:
    """`0x` and the big-endian hexadecimal of a number whose bit `i` stands for field `i`; of even length."""
    digits = f"{sum(1 << position for position in set(positions)):X}"
    return f"0x{digits.zfill(len(digits) + len(digits) % 2)}"


def _paths(payload: Mapping[str, Any]) -> Iterable[str]:
    """The fields of a payload as `changedFields` names them."""
    for name, value in payload.items():
        if isinstance(value, dict) and name != HEADER and "diff" not in value:
            yield from (f"{name}.{part}" for part in value)
        elif name != HEADER:
            yield name


def _at(payload: Mapping[str, Any], path: str) -> Any:
    name, _, part = path.partition(".")
    value = payload.get(name)
    return value.get(part) if part and isinstance(value, dict) else value


def _plain(kind: str, value: Any) -> Any:
    """A value in its Avro type; instants, days and times are text in the log and numbers here."""
    if kind == "long" and isinstance(value, str):
        return _ms(value)
    if kind == "double" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _ms(text: str) -> int:
    """Milliseconds since the epoch of an instant or a day; of a time alone, since midnight."""
    if "T" in text:
        return stamp_ms(text)
    if "-" in text:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000
    moment = datetime.combine(_EPOCH, time.fromisoformat(text))
    return round(moment.replace(tzinfo=UTC).timestamp() * 1000)
