"""Times as text: the usual form is read by a short cut, which must take and refuse what the long way does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.model.times import to_iso, to_ms

NOON_MS = 1_795_349_599_157


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_what_is_written_is_read(moment_ms: int) -> None:
    """Every millisecond of the years 1 to 9999."""
    assert to_ms(to_iso(moment_ms)) == moment_ms


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_the_usual_form_says_what_another_spelling_says(moment_ms: int) -> None:
    """The same moment with a zone in digits takes the long way."""
    text = to_iso(moment_ms)
    assert to_ms(text) == to_ms(text.removesuffix("Z") + "+0000")


@pytest.mark.parametrize(
    "text",
    [
        "2026-W47-7T17:26:39.157Z",
        "2026-11-22T17:26:39,157Z",
        "2026-11-22T17:26:39.15 Z",
        "2026-11-22T17:26:39.1\u0665\u0667Z",
        "\u0662026-11-22T17:26:39.157Z",
        "2026-11-31T17:26:39.157Z",
        "2026-11-22T25:26:39.157Z",
        "2026/11/22T17:26:39.157Z",
        "2026-11-22-17:26:39.157Z",
    ],
)
def test_what_only_looks_like_it_is_refused(text: str) -> None:
    """Each has the length of the usual form; the date functions of Python read the first of them."""
    assert len(text) == len(to_iso(NOON_MS))
    with pytest.raises(ValueError, match=r"."):
        to_ms(text)
