"""Paths of a query held against the schema: which SQL expression a field is, and which joins it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from connector.devorg.database import quoted
from connector.devorg.objects.fields import Field, ObjectSchema
from connector.devorg.objects.schema import Schema
from connector.devorg.soql.errors import no_such_column, no_such_object, no_such_relationship, refused
from connector.devorg.soql.tree import Path, Query

LONGEST_PATH = 5
"""Relationships in one path. Source: SOQL and SOSL Reference, "Understanding Relationship Query Limitations"."""


@dataclass(frozen=True)
class Source:
    """The queried object, or what one relationship leads to: several objects where it is polymorphic.

    Attributes:
        targets: Each object with the name of its table in the statement.
        path: The relationships that lead here, as the describes spell them.
    """

    targets: tuple[tuple[ObjectSchema, str], ...]
    path: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The object's name; `Name` stands for several."""
        return self.targets[0][0].name if len(self.targets) == 1 else "Name"

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Object names by key prefix."""
        return {target.key_prefix: target.name for target, _ in self.targets}

    def field(self, name: str) -> Field | None:
        """Return the field of the first target that has one of this name."""
        return next((found for target, _ in self.targets if (found := target.field(name))), None)

    def expression(self, name: str) -> str:
        """Return the SQL of a field, from whichever target has the row."""
        columns = [f"{table}.{quoted(found.name)}" for target, table in self.targets if (found := target.field(name))]
        return columns[0] if len(columns) == 1 else f"COALESCE({', '.join(columns)})"


@dataclass(frozen=True, slots=True)
class Column:
    """One field of one source."""

    source: Source
    field: Field

    @property
    def expression(self) -> str:
        """Its SQL."""
        return self.source.expression(self.field.name)


class Scope:
    """Finds what the names in one query mean, and collects the joins on the way."""

    def __init__(self, query: Query, schema: Schema) -> None:
        found = schema.get(query.object_name)
        if found is None:
            raise no_such_object(query.text, query.object_at, query.object_name)
        self.object = found
        self.root = Source(((found, "t0"),))
        self._query = query
        self._schema = schema
        self._own_names = {name.lower() for name in (found.name, query.alias) if name}
        self._sources: dict[tuple[str, ...], Source] = {(): self.root}
        self._joins: list[str] = []

    @property
    def tables(self) -> str:
        """The FROM clause for every path found so far."""
        return " ".join([f"{quoted(self.object.table)} t0", *self._joins])

    def column(self, path: Path) -> Column:
        """Return what a path means.

        Raises:
            OrgError: 400 INVALID_FIELD, pointing at it.
        """
        names = path.names
        if len(names) > 1 and names[0].lower() in self._own_names:
            names = names[1:]
        source = self._source(names[:-1], path)
        field = source.field(names[-1])
        if field is None:
            raise no_such_column(self._query.text, path.at, names[-1], source.label)
        return Column(source, field)

    def source(self, path: tuple[str, ...]) -> Source:
        """Return a source already found, by the path it names itself with."""
        return self._sources[tuple(name.lower() for name in path)]

    def _source(self, names: tuple[str, ...], path: Path) -> Source:
        key = tuple(name.lower() for name in names)
        if key not in self._sources:
            if len(names) > LONGEST_PATH:
                note = f"A relationship path can have at most {LONGEST_PATH} levels: {path}"
                raise refused("MALFORMED_QUERY", self._query.text, path.at, note)
            self._sources[key] = self._join(self._source(names[:-1], path), names[-1], path)
        return self._sources[key]

    def _join(self, parent: Source, name: str, path: Path) -> Source:
        link = _relationship(parent, name)
        targets = [] if link is None else [found for to in link.reference_to if (found := self._schema.get(to))]
        if link is None or not targets:
            raise no_such_relationship(self._query.text, path.at, name)
        tables = []
        for target in targets:
            table = f"t{len(self._joins) + 1}"
            match = f'{table}."Id" = {parent.expression(link.name)}'
            self._joins.append(f"LEFT JOIN {quoted(target.table)} {table} ON {match}")
            tables.append((target, table))
        return Source(tuple(tables), (*parent.path, str(link.relationship_name)))


def _relationship(source: Source, name: str) -> Field | None:
    for target, _ in source.targets:
        for field in target.fields.values():
            if field.relationship_name and field.relationship_name.lower() == name.lower():
                return field
    return None
