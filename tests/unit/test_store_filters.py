"""Conditions and positions: everything a caller gives is checked, and bound."""

import base64

import pytest

from connector.model.objects import ObjectColumns
from connector.model.query import EVERYTHING, AllOf, AnyOf, Filter, FilterOperator, Not, Where, containing
from connector.model.where import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES, parse_where
from connector.store.filters import Bindings, condition
from connector.store.paging import Order, behind, chosen, order, page_end

COLUMNS = ObjectColumns(
    "Widget__c",
    "widget__c",
    "a01",
    {"Name": "text", "Active__c": "boolean", "Size__c": "integer", "Due__c": "date", "Seen__c": "datetime"},
)


def sql(where: Where) -> str:
    return condition(COLUMNS, where, Bindings()).removeprefix("_deleted_at IS NULL AND ")


@pytest.mark.parametrize("text", ["Nope", 'Name" --', "_version", "Name sideways", "Name desc, Id", ""])
def test_an_order_by_anything_but_a_field_is_refused(text: str) -> None:
    """`order_by` comes from the mesh and stands in the SQL as a name."""
    if text:
        with pytest.raises(ValueError, match=r"field|order_by"):
            order(COLUMNS, text)
    else:
        assert order(COLUMNS, text) == Order("Id", descending=False)


def test_an_order_is_a_field_and_a_direction() -> None:
    """The spelled forms."""
    assert order(COLUMNS, None) == Order("Id", descending=False)
    assert order(COLUMNS, "Name") == Order("Name", descending=False)
    assert order(COLUMNS, "Name DESC") == Order("Name", descending=True)


@pytest.mark.parametrize(
    "item",
    [
        Filter("Nope", FilterOperator.EQ, "x"),
        Filter('Name" OR 1 --', FilterOperator.EQ, "x"),
        Filter("Nope", FilterOperator.IS_NULL, value=True),
        Filter("Name", FilterOperator.EQ, 5),
        Filter("Name", FilterOperator.EQ, "a\0b"),
        Filter("Name", FilterOperator.EQ, "\ud800"),
        Filter("Name", FilterOperator.EQ, ("a", "b")),
        Filter("Name", FilterOperator.IN, "a"),
        Filter("Name", FilterOperator.IN, ("a", 1)),
        Filter("Name", FilterOperator.IS_NULL, "yes"),
        Filter("Size__c", FilterOperator.GT, "5"),
        Filter("Size__c", FilterOperator.EQ, value=True),
        Filter("Size__c", FilterOperator.EQ, 2**63),
        Filter("Active__c", FilterOperator.EQ, 1),
        Filter("Size__c", FilterOperator.LIKE, "5"),
        Filter("Due__c", FilterOperator.LIKE, "2026%"),
        Filter("Name", FilterOperator.GT, None),
        Filter("Due__c", FilterOperator.LT, "tomorrow"),
        Filter("Due__c", FilterOperator.LT, "2026-02-30"),
        Filter("Seen__c", FilterOperator.LT, "2026-02-20"),
    ],
)
def test_a_filter_that_does_not_fit_the_object_is_refused(item: Filter) -> None:
    """Unknown fields and values of another kind are named, not run."""
    with pytest.raises(ValueError, match=item.field.partition('"')[0]):
        condition(COLUMNS, Not(AnyOf((item,))), Bindings())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1])
def test_a_number_that_sqlite_cannot_hold_is_refused(value: float) -> None:
    """NaN would be bound as null; an integer beyond 64 bits not at all."""
    columns = ObjectColumns("A", "a", "001", {"Amount": "number"})
    with pytest.raises(ValueError, match="Amount"):
        condition(columns, Filter("Amount", FilterOperator.LT, value), Bindings())


def test_all_that_is_wrong_is_named() -> None:
    """A reply names every wrong field at once."""
    where = AllOf((Filter("Nope", FilterOperator.EQ, 1), Filter("Size__c", FilterOperator.GT, "5")))
    with pytest.raises(ValueError, match=r"Nope.*; Size__c"):
        condition(COLUMNS, where, Bindings())
    with pytest.raises(ValueError, match=r"'A'.*; .*'B'"):
        chosen(COLUMNS, ["Id", "A", "Name", "B"])


def test_values_are_bound_and_never_in_the_sql() -> None:
    """No value reaches the text of a statement."""
    bindings = Bindings()
    after = page_end(Order("Id", descending=False), "id'", None)
    statement = condition(COLUMNS, Filter("Name", FilterOperator.LIKE, containing("Rob'); -_")), bindings)
    statement += condition(COLUMNS, Filter("Name", FilterOperator.IN, ("bob'", None)), bindings)
    statement += behind(COLUMNS, Order("Id", descending=False), after, bindings)
    assert "ob" not in statement.lower()
    assert bindings == {"value0": "%rob'); -\\_%", "value1": "bob'", "after_id": "id'"}


