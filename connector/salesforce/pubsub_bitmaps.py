"""The lists of fields in a change event's header, which the Pub/Sub API sends as bitmaps.

Source: Pub/Sub API Developer Guide, "Event Deserialization Considerations".
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

# No schema has so many fields that its bitmap is longer.
_BITMAP = re.compile(r"(?:([0-9]{1,4})-)?0x([0-9A-Fa-f]{1,1024})", re.ASCII)

T = TypeVar("T")
Field = tuple[str, Sequence[str]]
"""A field's name and, of a compound, the names of its parts."""


def field_names(bitmaps: Iterable[str], fields: Sequence[Field]) -> list[str]:
    """The fields that the bitmaps stand for, a compound's parts as `Name.FirstName`.

    `0x0041` are fields 0 and 6 of the schema, `2-0x02` is part 1 of field 2. There need not be one for the fields
    themselves.

    Args:
        bitmaps: As the header holds them.
        fields: Of the schema that the event was written by, the header included.

    Raises:
        ValueError: One is no bitmap, or names a field that the schema does not have.
    """
    names: list[str] = []
    for text in bitmaps:
        match = _BITMAP.fullmatch(text)
        if match is None:
            raise ValueError("a list of fields is no bitmap")
        parent, bits = match[1], int(match[2], 16)
        if parent is None:
            names += [name for name, _ in _set(bits, fields)]
        elif int(parent) >= len(fields):
            raise ValueError("a bitmap names a compound that its schema does not have")
        else:
            name, parts = fields[int(parent)]
            names += [f"{name}.{part}" for part in _set(bits, parts)]
    return names


def _set(bits: int, choices: Sequence[T]) -> list[T]:
    if bits >> len(choices):
        raise ValueError("a bitmap names a field that its schema does not have")
    return [choice for index, choice in enumerate(choices) if bits >> index & 1]
