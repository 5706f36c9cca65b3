"""Attribute names: the org's field names in snake case, with short forms for two of them. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

SHORT_FORMS: Mapping[str, str] = {"annual_revenue": "revenue", "stage_name": "stage"}
_JUNCTIONS = ("and", "or")

_WORD_END = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def attribute(name: str) -> str:
    """The attribute of a field: `FirstName` -> `first_name`, `StageName` -> `stage`, `Field__c` -> `field__c`.

    An attribute is its own attribute; a long form is its short one.
    """
    snake = _WORD_END.sub("_", name).lower()
    return SHORT_FORMS.get(snake, snake)


@lru_cache(maxsize=256)
def names_of(object_name: str, fields: tuple[str, ...]) -> "Names":
    """The names of an object with these fields."""
    return Names(object_name, fields)


class Names:
    """The fields of one object and their attributes.

    Attributes:
        object: Its name.
    """

    def __init__(self, object_name: str, fields: Iterable[str]) -> None:
        self.object = object_name
        self._fields: dict[str, str] = {"id": "Id"}
        for name in fields:
            # Of two fields with one attribute the second has its own name for one.
            self._fields.setdefault(attribute(name) if attribute(name) not in self._fields else name, name)
        self._attributes = {name: attr for attr, name in self._fields.items()}

    def __iter__(self) -> Iterator[str]:
        """The attributes."""
        return iter(self._fields)

    def attribute(self, field: str) -> str:
        """The attribute of a field of the object."""
        return self._attributes.get(field) or attribute(field)

    def field(self, name: str) -> str:
        """The field that an attribute, or a field's own name, stands for.

        Raises:
            ValueError: The object has none; with those that it has.
        """
        if name in self._attributes:
            return name
        found = self._fields.get(name) or self._fields.get(attribute(name))
        if found is None:
            known = ", ".join(self._fields)
            raise ValueError(f"{self.object} has no synced field {name[:80]!r}; it has {known}")
        return found

    def where(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A condition with the fields' own names for attributes.

        Raises:
            ValueError: The object has no such field.
        """
        return {self._member(name): self._inner(name, value) for name, value in document.items()}

    def _member(self, name: str) -> str:
        return name if name == "not" or name in _JUNCTIONS else self.field(name)

    def _inner(self, name: str, value: Any) -> Any:
        if name == "not" and isinstance(value, Mapping):
            return self.where(value)
        if name in _JUNCTIONS and isinstance(value, list | tuple):
            return [self.where(part) if isinstance(part, Mapping) else part for part in value]
        return value
