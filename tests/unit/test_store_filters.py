"""Filters and positions: everything a caller gives is checked, and bound."""

import pytest

from connector.store.filters import Bindings, Filter, FilterOperator, Order, behind, condition, order, text_condition
from connector.store.tables import ObjectColumns

COLUMNS = ObjectColumns(
    "Widget__c", "widget__c", "a01", {"Name": "text", "Active__c": "boolean", "Size__c": "integer", "Due__c": "date"}
)


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
        Filter("Name", FilterOperator.EQ, 5),
        Filter("Size__c", FilterOperator.GT, "5"),
        Filter("Size__c", FilterOperator.EQ, value=True),
        Filter("Active__c", FilterOperator.EQ, 1),
        Filter("Size__c", FilterOperator.CONTAINS, 5),
        Filter("Name", FilterOperator.GT, None),
    ],
)
def test_a_filter_that_does_not_fit_the_object_is_refused(item: Filter) -> None:
    """Unknown fields and values of another kind are named, not run."""
    with pytest.raises(ValueError, match=item.field.partition('"')[0]):
        condition(COLUMNS, [item], Bindings())


def test_values_are_bound_and_never_in_the_sql() -> None:
    """No value reaches the text of a statement."""
    bindings = Bindings()
    sql = condition(COLUMNS, [Filter("Name", FilterOperator.CONTAINS, "Rob'); --")], bindings)
    sql += text_condition(COLUMNS, "tEXt", bindings) + behind(COLUMNS, Order("Id", descending=False), "id'", bindings)
    assert "rob" not in sql.lower()
    assert bindings == {"value0": "rob'); --", "text": "text", "after_id": "id'"}


@pytest.mark.parametrize("after", ["", "x", "!!!!", "WzEsMl0", "eyJhIjoxfQ", "W251bGxd", "WzEuNSwgImEiXQ"])
def test_a_position_of_another_list_is_refused(after: str) -> None:
    """`after` comes from the mesh: rubbish is an error reply, not a crash."""
    with pytest.raises(ValueError, match="after"):
        behind(COLUMNS, Order("Name", descending=False), after, Bindings())
