"""When each object is polled next: at its interval, sooner while the stream is away or a hole is open."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

# While the stream is down each object is due this many times more often, but not more often than every FASTEST_S.
HASTE = 15
FASTEST_S = 30.0
# Objects that would be due within this share of their interval come along with those that are.
EARLY = 0.1
# A refused object is asked for again at this interval at most.
REFUSED_RETRY_S = 300.0


@dataclass(slots=True)
class _Entry:
    """Of one object: when it is due; polls in a row that found a hole and left it open."""

    due_s: float = 0.0
    unclosed: int = 0


class Timetable:
    """Every object is due at the start, and in haste until the stream is healthy."""

    def __init__(self, intervals_s: Mapping[str, float], rng: Random, now_s: Callable[[], float]) -> None:
        """`intervals_s`: object -> its interval while the stream is healthy; `now_s`: a clock that never goes back."""
        self._intervals_s = intervals_s
        self._rng = rng
        self._now_s = now_s
        self._entries = {name: _Entry() for name in intervals_s}
        self._urgent: set[str] = set()
        self._hasty = True

    def hurry(self, *, hasty: bool) -> None:
        """Come round faster, or at the full interval again; never later than was planned."""
        self._hasty = hasty
        now_s = self._now_s()
        for name, entry in self._entries.items():
            entry.due_s = min(entry.due_s, now_s + self.interval_s(name))

    def at_once(self, names: Iterable[str]) -> None:
        """Whatever the time is."""
        self._urgent.update(names)

    def begun(self, names: Iterable[str]) -> None:
        """They are being polled: nobody waits for it any more."""
        self._urgent.difference_update(names)

    def polled(self, name: str, *, unclosed: bool) -> None:
        """The next one is an interval away; with a hole left open it is sooner, and then less and less so."""
        entry, interval_s = self._entries[name], self.interval_s(name)
        entry.unclosed = entry.unclosed + 1 if unclosed else 0
        if entry.unclosed:
            interval_s = min(interval_s, FASTEST_S * 2.0 ** min(entry.unclosed - 1, 20))
        entry.due_s = self._now_s() + interval_s * self._rng.uniform(0.98, 1.0)

    def passed_over(self, name: str) -> None:
        """There was nothing to poll: an interval from now."""
        self._entries[name].due_s = self._now_s() + self.interval_s(name)

    def refused(self, name: str) -> None:
        """The org does not answer for it."""
        self._entries[name].due_s = self._now_s() + REFUSED_RETRY_S

    def due(self, usable: Sequence[str]) -> list[str]:
        """Which of them to poll now."""
        now_s = self._now_s()
        due = {n for n in usable if n in self._urgent or self._entries[n].due_s <= now_s}
        if not due:
            return []
        return [n for n in usable if n in due or self._entries[n].due_s <= now_s + self.interval_s(n) * EARLY]

    def until_due_s(self, usable: Iterable[str]) -> float:
        """How long until the first of them is."""
        due_s = [self._entries[n].due_s for n in usable]
        return max(0.05, min(due_s) - self._now_s()) if due_s else FASTEST_S

    def interval_s(self, name: str) -> float:
        """Between two polls, as things are."""
        full_s = self._intervals_s[name]
        return min(full_s, max(FASTEST_S, full_s / HASTE)) if self._hasty else full_s

    def due_in_s(self, name: str) -> float:
        """Until the object's next poll; negative: it is late."""
        return self._entries[name].due_s - self._now_s()
