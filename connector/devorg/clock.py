"""The org's clock: real time plus an offset, and the forms in which Salesforce writes an instant."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:?\d\d)", re.ASCII)


def wall_ms() -> int:
    """Return real time in milliseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1_000_000


class OrgClock:
    """Time as the org sees it; never runs backwards, whatever real time and the offset do.

    Args:
        offset_ms: Distance from real time, for instance as saved before a restart.
        wall: Source of real time in milliseconds.
    """

    def __init__(self, offset_ms: int = 0, wall: Callable[[], int] = wall_ms) -> None:
        self.offset_ms = offset_ms
        self._wall = wall
        self._floor_ms = 0

    def now_ms(self) -> int:
        """Return the org's time, milliseconds since the Unix epoch, UTC; not below any earlier answer."""
        self._floor_ms = max(self._floor_ms, self._wall() + self.offset_ms)
        return self._floor_ms

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`; moved back, it stands still until the last answer is reached again."""
        self.offset_ms += round(seconds * 1000)

    def not_before(self, ms: int) -> None:
        """Let no later answer be below `ms`: the last stamp found in a reopened database."""
        self._floor_ms = max(self._floor_ms, ms)


def stamp(ms: int) -> str:
    """Return a record's date-time, `2026-01-01T12:00:00.000Z`, cut to whole seconds.

    Source: Salesforce stores date-times at a resolution of one second.
    """
    return (_EPOCH + timedelta(seconds=ms // 1000)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def stamp_ms(text: str) -> int:
    """Return the milliseconds since the Unix epoch of a date-time as stored or as a client writes it.

    Raises:
        ValueError: No ISO 8601 date-time with an offset or `Z`.
    """
    if _DATETIME.fullmatch(text) is None:
        raise ValueError(f"not a date-time with an offset: {text!r}")
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def rest_datetime(text_z: str) -> str:
    """Return a stored date-time as the REST API writes it: `Z` becomes `+0000`."""
    return text_z.removesuffix("Z") + "+0000"


def http_date(ms: int) -> str:
    """Return an HTTP date, `Thu, 01 Jan 2026 12:00:05 GMT`."""
    return format_datetime(_EPOCH + timedelta(seconds=ms // 1000), usegmt=True)


def http_date_ms(text: str) -> int:
    """Return the milliseconds of an HTTP date.

    Raises:
        ValueError: Not an HTTP date.
    """
    moment = parsedate_to_datetime(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000
