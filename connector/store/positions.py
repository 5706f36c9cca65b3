"""Cursors and the count of API calls."""

from collections.abc import Mapping

from connector.store.columns import iso
from connector.store.part import Part
from connector.store.queries import load

_SQL = load("positions")


class Positions(Part):
    """Where each source stands, and what the org was asked."""

    def cursor(self, name: str) -> str | None:
        """The stored position, or None."""
        value: str | None = self._db.execute(_SQL["get"], (name,)).get
        return value

    def set_cursor(self, name: str, value: str | None, at_ms: int) -> None:
        """Store a position; None forgets it."""
        if value is None:
            self._db.execute(_SQL["forget"], (name,))
        else:
            self._db.execute(_SQL["set"], (name, value, iso(at_ms)))

    def identity(self) -> str:
        """The id of this replica: made with the file, random, and never the same for a file that was made anew."""
        return str(self._db.execute(_SQL["get"], ("replica",)).get)

    def identify(self) -> None:
        """Give the file its id, where it has none."""
        self._db.execute(_SQL["identify"])

    def count_call(self, hour: str, purpose: str, calls: int) -> None:
        """Add to the calls of an hour (`2026-11-22T17`, UTC)."""
        self._db.execute(_SQL["count_call"], (hour, purpose, calls))

    def calls_since(self, hour: str) -> Mapping[str, int]:
        """Calls by purpose from that hour on."""
        return {str(purpose): int(calls) for purpose, calls in self._db.execute(_SQL["calls_since"], (hour,))}

    def calls_by_hour(self, hour: str) -> Mapping[str, Mapping[str, int]]:
        """Calls by hour and purpose from that hour on."""
        found: dict[str, dict[str, int]] = {}
        for counted, purpose, calls in self._db.execute(_SQL["calls_by_hour"], (hour,)):
            found.setdefault(str(counted), {})[str(purpose)] = int(calls)
        return found

    def redate_calls(self, after: str, hour: str) -> None:
        """Count the calls of the hours behind `after` as those of `hour`."""
        self._db.execute(_SQL["redate_calls"], {"after": after, "hour": hour})
        self._db.execute(_SQL["forget_calls"], (after,))
