"""What the grammar takes and refuses, and where the refusal points."""

import pytest

from connector.devorg.errors import OrgError
from connector.devorg.soql.parse import like_pattern_of, parse, string_of
from connector.devorg.soql.tree import Comparison, Joined, Like, Listed, Negated, Path, Value


def select(condition: str) -> str:
    return f"SELECT Id FROM Contact WHERE {condition}"  # noqa: S608  # SOQL, which the org parses


def where(text: str) -> object:
    return parse(select(text)).where


def value(text: str) -> Value:
    condition = where(f"A = {text}")
    assert isinstance(condition, Comparison)
    return condition.value


def refusal(text: str) -> str:
    with pytest.raises(OrgError) as caught:
        parse(text)
    assert (caught.value.status, caught.value.code) == (400, "MALFORMED_QUERY")
    return caught.value.message


def test_every_clause_in_any_case() -> None:
    """Keywords have no case; names keep theirs, for the schema to find."""
    query = parse(
        "select Id, Account.name\nfrom contact C where c.Email like 'a%'"
        " order BY SystemModstamp desc nulls LAST, Id asc, Name nulls first limit 10 offset 5"
    )
    assert query.items == (Path(("Id",), 7), Path(("Account", "name"), 11))
    assert (query.object_name, query.alias, query.limit, query.offset) == ("contact", "C", 10, 5)
    assert [(str(item.path), item.descending, item.nulls_last) for item in query.order] == [
        ("SystemModstamp", True, True),
        ("Id", False, False),
        ("Name", False, False),
    ]


def test_and_or_and_not_nest_by_parentheses() -> None:
    """One operator joins any number of conditions; another needs parentheses."""
    condition = where("A = 1 AND (B = 2 OR C = 3 OR D = 4) AND (NOT E LIKE 'x%')")
    assert isinstance(condition, Joined)
    assert condition.operator == "AND"
    first, second, third = condition.parts
    assert isinstance(first, Comparison)
    assert isinstance(second, Joined)
    assert (second.operator, len(second.parts)) == ("OR", 3)
    assert isinstance(third, Negated)
    assert isinstance(third.part, Like)


@pytest.mark.parametrize(
    ("condition", "token"),
    [
        ("A = 1 AND B = 2 OR C = 3", "OR"),
        ("A = 1 OR B = 2 AND C = 3", "AND"),
        ("A = 1 AND NOT B = 2", "NOT"),
        ("NOT A = 1 AND B = 2", "AND"),
        ("A = foo", "foo"),
        ("A = :foo", ":"),
        ('A = "foo"', '"'),
        ("A IS NULL", "IS"),
        ("A = 1 GROUP BY A", "GROUP"),
        ("A NOT LIKE 'x'", "LIKE"),
        ("A IN ()", ")"),
        ("A IN 'x'", "'x'"),
        ("A LIKE 5", "5"),
        ("A = 2026-01-01T00:00:00.000", "2026"),
    ],
)
def test_what_has_no_place_is_named(condition: str, token: str) -> None:
    """The message names the token that stands where none of its kind can."""
    assert refusal(select(condition)).endswith(f"\nunexpected token: '{token}'")


def test_pointer_names_row_and_column() -> None:
    """The refusal begins with an excerpt, a caret below the place, and row and column counted from 1."""
    message = refusal("SELECT Id\nFROM Contact\nWHERE Name == 'x'")
    assert message == "\nWHERE Name == 'x'\n            ^\nERROR at Row:3:Column:13\nunexpected token: '='"


def test_excerpt_of_a_long_query_is_cut_at_words() -> None:
    """Around the place stand whole words of the query, not all of it."""
    fields = ",".join(f"Field{number}__c" for number in range(50))
    text = select("Name == 'x' AND Phone = '5' AND Email = 'somebody'").replace("Id", fields)
    excerpt, caret, place, _ = refusal(text).removeprefix("\n").split("\n")
    assert excerpt == "FROM Contact WHERE Name == 'x' AND Phone = '5' AND Email ="
    assert caret == " " * excerpt.index("= 'x'") + "^"
    assert place == f"ERROR at Row:1:Column:{text.index('= ') + 1}"


@pytest.mark.parametrize("text", ["SELECT Id FROM Contact WHERE", "SELECT Id FROM", "SELECT Id FROM A WHERE (B = 1"])
def test_missing_end(text: str) -> None:
    """What breaks off is refused at its end."""
    assert refusal(text).endswith(f"Column:{len(text) + 1}\nunexpected token: '<EOF>'")


@pytest.mark.parametrize("text", ["SELECT FROM A", "SELECT Id, FROM A", "SELECT * FROM A", "DELETE FROM A"])
def test_select_list_is_needed(text: str) -> None:
    """A select list holds fields, and only fields."""
    assert "unexpected token: '" in refusal(text)


