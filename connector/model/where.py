"""Conditions as they stand in JSON: `{"Company": "Acme", "Amount": {"gte": 1000}, "or": [...]}`; section 4."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from connector.model.query import AllOf, AnyOf, Filter, FilterOperator, Not, Value, Where

MAX_CONDITIONS = 100
MAX_DEPTH = 10
MAX_VALUES = 500
MAX_PATTERN_CHARS = 255
_JUNCTIONS = ("and", "or", "not")
_OPERATORS: Mapping[str, FilterOperator] = {o.value: o for o in FilterOperator}
_SHOWN_CHARS = 80


def parse_where(document: object) -> Where:
    """The condition that a JSON object states: all its members hold.

    `{Field: value}` is equality, `{Field: {operator: value, ...}}` any of the operators, `and` and `or` take lists of
    conditions, `not` one condition.

    Raises:
        ValueError: It does not have this form, or is larger than the limits above; with every wrong member, by its
            path, joined by `; `.
    """
    problems: list[str] = []
    parser = _Parser(problems)
    where = parser.all_of(document, "where", 1)
    if parser.conditions > MAX_CONDITIONS:
        problems.append(f"where: more than {MAX_CONDITIONS} conditions")
    if problems:
        raise ValueError("; ".join(problems[:20]))
    return where


class _Parser:
    """Collects what is wrong while it goes through the document."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems
        self.conditions = 0

    def all_of(self, document: object, path: str, depth: int) -> AllOf:
        """A JSON object, whose members all hold."""
        if not isinstance(document, Mapping):
            self._problems.append(f"{path}: expected an object of conditions")
            return AllOf(())
        if depth > MAX_DEPTH:
            self._problems.append(f"{path}: nested more than {MAX_DEPTH} deep")
            return AllOf(())
        return AllOf(tuple(part for name, value in document.items() for part in self._member(name, value, path, depth)))

    def _member(self, name: object, value: object, path: str, depth: int) -> Iterator[Where]:
        here = f"{path}.{str(name)[:_SHOWN_CHARS]}"
        if not isinstance(name, str):
            self._problems.append(f"{here}: expected the name of a field")
        elif name == "not":
            yield Not(self.all_of(value, here, depth + 1))
        elif name in _JUNCTIONS:
            parts = tuple(self._listed(value, here, depth))
            yield AllOf(parts) if name == "and" else AnyOf(parts)
        elif isinstance(value, Mapping):
            yield from self._comparisons(name, value, here)
        else:
            yield from self._comparison(name, FilterOperator.EQ, value, here)

    def _listed(self, value: object, path: str, depth: int) -> Iterator[Where]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            self._problems.append(f"{path}: expected a list of conditions")
            return
        for number, part in enumerate(value[: MAX_CONDITIONS + 1]):
            yield self.all_of(part, f"{path}.{number}", depth + 1)
            self.conditions += 1

    def _comparisons(self, field: str, operators: Mapping[Any, Any], path: str) -> Iterator[Filter]:
        if not operators:
            self._problems.append(f"{path}: expected one of {', '.join(_OPERATORS)}")
        for name, value in operators.items():
            operator = _OPERATORS.get(name) if isinstance(name, str) else None
            here = f"{path}.{str(name)[:_SHOWN_CHARS]}"
            if operator is None:
                self._problems.append(f"{here}: no such operator; there are {', '.join(_OPERATORS)}")
            else:
                yield from self._comparison(field, operator, value, here)

    def _comparison(self, field: str, operator: FilterOperator, value: object, path: str) -> Iterator[Filter]:
        self.conditions += 1
        problem = _problem(operator, value)
        if problem is not None:
            self._problems.append(f"{path}: {problem}")
        else:
            yield Filter(field, operator, tuple(value) if isinstance(value, list | tuple) else value)  # type: ignore[arg-type]  # checked by _problem


def _problem(operator: FilterOperator, value: object) -> str | None:
    """What is wrong with a value, whatever the field; its kind is checked where the fields are known."""
    match operator:
        case FilterOperator.IN:
            return _list_problem(value)
        case FilterOperator.IS_NULL:
            return None if isinstance(value, bool) else "expected true or false"
        case FilterOperator.LIKE if isinstance(value, str) and len(value) > MAX_PATTERN_CHARS:
            return f"more than {MAX_PATTERN_CHARS} characters"
        case _ if not isinstance(value, Value):
            return "expected a value"
        case _:
            return None


def _list_problem(value: object) -> str | None:
    if not isinstance(value, list | tuple):
        return "expected a list of values"
    if len(value) > MAX_VALUES:
        return f"more than {MAX_VALUES} values"
    return None if all(isinstance(v, Value) for v in value) else "expected a list of values"
