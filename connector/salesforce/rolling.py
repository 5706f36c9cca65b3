"""Counts of the last 24 hours, for limits that roll.

Within the process only elapsed time counts: a wall clock that is set makes nothing forgotten, and nothing kept too
long. Counts are kept by hours, as the replica keeps them, so they look back 24 to 25 hours.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from connector.model.times import to_iso, to_ms

HOUR_S = 3600
HOUR_MS = HOUR_S * 1000
WINDOW_HOURS = 24
_WINDOW_S = WINDOW_HOURS * HOUR_S


def hour_of(ms: int) -> str:
    """The hour, UTC, as the replica writes it: `2026-11-22T17`."""
    return to_iso(ms)[: len("2026-11-22T17")]


@dataclass(frozen=True, slots=True)
class Counted:
    """Where a count went.

    Attributes:
        hour: What it is stored under.
        leaves_s: Elapsed time at which it leaves the window.
    """

    hour: str
    leaves_s: float


class RollingDay:
    """Counts by name.

    Args:
        now_ms: The wall clock, milliseconds since the Unix epoch, UTC; names the hours that counts are stored under.
        elapsed_s: A clock that is never set.
    """

    def __init__(self, now_ms: Callable[[], int], elapsed_s: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._elapsed_s = elapsed_s
        self._opened = (now_ms(), elapsed_s())
        self._counts: dict[float, Counter[str]] = {}

    def restore(self, stored: Mapping[str, Mapping[str, int]]) -> None:
        """Take stored counts, by hour and name; those of hours yet to come, by a clock since set back, count as new."""
        now_ms, elapsed_s = self._now_ms(), self._elapsed_s()
        for hour, counts in stored.items():
            age_s = (now_ms - to_ms(f"{hour}:00:00.000Z") - HOUR_MS) / 1000
            leaves_s = elapsed_s + _WINDOW_S - max(age_s, 0.0)
            if leaves_s > elapsed_s:
                self._counts.setdefault(leaves_s, Counter()).update(counts)

    def add(self, name: str, count: int = 1) -> Counted:
        """Count what happens now."""
        leaves_s = (self._elapsed_s() // HOUR_S + 1) * HOUR_S + _WINDOW_S
        self._counts.setdefault(leaves_s, Counter())[name] += count
        return Counted(hour_of(self._stamp_ms()), leaves_s)

    def take_back(self, name: str, counted: Counted) -> None:
        """One that was counted did not happen."""
        if counted.leaves_s in self._counts:
            self._counts[counted.leaves_s][name] -= 1

    def by_name(self) -> Mapping[str, int]:
        """The counts of the window."""
        return sum(self._window().values(), Counter())

    def total(self) -> int:
        """All of them together."""
        return sum(counts.total() for counts in self._window().values())

    def relief_s(self) -> float:
        """Seconds until the oldest counts leave; an hour at most, and that where there are none."""
        leaving = [leaves_s for leaves_s, counts in self._window().items() if counts.total()]
        return min(min(leaving, default=float("inf")) - self._elapsed_s(), float(HOUR_S))

    def _window(self) -> dict[float, Counter[str]]:
        elapsed_s = self._elapsed_s()
        for leaves_s in [leaves_s for leaves_s in self._counts if leaves_s <= elapsed_s]:
            del self._counts[leaves_s]
        return self._counts

    def _stamp_ms(self) -> int:
        """Never earlier than when we began and what has elapsed since: set back, no count looks older than it is."""
        began_ms, began_s = self._opened
        return max(self._now_ms(), began_ms + int((self._elapsed_s() - began_s) * 1000))
