"""What of the overview wants a person's eye, the worst first. Pure.

`bad`: somebody has to do something. `warn`: something is late or retried; what is read is still good.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from connector.model.times import to_ms

LONG_QUEUE = 1000
# Health is told every `health.interval`; this many of them left out is a silence.
SILENT_INTERVALS = 3
_FRESH_ERROR_MS = 5 * 60 * 1000

Attention = tuple[str, str]  # level, text
LEVELS = ("bad", "warn")


def attention(
    board: Mapping[str, Any], *, now_ms: int, warn_at: float, health_interval_s: float
) -> list[dict[str, str]]:
    """What is wrong, the worst first; empty if all is well."""
    found = [
        *_replica(board),
        *_daemon(board["daemon"], now_ms, health_interval_s),
        *_health(board["daemon"], now_ms, warn_at),
    ]
    return [{"level": level, "text": text} for level, text in sorted(found, key=lambda one: LEVELS.index(one[0]))]


def _replica(board: Mapping[str, Any]) -> Iterator[Attention]:
    replica = board["replica"]
    if replica is None:
        yield "bad", f"The replica cannot be read: {board['problem']}"
        return
    for hole in replica["holes"]:
        yield "warn", f"{hole['object']} may differ from the org: {hole['reason']}; since {hole['from']}"
    if count := replica["queues"].get("quarantine", 0):
        yield "warn", f"{count} change events could not be applied as they were"
    if (count := replica["queues"].get("outbox", 0)) > LONG_QUEUE:
        yield "warn", f"{count:,} messages wait for the broker"
    if (count := replica["queues"].get("commands", 0)) > LONG_QUEUE:
        yield "warn", f"{count:,} commands wait for the org"


def _daemon(daemon: Mapping[str, Any], now_ms: int, interval_s: float) -> Iterator[Attention]:
    if daemon["state"] == "unknown":
        yield "bad", f"No word from the daemon: {daemon.get('reason')}"
    elif daemon["state"] == "offline":
        since = f" since {daemon['since']}" if daemon.get("since") else ""
        yield "bad", f"The daemon is offline{since}: nothing is kept current"
    elif daemon["health"] is None:
        yield "warn", "The daemon has not told its health yet"
    else:
        silent_s = (now_ms - to_ms(daemon["health"]["as_of"])) / 1000
        if silent_s > SILENT_INTERVALS * interval_s + SILENT_INTERVALS:
            yield "warn", f"The daemon has told nothing for {silent_s:,.0f} s"


def _health(daemon: Mapping[str, Any], now_ms: int, warn_at: float) -> Iterator[Attention]:
    health = daemon["health"]
    if health is None or daemon["state"] != "online":
        return
    error = health["last_error"]
    if health["state"] == "failing":
        told = f": {error['source']}: {error['error']}" if error else ""
        yield "bad", f"The daemon needs a person{told}"
    elif error is not None and now_ms - to_ms(error["at"]) < _FRESH_ERROR_MS:
        yield "warn", f"{error['source']}: {error['error']}"
    stream = health["stream"]
    if stream["state"] in ("connecting", "down"):
        yield "warn", f"The change stream is {stream['state']}: the org is polled instead"
    elif stream["state"] == "paused":
        yield "warn", "Stream and poller are paused"
    for name, one in health["objects"].items():
        held = one.get("held", 0)  # a daemon of an older version does not tell
        if held:
            yield "bad", f"{held:,} {name} are gone in the org, too many at once: `verify --allow-deletions {name}`"
        if one["drift"] > held:
            yield "warn", f"{one['drift'] - held:,} records of {name} were found different and not repaired"
    yield from _allocation(health["api"], "API calls", warn_at)
    yield from _allocation(stream.get("delivered", {}), "events that the org delivers", warn_at)


def _allocation(told: Mapping[str, Any], of: str, warn_at: float) -> Iterator[Attention]:
    used, most = told.get("used"), told.get("max")
    if not most or used is None or used < most * warn_at:
        return
    spent = used >= most
    yield "bad" if spent else "warn", f"{used:,} of {most:,} {of} of 24 hours are {'spent' if spent else 'used'}"