def test_times_are_compared_in_the_form_in_which_they_are_stored() -> None:
    """Text is compared: another spelling of the same time would sort elsewhere."""
    bindings = Bindings()
    condition(COLUMNS, Filter("Seen__c", FilterOperator.GTE, "2026-11-22T18:26:39+01:00"), bindings)
    condition(COLUMNS, Filter("Due__c", FilterOperator.IN, ("2026-01-31",)), bindings)
    assert bindings == {"value0": "2026-11-22T17:26:39.000Z", "value1": "2026-01-31"}


def test_a_negation_reaches_the_comparisons() -> None:
    """SQL's NOT of null is null: a record would fit neither a condition nor its opposite."""
    assert sql(EVERYTHING) == "1"
    assert sql(Not(EVERYTHING)) == "0"
    both = AnyOf((Filter("Size__c", FilterOperator.GT, 3), Filter("Name", FilterOperator.IS_NULL, value=True)))
    assert sql(Not(Not(both))) == '("Size__c" > :value0 OR "Name" IS NULL)'
    assert sql(Not(both)) == '(("Size__c" <= :value0 OR "Size__c" IS NULL) AND "Name" IS NOT NULL)'


RUBBISH = ["", "x", "!!!!", "WzEsMl0", "eyJhIjoxfQ", "W251bGxd", "é", "WzEuNSwgImEiXQ"]


@pytest.mark.parametrize("after", [*RUBBISH, page_end(Order("Name", descending=True), "a", "b")])
def test_a_position_of_another_list_is_refused(after: str) -> None:
    """`after` comes from the mesh: rubbish is an error reply, not a crash."""
    with pytest.raises(ValueError, match="after"):
        behind(COLUMNS, Order("Name", descending=False), after, Bindings())


@pytest.mark.parametrize("value", ['"x"', "true", "1.5", "18446744073709551615", "[1]"])
def test_a_position_with_a_value_of_another_kind_is_refused(value: str) -> None:
    """A made-up position is not bound as it is."""
    after = base64.urlsafe_b64encode(f'["Size__c",false,"id",{value}]'.encode()).decode()
    if value != "true":  # a stored boolean is an integer as well
        with pytest.raises(ValueError, match="after"):
            behind(COLUMNS, Order("Size__c", descending=False), after, Bindings())


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "where: expected an object"),
        ([], "where: expected an object"),
        ({"Name": ["a"]}, "where.Name: expected a value"),
        ({"Name": {}}, "where.Name: expected one of"),
        ({"Name": {"contains": "a"}}, "where.Name.contains: no such operator"),
        ({"Name": {"eq": {}}}, "where.Name.eq: expected a value"),
        ({"Name": {"like": "%" * 256}}, "where.Name.like: more than 255"),
        ({"Name": {"in": "abc"}}, "where.Name.in: expected a list"),
        ({"Name": {"in": [[]]}}, "where.Name.in: expected a list"),
        ({"Name": {"in": ["a"] * (MAX_VALUES + 1)}}, "where.Name.in: more than 500"),
        ({"Name": {"is_null": 1}}, "where.Name.is_null: expected true or false"),
        ({"and": {"Name": "a"}}, "where.and: expected a list"),
        ({"or": []}, "where.or: expected a list"),
        ({"or": [1]}, "where.or.0: expected an object"),
        ({"not": ["a"]}, "where.not: expected an object"),
        ({"A": {"x": 1}, "B": {"gt": []}}, "where.A.x: .*; where.B.gt: expected a value"),
        ({"or": [{"Name": "a"}] * (MAX_CONDITIONS + 1)}, "where: more than 100 conditions"),
    ],
)
def test_a_condition_of_another_form_is_refused(document: object, says: str) -> None:
    """With the path of every wrong member."""
    with pytest.raises(ValueError, match=says):
        parse_where(document)


def test_conditions_are_nested_to_a_limit() -> None:
    """No condition is deeper than SQLite's, or Python's, parser goes."""
    document: dict[str, object] = {"Name": "a"}
    for _ in range(MAX_DEPTH - 1):
        document = {"not": document}
    parse_where(document)
    with pytest.raises(ValueError, match="nested more than 10 deep"):
        parse_where({"not": document})


def test_the_forms_of_a_condition() -> None:
    """Equality in short, several operators on a field, junctions."""
    document = {"Name": "a", "Size__c": {"gte": 1, "lt": 5}, "or": [{"Name": None}, {"not": {"Due__c": {"in": []}}}]}
    assert parse_where(document) == AllOf(
        (
            Filter("Name", FilterOperator.EQ, "a"),
            Filter("Size__c", FilterOperator.GTE, 1),
            Filter("Size__c", FilterOperator.LT, 5),
            AnyOf(
                (
                    AllOf((Filter("Name", FilterOperator.EQ, None),)),
                    AllOf((Not(AllOf((Filter("Due__c", FilterOperator.IN, ()),))),)),
                )
            ),
        )
    )
