"""JSON as the org writes it."""

from typing import Any

import orjson


def parse(text: bytes | str) -> Any:
    """The value of a JSON text, with NUL characters taken out of its strings.

    A NUL ends a text for SQLite's functions and for most readers of the replica; the org lets some in.

    Raises:
        ValueError: Not JSON.
    """
    value = orjson.loads(text)
    escaped = b"\\u0000" in text if isinstance(text, bytes) else "\\u0000" in text
    return _without_nul(value) if escaped else value


def compose(value: Any) -> str:
    """`value` as JSON text."""
    return orjson.dumps(value).decode()


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nul(item) for key, item in value.items()}
    return value
