"""What a retyped column keeps."""

import pytest

from connector.store.refit import refit


@pytest.mark.parametrize(
    ("value", "old", "new", "kept"),
    [
        (5.0, "number", "text", "5"),
        (0.1, "number", "text", "0.1"),
        (7, "integer", "text", "7"),
        (1, "boolean", "text", "true"),
        (0, "boolean", "text", "false"),
        ("2026-01-31", "date", "text", "2026-01-31"),
        ("12.50", "text", "number", 12.5),
        ("-3", "text", "number", -3.0),
        ("nan", "text", "number", None),
        ("1_000", "text", "number", None),
        ("x", "text", "number", None),
        (3, "integer", "number", 3.0),
        (3.0, "number", "integer", 3),
        (3.5, "number", "integer", None),
        (1e300, "number", "integer", None),
        ("1.0", "text", "integer", None),
        ("9" * 18, "text", "integer", 999999999999999999),
        ("true", "text", "boolean", 1),
        (1, "integer", "boolean", 1),
        (2, "integer", "boolean", None),
        (1.0, "number", "boolean", None),
        ("2026-01-31", "text", "date", "2026-01-31"),
        ("2026-02-31", "text", "date", None),
        (20260131, "integer", "date", None),
        ("2026-01-31T10:00:00Z", "text", "datetime", "2026-01-31T10:00:00.000Z"),
        ("2026-01-31", "date", "datetime", None),
        (None, "text", "number", None),
    ],
)
def test_a_value_is_kept_only_where_it_fits(value: object, old: str, new: str, kept: object) -> None:
    """A retyped column holds nothing that its new type could not hold."""
    result = refit(value, old, new)
    assert result == kept
    assert type(result) is type(kept)