def test_empty_and_overlong() -> None:
    """A query has at least one and at most 100,000 characters."""
    assert refusal(" \n") == "A query string has to be specified"
    longest = "SELECT Id FROM A WHERE B = '" + "x" * 99_970 + "' "
    assert parse(longest[:100_000]).object_name == "A"
    assert "longer than 100000" in refusal(longest + " " * 10)


def test_field_names_may_begin_like_keywords() -> None:
    """`Index__c` is no IN, `Order` and `Count` are no clauses, and only reserved words are refused."""
    query = parse("SELECT Index__c, Order, Count, Limits__c FROM Order WHERE Inside = 1 AND Nothing__c = 2")
    assert [str(item) for item in query.items] == ["Index__c", "Order", "Count", "Limits__c"]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("null", "null", None),
        ("TRUE", "boolean", True),
        ("false", "boolean", False),
        ("5", "number", 5),
        ("-.5e1", "number", -5.0),
        ("+7.", "number", 7.0),
        ("2026-01-01T12:00:00Z", "datetime", "2026-01-01T12:00:00.000Z"),
        ("2026-01-01T12:00:00.123456Z", "datetime", "2026-01-01T12:00:00.123Z"),
        ("2026-01-01T00:30:00+02:00", "datetime", "2025-12-31T22:30:00.000Z"),
        ("2026-01-01T00:30:00.000-0130", "datetime", "2026-01-01T02:00:00.000Z"),
    ],
)
def test_literals(text: str, kind: str, expected: object) -> None:
    """Every form of a literal, with offsets and fractions of seconds in date-times."""
    assert (value(text).kind, value(text).value) == (kind, expected)


def test_dates_have_to_exist() -> None:
    """30 February is refused, and so is an hour 25; 29 February is a question of the year."""
    assert str(value("2024-02-29").value) == "2024-02-29"
    assert refusal("SELECT Id FROM A WHERE B = 2026-02-29").endswith("Invalid date: 2026-02-29")
    assert "Invalid datetime" in refusal("SELECT Id FROM A WHERE B = 2026-02-28T25:00:00Z")
    assert "Invalid datetime" in refusal("SELECT Id FROM A WHERE B = 0001-01-01T00:00:00+10:00")


def test_string_escapes() -> None:
    """Exactly the documented escapes are undone."""
    text = r"""SELECT Id FROM A WHERE B = 'a\n\r\t\b\f\"\'\\\u00e9\uD83D\uDE00 (' AND C = ''"""
    condition = parse(text).where
    assert isinstance(condition, Joined)
    first, second = condition.parts
    assert isinstance(first, Comparison)
    assert isinstance(second, Comparison)
    assert string_of(text, first.value) == "a\n\r\t\b\f\"'\\\u00e9\U0001f600 ("
    assert string_of(text, second.value) == ""


@pytest.mark.parametrize("escape", [r"\q", r"\%", r"\_", r"\u12", r"\x41", r"\0"])
def test_any_other_backslash_is_an_error(escape: str) -> None:
    """A backslash before anything else is refused, `%` and `_` outside LIKE included."""
    text = select(f"B = 'x{escape}'")
    condition = parse(text).where
    assert isinstance(condition, Comparison)
    with pytest.raises(OrgError, match="Illegal character sequence") as caught:
        string_of(text, condition.value)
    assert caught.value.code == "MALFORMED_QUERY"


def test_like_pattern() -> None:
    """In LIKE an escaped wildcard stands for itself, and so does an escaped backslash."""
    text = r"SELECT Id FROM A WHERE B LIKE '10\%\_%_\\\''"
    condition = parse(text).where
    assert isinstance(condition, Like)
    assert like_pattern_of(text, condition.pattern) == r"10\%\_%_\\'"


def test_unterminated_string() -> None:
    """A quote without its end is pointed at."""
    assert "ERROR at Row:1:Column:28\n" in refusal("SELECT Id FROM A WHERE B = 'x AND C = 1")


def test_lists() -> None:
    """IN, NOT IN, INCLUDES and EXCLUDES take lists of literals."""
    for operator in ("IN", "NOT IN", "INCLUDES", "EXCLUDES"):
        condition = where(f"A {operator.lower()} ('x', null)")
        assert isinstance(condition, Listed)
        assert condition.operator == operator
        assert [item.kind for item in condition.values] == ["string", "null"]


def test_nesting_is_bounded() -> None:
    """Depth of conditions is bounded, mere parentheses are not; neither recurses."""
    deep = "(NOT " * 200 + "A = 1" + ")" * 200
    assert "nested too deeply" in refusal(select(deep))
    assert isinstance(where("(" * 40_000 + "A = 1" + ")" * 40_000), Comparison)


def test_a_query_is_parsed_once() -> None:
    """The same text gives the very same tree."""
    text = "SELECT Id FROM Contact WHERE Name = 'cached'"
    assert parse(text) is parse(text)
