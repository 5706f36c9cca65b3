"""Rows to records as REST answers them, and to lines as Bulk writes them."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any

from connector.devorg.clock import rest_datetime
from connector.devorg.soql.select import Group, Leaf, Selection, Shape
from connector.devorg.soql.values import Kind

Row = Sequence[Any]
_Reader = Callable[[Row], Any]

_REST: Mapping[Kind, Callable[[Any], Any]] = {"boolean": bool, "datetime": rest_datetime, "double": float}
_SMALLEST_PLAIN, _SMALLEST_SCIENTIFIC = 1e-3, 1e7


def records(selection: Selection, rows: Iterable[Row], version: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a REST answer.

    Args:
        selection: What the rows hold.
        rows: As the statement gives them.
        version: API version for the records' URLs, for instance `58.0`.
    """
    if selection.aggregates:
        for row in rows:
            yield {"attributes": {"type": "AggregateResult"}} | dict(zip(selection.aggregates, row, strict=True))
        return
    read = _record_reader(selection.shape, f"/services/data/v{version}/sobjects/")
    yield from map(read, rows)


def double_text(number: float) -> str:
    """Return a number as Java writes it, which is how Bulk results show it: `1000.0`, `3.5E8`."""
    size = abs(number)
    if number == 0 or _SMALLEST_PLAIN <= size < _SMALLEST_SCIENTIFIC:
        return repr(number)
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    whole, rest = str(digits[0]), "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{whole}.{rest}E{int(exponent) + len(digits) - 1}"


_CSV: Mapping[Kind, Callable[[Any], str]] = {"boolean": ("false", "true").__getitem__, "double": double_text}


class CsvWriter:
    """Writes rows as Bulk results: every value in double quotes, null as the empty value.

    Source: Bulk API 2.0 Developer Guide, "Get Results for a Query Job"; date-times keep their `Z` here.
    """

    def __init__(self, leaves: Sequence[Leaf], delimiter: str, ending: str) -> None:
        self._columns = [(leaf.position, _CSV.get(leaf.kind)) for leaf in leaves]
        self._written: list[str] = []
        self._writer = csv.writer(
            _Sink(self._written), delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL
        )
        self._header = [leaf.name for leaf in leaves]

    def header(self) -> bytes:
        """Return the line of column names."""
        return self._take([self._header])[0]

    def lines(self, rows: Iterable[Row]) -> list[bytes]:
        """Return one line per row."""
        return self._take(
            [
                row[place] if convert is None or row[place] is None else convert(row[place])
                for place, convert in self._columns
            ]
            for row in rows
        )

    def _take(self, rows: Iterable[Sequence[Any]]) -> list[bytes]:
        self._writer.writerows(rows)
        lines = [line.encode() for line in self._written]
        self._written.clear()
        return lines


class _Sink:
    """Takes what a csv writer writes, one row at a time."""

    def __init__(self, written: list[str]) -> None:
        self.write = written.append


def _record_reader(shape: Shape, base: str) -> _Reader:
    names = shape.source.types
    label, place = shape.source.label, shape.id_position
    members = [(member.name, _member_reader(member, base)) for member in shape.members]

    def read(row: Row) -> dict[str, Any] | None:
        record_id = row[place]
        if record_id is None:
            return None
        url = f"{base}{names.get(record_id[:3], label)}/{record_id}"
        record: dict[str, Any] = {"attributes": {"type": label, "url": url}}
        for name, value_of in members:
            record[name] = value_of(row)
        return record

    return read


def _member_reader(member: Leaf | Group | Shape, base: str) -> _Reader:
    if isinstance(member, Leaf):
        return _leaf_reader(member)
    return _group_reader(member) if isinstance(member, Group) else _record_reader(member, base)


def _leaf_reader(leaf: Leaf) -> _Reader:
    place, convert = leaf.position, _REST.get(leaf.kind)
    if convert is None:
        return itemgetter(place)
    return lambda row: None if (value := row[place]) is None else convert(value)


def _group_reader(group: Group) -> _Reader:
    parts = [(part.name, _leaf_reader(part)) for part in group.parts]

    def read(row: Row) -> dict[str, Any] | None:
        values = {name: value_of(row) for name, value_of in parts}
        return values if any(value is not None for value in values.values()) else None

    return read
