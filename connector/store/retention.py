"""What is old enough goes, a little at a time."""

from connector.store.columns import iso
from connector.store.outbox import Outbox
from connector.store.queries import load
from connector.store.tables import objects, trim_statement

_SQL = load("retention")
_MIN_USAGE_MS = 48 * 3600 * 1000  # the budget looks back 24 hours
_HOUR_CHARS = len("2026-11-22T17")


class Retention(Outbox):
    """Bounds the tables that grow by themselves."""

    def trim(self, now_ms: int, keep_deleted_ms: int, keep_changes_ms: int, limit: int) -> int:
        """Remove at most `limit` outdated rows (published changes, tombstones, settled rows); returns how many.

        An unpublished change, an unfinished command, an open hole and an unsettled event stay however old they are.
        """
        before = iso(now_ms - keep_changes_ms)
        left = limit - self._trim_changes(before, limit)
        for table in objects(self._db).values():
            left -= self._delete(trim_statement(table.table), iso(now_ms - keep_deleted_ms), left)
        for query in ("trim_commands", "trim_quarantine", "trim_holes"):
            left -= self._delete(_SQL[query], before, left)
        hour = iso(now_ms - max(keep_changes_ms, _MIN_USAGE_MS))[:_HOUR_CHARS]
        left -= self._delete(_SQL["trim_api_usage"], hour, left)
        return limit - left

    def _trim_changes(self, before: str, limit: int) -> int:
        """Trim from the oldest on and stop at the first young one: the log keeps no holes, and nothing is scanned."""
        last = 0
        bindings = {"published": self.published_version(), "limit": limit}
        for version, applied_at in self._db.execute(_SQL["oldest_published"], bindings).fetchall():
            if str(applied_at) >= before:
                break
            last = int(str(version))
        return self.trim_log(last) if last else 0

    def _delete(self, query: str, before: str, limit: int) -> int:
        if limit <= 0:
            return 0
        self._db.execute(query, {"before": before, "limit": limit})
        return self._db.changes()
