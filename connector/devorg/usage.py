"""What the org counts: API calls and delivered events in a rolling day, and calls by path."""

from collections import Counter, deque

from connector.devorg.clock import OrgClock

DAY_MS = 24 * 3600 * 1000


class RollingCount:
    """How often something happened in the last 24 hours of the org's clock, to the second.

    Holds one number per second that had any, thus at most 86,401.
    """

    def __init__(self, clock: OrgClock) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque()
        self._used = 0

    def add(self, count: int = 1) -> None:
        """Count `count` more, now."""
        second = self._clock.now_ms() // 1000
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + count)
        else:
            self._seconds.append((second, count))
        self._used += count

    def used(self) -> int:
        """The count of the last 24 hours."""
        oldest = (self._clock.now_ms() - DAY_MS) // 1000
        while self._seconds and self._seconds[0][0] <= oldest:
            self._used -= self._seconds.popleft()[1]
        return self._used

    def set(self, used: int) -> None:
        """Pretend that `used` were counted, all of them now."""
        self._seconds.clear()
        self._used = 0
        self.add(used)


class Usage:
    """The org's counters since it started.

    Attributes:
        api: API requests that count towards the daily limit.
        delivered: Change events delivered, each once per subscriber.
        bulk_query_jobs: Bulk API query jobs made.
        bulk_batches: Batches of up to 10,000 records that Bulk ingest jobs brought, and those of the first Bulk API.
        calls: API requests by method and path, for instance `PATCH /sobjects/{object}/{id}`.
        streaming_clients: CometD sessions now.
        logins: Token requests answered with a token, by grant type.
    """

    def __init__(self, clock: OrgClock) -> None:
        self.api = RollingCount(clock)
        self.delivered = RollingCount(clock)
        self.bulk_query_jobs = RollingCount(clock)
        self.bulk_batches = RollingCount(clock)
        self.calls: Counter[str] = Counter()
        self.logins: Counter[str] = Counter()
        self.streaming_clients = 0
