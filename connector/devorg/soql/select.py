"""The select list: which columns a statement reads, and which member of which record each becomes."""

from dataclasses import dataclass, field

from connector.devorg.soql.errors import refused
from connector.devorg.soql.resolve import Column, Scope, Source
from connector.devorg.soql.tree import Aggregate, AllFields, Item, Path, Query
from connector.devorg.soql.values import FOLD, Kind, kind_of

MOST_ALL_FIELDS = 200
"""Source: SOQL and SOSL Reference, "FIELDS()"."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of a row.

    Attributes:
        name: Of the member; with its path in a CSV header.
        kind: How the value is written.
        position: In the row.
    """

    name: str
    kind: Kind
    position: int


@dataclass(frozen=True, slots=True)
class Group:
    """A compound field: an object of its parts under lower-case names, or null if all of them are."""

    name: str
    parts: tuple[Leaf, ...]


@dataclass(slots=True)
class Shape:
    """One record, or one related to it.

    Attributes:
        name: Member of the record around it; empty for the queried object.
        source: Where its values come from.
        id_position: In the row; the value is null where there is no such record.
        members: In the order of the select list.
    """

    name: str
    source: Source
    id_position: int
    members: list["Leaf | Group | Shape"] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is selected.

    Attributes:
        columns: SQL of the columns, joined by commas.
        shape: Records as REST answers them.
        leaves: Columns as CSV has them; none where a compound is selected.
        compounds: Whether an address or a geolocation is among them.
        aggregates: Names of the members of an `AggregateResult`; otherwise empty.
    """

    columns: str
    shape: Shape
    leaves: tuple[Leaf, ...]
    compounds: bool
    aggregates: tuple[str, ...] = ()


def selection_of(query: Query, scope: Scope) -> Selection:
    """Return what a query selects.

    Raises:
        OrgError: 400 INVALID_FIELD or MALFORMED_QUERY.
    """
    aggregates = [item for item in query.items if isinstance(item, Aggregate)]
    if aggregates:
        return _aggregated(query, scope, aggregates)
    builder = _Builder(query, scope)
    for item in query.items:
        builder.add(item)
    return builder.selection()


def _aggregated(query: Query, scope: Scope, aggregates: list[Aggregate]) -> Selection:
    for item in query.items:
        if isinstance(item, Path):
            note = f"Field must be grouped or aggregated: {item}"
            raise refused("MALFORMED_QUERY", query.text, item.at, note)
    columns = []
    for item in aggregates:
        column = scope.column(item.path)
        if not column.field.filterable or kind_of(column.field) == "compound":
            note = f"field {item.path} does not support aggregate operator {item.function}"
            raise refused("INVALID_FIELD", query.text, item.path.at, note)
        text = kind_of(column.field) == "text"
        distinct = f"DISTINCT {FOLD}({column.expression})" if text else f"DISTINCT {column.expression}"
        columns.append(f"COUNT({distinct if item.function == 'COUNT_DISTINCT' else column.expression})")
    unnamed = iter(range(len(aggregates)))
    return Selection(
        columns=", ".join(columns),
        shape=Shape("", scope.root, 0),
        leaves=(),
        compounds=False,
        aggregates=tuple(item.alias or f"expr{next(unnamed)}" for item in aggregates),
    )


class _Builder:
    def __init__(self, query: Query, scope: Scope) -> None:
        self._query = query
        self._scope = scope
        self._columns: dict[str, int] = {}
        self._taken: set[tuple[tuple[str, ...], str]] = set()
        self._leaves: list[Leaf] = []
        self._compounds = False
        root = Shape("", scope.root, self._position('t0."Id"'))
        self._shapes: dict[tuple[str, ...], Shape] = {(): root}

    def add(self, item: Item) -> None:
        if isinstance(item, AllFields):
            self._add_all(item)
        elif isinstance(item, Path):
            self._add_column(self._scope.column(item), item)

    def selection(self) -> Selection:
        return Selection(
            columns=", ".join(self._columns),
            shape=self._shapes[()],
            leaves=tuple(self._leaves),
            compounds=self._compounds,
        )

    def _position(self, expression: str) -> int:
        return self._columns.setdefault(expression, len(self._columns))

    def _add_all(self, item: AllFields) -> None:
        limit = self._query.limit
        if item.scope != "STANDARD" and (limit is None or limit > MOST_ALL_FIELDS):
            note = f"The SOQL FIELDS function must have a LIMIT of at most {MOST_ALL_FIELDS}"
            raise refused("MALFORMED_QUERY", self._query.text, item.at, note)
        custom = {"ALL": (True, False), "STANDARD": (False,), "CUSTOM": (True,)}[item.scope]
        for found in self._scope.object.fields.values():
            if found.custom in custom:
                self._add_column(Column(self._scope.root, found), Path((found.name,), item.at))

    def _add_column(self, column: Column, path: Path) -> None:
        source, found = column.source, column.field
        if (source.path, found.name) in self._taken:
            note = f"duplicate field selected: {path}"
            raise refused("INVALID_FIELD", self._query.text, path.at, note)
        self._taken.add((source.path, found.name))
        shape = self._shape(source)
        if kind_of(found) == "compound":
            self._compounds = True
            shape.members.append(self._group(column))
            return
        leaf = Leaf(found.name, kind_of(found), self._position(column.expression))
        shape.members.append(leaf)
        dotted = ".".join((*source.path, found.name))
        self._leaves.append(Leaf(dotted, leaf.kind, leaf.position))

    def _shape(self, source: Source) -> Shape:
        shape = self._shapes.get(source.path)
        if shape is None:
            id_position = self._position(source.expression("Id"))
            shape = Shape(source.path[-1], source, id_position)
            self._shapes[source.path] = shape
            self._parent_of(source).members.append(shape)
        return shape

    def _parent_of(self, source: Source) -> Shape:
        return self._shape(self._scope.source(source.path[:-1]))

    def _group(self, column: Column) -> Group:
        owner = next(target for target, _ in column.source.targets if target.field(column.field.name))
        parts = []
        for name, part in owner.parts(column.field.name).items():
            position = self._position(column.source.expression(part.name))
            parts.append(Leaf(name[:1].lower() + name[1:], kind_of(part), position))
        return Group(column.field.name, tuple(sorted(parts, key=_by_name)))


def _by_name(leaf: Leaf) -> str:
    return leaf.name
