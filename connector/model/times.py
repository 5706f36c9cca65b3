"""Times: integer milliseconds since the Unix epoch inside, ISO 8601 in UTC with `Z` in the database and on the wire."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_USUAL = len("2026-11-22T17:26:39.157Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# REST writes +0000 without a colon, events and Bulk CSV write Z, SOQL literals may have no fraction.
_DATETIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:?\d{2})",
    re.ASCII | re.IGNORECASE,
)


def to_ms(text: str) -> int:
    """Milliseconds since the epoch of an ISO 8601 date-time with a zone (`Z`, `+0000`, `+00:00`).

    Raises:
        ValueError: The text is not such a date-time.
    """
    if len(text) == _USUAL and text[19] == "." and text[23] == "Z" and text[20:23].isdecimal() and text.isascii():
        return _whole_second_ms(text[:19]) + int(text[20:23])  # as we write it, and the org in events: most of them
    return _any_ms(text)


def _any_ms(text: str) -> int:
    match = _DATETIME.fullmatch(text)
    if match is None:
        raise ValueError("not an ISO 8601 date-time with a zone")
    day, clock, fraction, zone = match.groups()
    return _second_ms(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}") + int(((fraction or "") + "000")[:3])


def to_iso(ms: int) -> str:
    """`2026-11-22T17:26:39.157Z`; any integer in the years 1 to 9999.

    Raises:
        OverflowError: The year is outside 1 to 9999.
    """
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=4096)
def _whole_second_ms(text: str) -> int:
    return _any_ms(text + "Z")


@lru_cache(maxsize=4096)
def _second_ms(text: str) -> int:
    # Reading a date takes most of the time, and many of one second are read at a time.
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Many times of one second are written at a time, and putting a date into words takes most of it.
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(len("2026-11-22T17:26:39"), "0")
