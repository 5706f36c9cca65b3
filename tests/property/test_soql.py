"""SOQL against a plain evaluation: random conditions over random rows choose the same rows both ways."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.devorg.database import OrgDatabase
from connector.devorg.ids import to_18
from connector.devorg.objects.schema import Schema
from connector.devorg.soql.compile import compile_query, install
from connector.devorg.soql.parse import parse

Row = dict[str, Any]
OBJECT = "Thing__c"
SELECT = "SELECT Id FROM Thing__c"
LETTERS = st.text(alphabet="abAB\u00e9\u00c9\u044f\u042f%_'\\\n\"", min_size=1, max_size=3)
NUMBERS = st.sampled_from([-1.5, 0.0, 0.1, 1.0, 2.0, 1e9]) | st.integers(-3, 3).map(float)
DAYS = st.dates(date(2025, 12, 30), date(2026, 1, 3))
MOMENTS = st.integers(0, 7200).map(lambda second: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second))
IDS = st.sampled_from([to_18(f"0035f00000000{end}") for end in ("01", "0A", "0a", "aA")])
CHOICES = st.sampled_from(["red", "Red hot", "green", "blau\u00c4"])


@dataclass(frozen=True)
class Condition:
    """A condition as text, and what it should say of a row."""

    text: str
    holds: Callable[[Row], bool]
    simple: bool = True  # may stand beside AND or OR without parentheses

    @property
    def operand(self) -> str:
        """The text as an operand of AND, OR or NOT."""
        return self.text if self.simple else f"({self.text})"


def quote(text: str, *, like: bool = False) -> str:
    named = {"\\": r"\\", "'": r"\'", "\n": r"\n", '"': r"\""}
    if like:
        named |= {"%": r"\%", "_": r"\_"}
    return "'" + "".join(named.get(character, character) for character in text) + "'"


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def comparison(field: str, operator: str, text: str, value: Any, key: Callable[[Any], Any]) -> Condition:
    """Equality knows null, `''` and null being the same; order is false for null."""
    wanted = None if value in (None, "") else key(value)

    def holds(row: Row) -> bool:
        mine = None if row[field] is None else key(row[field])
        if operator in COMPARE:
            return mine is not None and wanted is not None and COMPARE[operator](mine, wanted)
        return (mine == wanted) == (operator == "=")

    return Condition(f"{field} {operator} {text}", holds)


def listed(field: str, texts: list[str], values: list[Any], key: Callable[[Any], Any], *, negated: bool) -> Condition:
    wanted = {None if value in (None, "") else key(value) for value in values}

    def holds(row: Row) -> bool:
        return ((None if row[field] is None else key(row[field])) in wanted) != negated

    return Condition(f"{field} {'NOT IN' if negated else 'IN'} ({', '.join(texts)})", holds)


def like(parts: list[tuple[str, bool]]) -> Condition:
    """`parts` are texts to stand for themselves, or wildcards."""
    pattern = "".join({"%": ".*", "_": "."}[part] if wild else re.escape(part.lower()) for part, wild in parts)
    literal = "".join(part if wild else quote(part, like=True)[1:-1] for part, wild in parts)

    def holds(row: Row) -> bool:
        return row["Text__c"] is not None and re.fullmatch(pattern, row["Text__c"].lower(), re.DOTALL) is not None

    return Condition(f"Text__c LIKE '{literal}'", holds)


def includes(groups: list[list[str]], *, negated: bool) -> Condition:
    def holds(row: Row) -> bool:
        mine = {item.lower() for item in (row["Many__c"] or "").split(";")}
        return any(all(item.lower() in mine for item in group) for group in groups) != negated

    texts = ", ".join(quote(";".join(group)) for group in groups)
    return Condition(f"Many__c {'EXCLUDES' if negated else 'INCLUDES'} ({texts})", holds)


def fold(text: str) -> str:
    return text.upper()


def same(value: Any) -> Any:
    return value


def moment_text(moment: datetime, minutes: int) -> str:
    return moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()


def stored_moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def value_tests(field: str, values: st.SearchStrategy[tuple[str, Any]], key: Callable[[Any], Any]) -> Any:
    """Comparisons and lists over one field; `values` gives a literal and what it means."""
    known = values | st.just(("null", None))
    any_operator = st.sampled_from(["=", "!=", *COMPARE])
    return st.builds(lambda op, one: comparison(field, op, one[0], one[1], key), any_operator, known) | st.builds(
        lambda many, no: listed(field, [text for text, _ in many], [value for _, value in many], key, negated=no),
        st.lists(known, min_size=1, max_size=3),
        st.booleans(),
    )


TEXT_LITERALS = (LETTERS | st.just("")).map(lambda text: (quote(text), text))
NUMBER_LITERALS = NUMBERS.map(lambda number: (repr(number), number))
DAY_LITERALS = DAYS.map(lambda day: (day.isoformat(), day.isoformat()))
MOMENT_LITERALS = st.builds(
    lambda moment, minutes: (moment_text(moment, minutes), stored_moment(moment)),
    MOMENTS,
    st.sampled_from([0, 60, -90, 345]),
)
ID_LITERALS = st.builds(lambda full, length: (f"'{full[:length]}'", full), IDS, st.sampled_from([15, 18]))
LIKE_PARTS = st.lists(LETTERS.map(lambda t: (t, False)) | st.sampled_from(["%", "_"]).map(lambda t: (t, True)))

LEAVES: st.SearchStrategy[Condition] = st.one_of(
    value_tests("Text__c", TEXT_LITERALS, fold),
    value_tests("Number__c", NUMBER_LITERALS, same),
    value_tests("Day__c", DAY_LITERALS, same),
    value_tests("Moment__c", MOMENT_LITERALS, same),
    value_tests("Contact__c", ID_LITERALS, same),
    LIKE_PARTS.map(like),
    st.builds(
        lambda op, wanted: comparison("Flag__c", op, str(wanted).upper(), wanted, bool),
        st.sampled_from(["=", "!="]),
        st.booleans(),
    ),
    st.builds(
        lambda groups, no: includes(groups, negated=no),
        st.lists(st.lists(CHOICES, min_size=1, max_size=2), min_size=1, max_size=2),
        st.booleans(),
    ),
)


def joined(tests: list[Condition], operator: str) -> Condition:
    choose = all if operator == "AND" else any
    text = f" {operator} ".join(test.operand for test in tests)
    return Condition(text, lambda row: choose(test.holds(row) for test in tests), simple=False)


def negated(test: Condition) -> Condition:
    return Condition(f"NOT {test.operand}", lambda row: not test.holds(row), simple=False)


TREES: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(joined, st.lists(inner, min_size=2, max_size=4), st.sampled_from(["AND", "OR"])) | inner.map(negated)
    ),
    max_leaves=8,
)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "Text__c": maybe(LETTERS),
            "Number__c": maybe(NUMBERS),
            "Day__c": maybe(DAYS.map(date.isoformat)),
            "Moment__c": maybe(MOMENTS.map(stored_moment)),
            "Contact__c": maybe(IDS),
            "Flag__c": st.integers(0, 1),
            "Many__c": maybe(st.lists(CHOICES, min_size=1, max_size=3, unique=True).map(";".join)),
        }
    ),
    max_size=6,
)


@cache
def org() -> tuple[OrgDatabase, Schema]:
    database = OrgDatabase(None)
    schema = Schema(database)
    kinds: dict[str, dict[str, Any]] = {
        "Text__c": {"type": "string", "externalId": True},
        "Number__c": {"type": "double"},
        "Day__c": {"type": "date"},
        "Moment__c": {"type": "datetime"},
        "Contact__c": {"type": "reference", "referenceTo": ["Contact"]},
        "Flag__c": {"type": "boolean"},
        "Many__c": {"type": "multipicklist"},
    }
    fields = [{"name": name, **members} for name, members in kinds.items()]
    schema.add_object({"name": OBJECT, "keyPrefix": "a99", "fields": fields})
    install(database.connection)
    return database, schema


def chosen(rows: list[Row], query: str) -> list[str]:
    """Ids that the query selects among `rows`."""
    database, schema = org()
    table = schema.require(OBJECT).table
    database.connection.execute("BEGIN")
    try:
        for number, row in enumerate(rows):
            database.insert(table, {"Id": identity(number), "IsDeleted": 0, **row})
        plan = compile_query(parse(query), schema, include_deleted=False)
        return [row[0] for row in database.connection.execute(*plan.statement())]
    finally:
        database.connection.execute("ROLLBACK")


def identity(number: int) -> str:
    return f"a995f00000000{number:02}AAA"


@given(ROWS, TREES)
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_where_chooses_what_plain_evaluation_chooses(rows: list[Row], condition: Condition) -> None:
    """AND, OR, NOT and every test, nulls included, mean in SQL what they mean here."""
    expected = [identity(number) for number, row in enumerate(rows) if condition.holds(row)]
    assert chosen(rows, f"{SELECT} WHERE {condition.text}") == expected


@given(
    ROWS,
    st.lists(
        st.tuples(
            st.sampled_from(["Text__c", "Number__c", "Day__c", "Flag__c"]),
            st.sampled_from(["", "ASC", "DESC"]),
            st.sampled_from(["", "NULLS FIRST", "NULLS LAST"]),
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 7),
    st.integers(0, 7),
)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_order_limit_and_offset(rows: list[Row], order: list[tuple[str, str, str]], limit: int, offset: int) -> None:
    """Nulls come first unless NULLS LAST is said, in either direction; texts have no case; ties go by id."""
    numbered = [dict(row, Id=identity(number)) for number, row in enumerate(rows)]
    for field, direction, nulls in reversed(order):
        # A stable sort per key, the last key first.
        filled = [row for row in numbered if row[field] is not None]
        empty = [row for row in numbered if row[field] is None]
        filled = stable(filled, field, reverse=direction == "DESC")
        numbered = filled + empty if nulls == "NULLS LAST" else empty + filled
    expected = [row["Id"] for row in numbered][offset : offset + limit]
    terms = ", ".join(" ".join(part for part in term if part) for term in order)
    query = f"{SELECT} ORDER BY {terms} LIMIT {limit} OFFSET {offset}"
    assert chosen(rows, query) == expected


def stable(rows: list[Row], field: str, *, reverse: bool) -> list[Row]:
    def key(row: Row) -> Any:
        return row[field].upper() if field == "Text__c" else row[field]

    groups = [list(group) for _, group in itertools.groupby(sorted(rows, key=key), key=key)]
    return list(itertools.chain.from_iterable(reversed(groups) if reverse else groups))
