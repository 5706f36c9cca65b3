"""How values and nouns look in columns: JSON text, ISO 8601 times, booleans 0/1."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from connector.model.jsontext import JsonText
from connector.model.times import to_iso, to_ms

# One moment stamps every row of a batch, and loads bring many records of one second.
iso = lru_cache(maxsize=4096)(to_iso)
ms = lru_cache(maxsize=4096)(to_ms)


def iso_or_none(ms: int | None) -> str | None:
    """A time column that may be empty."""
    return None if ms is None else iso(ms)


def ms_or_none(text: str | None) -> int | None:
    """Milliseconds of a time column that may be empty."""
    return None if text is None else ms(text)


def to_json(value: object) -> str:
    """JSON text; any mapping is an object.

    Raises:
        TypeError: The value has no JSON form (an integer over 64 bits, a lone surrogate, a foreign type).
    """
    # An abstract mapping's `isinstance` takes longer than the rest.
    return value.text if type(value) is JsonText else orjson.dumps(value, default=_plain).decode()


def json_or_none(value: object) -> str | None:
    """A JSON column that may be empty."""
    return None if value is None else to_json(value)


def from_json(text: str | None) -> Any:
    """What a JSON column holds; None where it is empty."""
    return None if text is None else orjson.loads(text)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
